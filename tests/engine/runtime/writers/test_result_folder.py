"""`affect run`: what is written says what was there, and is kept however the run ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from affect.engine import Reader, Search, open_source
from affect.engine.runtime.sources.stream import Stream
from affect.engine.runtime.stage_timer import Stages
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.vision.subject import default_subject
from affect.engine.runtime.writers.clip_table import run_clips
from affect.engine.runtime.writers.prediction_table import FIXED
from affect.engine.runtime.writers.result_folder import run_source
from affect.engine.system.folder_lock import lock_folder
from affect.shards.errors import InputError

FACE = Box(20, 20, 30, 30, 0.9)
SHOWN = [("dark", 30, 2.0), ("bright", 220, 1.2), ("middle", 128, 1.8), ("dark", 30, 1.0)]  # label, level, seconds


def changing(fps, width=240):
    """Frames of a face that changes at 2.0, 3.2 and 5.0 s."""
    frames = []
    for _, level, seconds in SHOWN:
        image = np.full((180, width, 3), 128, np.uint8)
        image[14:56, 14:56] = level
        frames += [image] * round(seconds * fps)
    return frames


def always(*boxes):
    class Always:
        def detect(self, image, number=0):
            return list(boxes)

    return Search(Always())


@pytest.mark.parametrize("fps", [10, 25])
def test_changes_are_reported_within_half_a_second(fps, bright, write, tmp_path):
    path = write(tmp_path / "x.mp4", changing(fps), rate=fps, codec="libx264", options={"crf": "10"})
    summary = run_source([bright()], open_source(path), tmp_path / "out", search=always(FACE))
    events = pd.read_csv(tmp_path / "out" / "events.csv")
    assert events["label"].tolist() == [label for label, *_ in SHOWN] and set(events["track"]) == {0}
    begins = np.cumsum([0, *(seconds for *_, seconds in SHOWN)])
    assert np.abs(events["start_s"] - begins[:-1]).max() < 0.5 and np.abs(events["end_s"] - begins[1:]).max() < 0.5
    assert summary["packages"]["bright"]["flips_per_minute"] == pytest.approx(3 / 6 * 60, rel=0.05)


@pytest.mark.slow
def test_the_files_say_the_same(bright, write, tmp_path):
    path = write(tmp_path / "x.mp4", changing(10), rate=10, sound="aac")
    search = Search(Listed({i: [FACE, Box(100, 60, 40, 40, 0.5)] for i in range(5, 60)}))
    summary = run_source([bright("a"), bright("b")], open_source(path), tmp_path / "out", search=search, video=True)
    names = {"predictions.csv", "predictions.parquet", "events.csv", "timeline.png", "timeline_b.png", "summary.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names | {"annotated.mp4"}
    table, typed = pd.read_csv(tmp_path / "out/predictions.csv"), pd.read_parquet(tmp_path / "out/predictions.parquet")
    assert list(table) == list(typed) == [*FIXED, "emotion.dark", "emotion.middle", "emotion.bright"]
    assert len(table) == 2 * (5 + 2 * 55) and table.loc[table["frame"] < 5, "face":].isna().all(axis=None)
    assert table["package"].tolist()[:4] == ["a", "b", "a", "b"] and set(table["source"]) == {"x.mp4"}
    assert table.loc[table["face"] == 0, "det_score"].unique().tolist() == [0.9]
    assert summary == json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["frames"], summary["faces"], summary["frames_without_a_face"], summary["interrupted"]) == (60, 110, 5, False)
    assert {"decode", "detect", "crop", "infer", "smooth", "write"} == set(summary["stages"])
    with Stream(open_source(tmp_path / "out/annotated.mp4")) as stream:
        shots = list(stream)
    assert len(shots) == 60 and np.abs(shots[2].image - 128.0)[100:].mean() < 3 < np.ptp(shots[30].image[60:100, 100:140])


def test_no_frame_is_kept_unless_asked_for_and_faces_can_be_hidden(bright, write, tmp_path):
    random = np.random.default_rng(0)
    noise = np.full((180, 240, 3), 128, np.uint8)
    noise[20:50, 20:50] = random.integers(0, 256, (10, 10, 3), np.uint8).repeat(3, 0).repeat(3, 1)
    path = write(tmp_path / "x.mp4", [noise] * 10, codec="libx264", options={"crf": "1"})
    run_source([bright()], open_source(path), tmp_path / "plain", search=always(FACE))
    assert not list((tmp_path / "plain").glob("*.mp4"))
    spread = {}
    for hidden in (False, True):
        out = tmp_path / f"hidden_{hidden}"
        run_source([bright()], open_source(path), out, search=always(FACE), video=True, anonymize=hidden)
        with Stream(open_source(out / "annotated.mp4")) as stream:
            spread[hidden] = np.abs(np.diff(next(stream).image[24:46, 24:46].astype(float), axis=0)).mean()
    assert spread[True] < spread[False] / 2
    with pytest.raises(InputError, match="anonymize: .* add --video"):
        run_source([bright()], open_source(path), tmp_path / "no", anonymize=True)
    assert not (tmp_path / "no").exists()


def test_an_interrupted_run_keeps_what_is_there(bright, write, tmp_path, decoding):
    path, done = write(tmp_path / "x.mp4", changing(10), rate=10), []

    def advance(count):
        done.append(count)
        if len(done) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_source([bright()], open_source(path), tmp_path / "out", search=always(FACE), video=True, advance=advance)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["interrupted"] and summary["frames"] == 30 and not list((tmp_path / "out").glob(".*"))
    assert len(pd.read_csv(tmp_path / "out/predictions.csv")) == len(pd.read_parquet(tmp_path / "out/predictions.parquet")) == 30
    events = pd.read_csv(tmp_path / "out/events.csv")
    assert events["label"].tolist() == ["dark", "bright"] and events["end_s"].tolist()[-1] == pytest.approx(2.9)
    with Stream(open_source(tmp_path / "out/annotated.mp4")) as stream:
        assert len(list(stream)) == 30


TERMINATED = """
import signal
from affect.engine.cli.main import main
from affect.engine.runtime.writers.result_folder import ResultFolder
def add(folder, result, add=ResultFolder.add):
    add(folder, result)
    if folder.frames == 30:
        signal.raise_signal(signal.SIGTERM)
ResultFolder.add = add
main()
"""


@pytest.mark.slow
def test_sigterm_closes_the_files_as_ctrl_c_does(package, write, tmp_path):
    path, out = write(tmp_path / "x.mp4", changing(10), rate=10), tmp_path / "out"
    arguments = ["run", path, "--package", package, "--subject", "full", "--video", "--out", out]
    process = subprocess.run([sys.executable, "-c", TERMINATED, *map(str, arguments)], capture_output=True, text=True)
    assert process.returncode == 130 and "Traceback" not in process.stderr, process.stderr
    assert json.loads((out / "summary.json").read_text())["interrupted"] and not list(out.glob(".*"))
    assert len(pd.read_csv(out / "predictions.csv")) == len(pd.read_parquet(out / "predictions.parquet")) == 30
    with Stream(open_source(out / "annotated.mp4")) as stream:
        assert len(list(stream)) == 30


@pytest.mark.slow
def test_a_second_run_into_a_folder_leaves_the_first_alone(affect, bright, package, write, tmp_path):
    path, ended = write(tmp_path / "x.mp4", changing(10), rate=10), []

    def advance(count):
        if not ended:
            ended.append(affect("run", path, "--package", package, "--subject", "full", "--out", tmp_path / "out"))

    for out in ("alone", "out"):
        doing = {"advance": advance} if out == "out" else {}
        run_source([bright()], open_source(path), tmp_path / out, search=always(FACE), video=True, **doing)
    code, _, err = ended[0]
    messages = [line for line in err.splitlines() if not line.startswith("backend: ")]  # timed, where no test has done so yet
    assert code == 1 and len(messages) == 1
    assert messages[0].startswith(f"error: {tmp_path}/out: is being written by process {os.getpid()} on ")
    for name in ("predictions.csv", "events.csv", "predictions.parquet", "annotated.mp4"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in (tmp_path / "alone").iterdir()}


def test_a_video_that_ends_in_garbage_gives_its_frames(bright, write, tmp_path):
    path = write(tmp_path / "x.avi", changing(10), rate=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + os.urandom(5000))
    summary = run_source([bright()], open_source(path), tmp_path / "out", search=always(FACE))
    assert summary["frames"] > 10 and "frames missing at its end" in summary["notes"][0]


def test_sound_alone_is_refused_and_leaves_nothing(bright, tmp_path):
    import av

    with av.open(str(tmp_path / "x.mp4"), "w") as out:
        audio = out.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        out.mux(audio.encode(frame))
        out.mux(audio.encode())
    with pytest.raises(InputError, match="has no video, only sound"):
        run_source([bright()], open_source(tmp_path / "x.mp4"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_camera_that_is_unplugged_ends_the_run(bright, tmp_path, decoding):
    from affect.engine.runtime.sources.live import Retry, camera

    class Unplugged:
        left = 5

        def isOpened(self):
            return True

        def read(self):
            self.left -= 1
            return self.left >= 0, np.full((60, 80, 3), 128, np.uint8)

        set = release = lambda *given: None

    source = camera(0, Retry(0.01, 0.01, 0.0), lambda number: Unplugged())
    summary = run_source([bright()], source, tmp_path / "out", search=always(Box(10, 10, 20, 20)))
    assert (
        summary["frames"] + summary["dropped"] == 5
        and "gone for good" in summary["notes"][0]
        and "decode" not in summary["stages"]
    )


def test_pictures_have_rows_and_no_timeline(bright, picture, tmp_path):
    import cv2

    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture(40, 50, i))
    source = open_source(tmp_path)
    assert default_subject([bright().manifest], source.moving)[0] == "full"
    run_source([bright()], source, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    assert table["source"].tolist() == ["0.png", "1.png", "2.png"] and table["time_s"].isna().all()
    assert table["w"].tolist() == [50] * 3 and not (tmp_path / "out/timeline.png").exists()


@pytest.mark.parametrize(
    ("tasks", "want"), [(["emotion_au"], "human_face"), (["emotion_au", "mouse_set"], "full"), (["score_clip"], "full")]
)
def test_faces_are_looked_for_in_videos_of_people(tasks, want, bright, write, tmp_path):
    source = open_source(write(tmp_path / "x.mp4", changing(1)))
    assert default_subject([bright(task, task).manifest for task in tasks], source.moving)[0] == want


CLIP = {"view": {"frames": 4, "choice": "window"}, "rate_hz": 10.0, "window_s": 0.3, "stored": None}


def test_a_package_may_say_whom_it_looks_for(bright, write, tmp_path):
    picture, video = tmp_path / "a.png", write(tmp_path / "x.mp4", changing(5), rate=5)
    cv2.imwrite(str(picture), np.zeros((32, 32, 3), np.uint8))
    people, cropped = bright("a", subject="human_face"), bright("b")
    for source in map(open_source, (picture, video)):
        assert default_subject([people.manifest], source.moving)[0] == "human_face"
    assert default_subject([people.manifest, cropped.manifest], open_source(picture).moving)[0] == "full"


def test_annotated_pictures_are_pictures(bright, picture, tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(folder / name), picture(64, 80))
    run_source([bright()], open_source(folder), tmp_path / "out", search=always(FACE), video=True)
    assert {file.name for file in (tmp_path / "out/annotated").iterdir()} == {"a.png", "a.jpg.png"}
    drawn, plain = cv2.imread(str(tmp_path / "out/annotated/a.png")), picture(64, 80)
    assert drawn.shape == (64, 80, 3) and (drawn != plain).any() and (drawn[-5:] == plain[-5:]).all()


def test_clips_of_a_recording_are_a_table(bright, write, tmp_path):
    engine = bright("cow", "pain_clip", clip=CLIP)
    frames = [np.full((40, 40, 3), 30 if i < 10 else 220, np.uint8) for i in range(20)]
    path = write(tmp_path / "cow.mp4", frames, rate=10)
    assert run_clips([engine], open_source(path), tmp_path / "out") == 5
    table = pd.read_csv(tmp_path / "out/clips.csv")
    assert list(table)[:5] == ["package", "source", "track", "start_s", "end_s"] and table["label"].tolist()[::4] == [
        "dark",
        "bright",
    ]
    assert table["start_s"].tolist() == pytest.approx([0, 0.4, 0.8, 1.2, 1.6]) and table["end_s"][0] == pytest.approx(0.3)
    with lock_folder(tmp_path / "out"), pytest.raises(InputError, match="is being written by process"):
        run_clips([engine], open_source(path), tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"clips.csv"}


def test_clips_need_a_recording(bright, picture, tmp_path):
    import cv2

    engine = bright("cow", "pain_clip", clip=CLIP)
    cv2.imwrite(str(tmp_path / "cow.png"), picture())
    with pytest.raises(InputError, match="cow sees clips.*expected a video file"):
        run_clips([engine], open_source(tmp_path / "cow.png"), tmp_path / "out")
    with pytest.raises(InputError, match="sees clips, not frames"):
        Reader([engine], open_source(tmp_path / "cow.png"))
    assert not (tmp_path / "out").exists()


def test_stages_are_percentiles_in_constant_memory():
    stages = Stages()
    for i in range(100_000):
        stages.add("infer", (1 + i % 100) / 1000)
    stages.add("rare", 0.0)
    summary = stages.to_json()["infer"]
    assert [summary[key] for key in ("p50_ms", "p95_ms", "p99_ms")] == pytest.approx([50, 95, 99], rel=0.02)
    assert len(stages._bins["infer"]) <= 100


def resident():
    """MB that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads Linux's /proc")
def test_memory_is_flat_over_thousands_of_frames(bright, moving, tmp_path):
    images, boxes = moving(40)
    held, done = [], []

    def advance(count):
        done.append(count)
        if len(done) >= 1000 and len(done) % 200 == 0:
            held.append(resident())

    search = Search(Listed({i: [Box(*map(float, boxes[i % 40]))] for i in range(4000) if i % 500 > 40}))
    source = open_source((images[i % 40] for i in range(4000)), rate_hz=25)
    summary = run_source([bright()], source, tmp_path / "out", search=search, advance=advance)
    assert summary["frames"] == 4000 and summary["faces"] > 3500 and max(held) - held[0] < 20, held


@pytest.mark.slow
def test_the_command_on_two_sources(affect, package, write, tmp_path):
    for name in ("x", "y"):
        write(tmp_path / f"{name}.mp4", changing(10), rate=10)
    sources = [tmp_path / "x.mp4", tmp_path / "y.mp4"]
    code, out, err = affect("run", *sources, "--package", package, "--out", tmp_path / "out", "--no-smoothing", "--json")
    first, second = (json.loads(line) for line in out.splitlines() if line.startswith("{"))
    assert code == 0 and first["out"] == str(tmp_path / "out/x.mp4") and second["frames"] == 60
    assert first["subject"] == "human_face" and "subject human_face, for it is a video" in err
    assert len((tmp_path / "out/y.mp4/predictions.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detect-every", "0"], "detect_every: found 0"),
        (["--detect-width", "3"], "detect_width: found 3; expected at least 64"),
        (["--cores", "0-99999"], "not there; this process may use"),
        (["--coverage", "0.9"], "0.9 asked for, tiny has sets for none; fit them: affect calibrate RUN --coverage 0.9"),
        (["--subject", "human_fase"], "did you mean 'human_face'"),
        (["--subject", "yunet:nowhere.onnx"], "nowhere.onnx: no such file"),
        (["--backend", "onnxruntme"], "onnxruntme"),
        (["--anonymize"], "add --video"),
        (["--threads", "-1"], "threads: found -1"),
        (["--sure", "2"], "sure: found 2"),
        (["--align"], "align: human_face gives no five points to turn faces by; name yunet:FILE.onnx"),
        (["--rate", "0"], "rate: found 0; expected pictures a second"),
        (["--rate", "nan"], "rate: found nan"),
    ],
)
def test_bad_options_of_the_command(options, message, affect, package, write, tmp_path):
    path = write(tmp_path / "x.mp4", changing(2))
    code, _, err = affect("run", path, "--package", package, "--out", tmp_path / "out", *options)
    assert code == 1 and message in err and "Traceback" not in err and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to(bright, tmp_path, write):
    path = write(tmp_path / "x.mp4", changing(2)[:3])
    (tmp_path / "file").write_text("there already")
    for out in ("file", "file/below"):
        with pytest.raises(InputError, match="no folder can be written there .*; name another: --out DIR"):
            run_source([bright()], open_source(path), tmp_path / out)
    assert (tmp_path / "file").read_text() == "there already"
    with pytest.raises(InputError, match="holds the pictures that are read"):
        run_source([bright()], open_source(tmp_path), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"x.mp4", "file"}
