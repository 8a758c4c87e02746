"""The command: one clear message and exit code 1 for bad input, 2 for bad usage, no traceback ever."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_from_faces_to_answers(affect, settings, tmp_path, synthetic):
    data, run = tmp_path / "data", tmp_path / "run"
    assert affect("pack", "synthetic", "--out", data, "--num-images", 160, "--size", 48, "--subjects", 10)[0] == 0
    assert "160 samples as they were packed" in affect("verify", data)[1]
    assert "emotion (classes)" in affect("stats", data)[1]
    sets = [word for setting in settings if "dataset" not in setting for word in ("--set", setting)]
    code, out, _ = affect(
        "train", "smoke", "--set", f"data.dataset={data}", *sets, "--set", "optim.epochs=1", "--out", run, "--json"
    )
    assert code == 0 and "waiting for data" in out and json.loads(out.splitlines()[-1])["val"]["accuracy"] >= 0
    assert (run / "curves.png").stat().st_size > 1000
    code, out, _ = affect("evaluate", run, "--data", data, "--json")
    assert code == 0 and "macro-F1" in out and "8way" in json.loads(out.splitlines()[-1])
    code, out, _ = affect("export", run)
    assert code == 0 and "model.onnx" in out and "largest difference" in out
    code, out, _ = affect("evaluate", run / "package", "--data", data, "--out", tmp_path / "eval")
    assert code == 0 and (tmp_path / "eval" / "metrics.json").is_file()

    import av

    from affect.shards.synthetic import faces

    video = tmp_path / "x.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for picture in faces.video(0, 0, "fear", 40, 64)[0]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    code, out, _ = affect("run", video, "--package", run, "--subject", "full", "--out", tmp_path / "answers")
    lines = (tmp_path / "answers" / "predictions.csv").read_text().splitlines()
    assert code == 0 and "40 frames" in out and len(lines) == 41
    assert lines[0].startswith("package,frame,time_s,source,face,track,x,y,w,h,det_score,face_px,blur,label,sure,emotion.neutral")
    assert lines[26].split(",")[1:3] == ["25", "1.0000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "folder", "nowhere", "--out", "d"], "nowhere: not a folder"),
        (["pack", "ferplus", "nowhere_train.npz", "--out", "d"], "no such file"),
        (["verify", "nowhere"], "nowhere: is not there; expected a packed dataset"),
        (["stats", "."], "has no dataset.json"),
        (["train", "smoek"], "did you mean 'smoke'"),
        (["train", "smoke", "--set", "optim.epoch=3"], "unknown key; did you mean 'epochs'?"),
        (["train", "smoke", "--set", "data.dataset=nowhere"], "nowhere: is not there"),
        (["train", "smoke", "--set", "train.device=cuda"], "cuda"),
        (["train", "smoke", "--resume", "--init-from", "a"], "give one of them"),
        (["train", "smoke", "--init-from", "nowhere.pt", "--out", "b"], "nowhere.pt: no such checkpoint"),
        (["train", "smoke", "--set", "train.track=[mlflow]", "--out", "b"], "mlflow is not installed"),
        (["train", "smoke", "--set", "optim.accumulate=3"], "64 samples per update do not divide into 3"),
        (["calibrate", "nowhere"], "not a run"),
        (["tables", "nowhere"], "nowhere"),
        (["evaluate", "nowhere", "--data", "nowhere"], "nowhere"),
        (["export", "nowhere"], "not a run"),
        (["run", "nowhere.mp4", "--package", "nowhere"], "no package"),
    ],
)
def test_bad_input_is_one_message(affect, arguments, message, tmp_path, monkeypatch, synthetic):
    monkeypatch.chdir(tmp_path)
    if "train.device=cuda" in arguments or "b" in arguments:
        arguments = [*arguments, "--set", f"data.dataset={synthetic}"]
    code, _, err = affect(*arguments)
    assert code == 1 and err.startswith("error: ") and message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.mp4", None, "no such file"),
        ("zero.mp4", b"", "not readable as a video"),
        ("text.avi", b"just text, no video" * 50, "not readable as a video"),
        ("text.jpg", b"just text", "not a picture"),
    ],
)
def test_bad_sources_leave_nothing_behind(affect, package, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = affect("run", tmp_path / name, "--package", package, "--out", tmp_path / "out")
    assert code == 1 and message in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["fly"], ["train"], ["pack", "ferplus", "x", "--out", "d", "--on-leak", "maybe"], ["train", "smoke", "--no"]]
)
def test_bad_usage_is_exit_code_2(affect, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert affect(*arguments)[0] == 2


def test_doctor_names_what_it_found(affect):
    code, out, _ = affect("doctor")
    assert code == 0 and "torch" in out and "training on" in out


LAZY = "import sys, affect.engine.cli.main; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'cv2', 'pydantic')))"


def test_help_loads_nothing_heavy():
    assert subprocess.run([sys.executable, "-c", LAZY]).returncode == 0
