"""A run becomes a package that answers alike, names what has changed, and needs no torch."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import yaml

from affect.engine import Engine
from affect.engine.config.load import load_config
from affect.engine.evaluation.evaluate import evaluate
from affect.engine.export.export_run import export
from affect.engine.export.parity import parity
from affect.engine.package.model_package import ModelPackage
from affect.engine.runs.trained import trained_model
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.images import decode


@pytest.fixture(scope="module")
def engine(package):
    return Engine.load(package, device="cpu")


@pytest.fixture
def copy(package, tmp_path):
    return shutil.copytree(package, tmp_path / "package")


def test_manifest_says_what_it_is(package):
    value = json.loads((package / "manifest.json").read_text())
    assert value["layout"][0]["names"][0] == "neutral" and value["preprocess"]["size"] == 32
    assert (value["species"], value["view"], value["face_px"]) == ("human", "", [48, 48])
    fact = value["files"]["model.onnx"]
    assert fact["parity"]["emotion"]["max_abs_logit"] < 1e-3 and fact["parity"]["emotion"]["rows"] == 96
    graph = onnx.load(package / "model.onnx")
    onnx.checker.check_model(graph)
    assert [i.name for i in graph.graph.input] == ["images"]
    assert [o.name for o in graph.graph.output] == ["emotion.logits", "emotion.probs"]
    assert [p.name for p in package.iterdir() if p.suffix not in (".json", ".onnx")] == []


def test_predict_equals_the_trained_model(engine, trained, synthetic, picture):
    run, model, _ = trained_model(trained)
    images = [decode(Dataset(synthetic).image(i)) for i in range(40)] + [picture(90, 70), picture(33, 200)]
    views = torch.from_numpy(np.stack([run.preprocess(image) for image in images]))
    with torch.inference_mode():
        want = model(views)[1]["emotion"].softmax(1).numpy()
    frames = engine.predict(images)
    got = np.array([list(frame.faces[0].probs.values()) for frame in frames])
    assert np.abs(got - want).max() < 1e-4
    assert [frame.faces[0].label for frame in frames] == [engine.manifest.layout.outputs[0].names[i] for i in want.argmax(1)]
    assert frames[-1].faces[0].box == (0, 0, 200, 33)


@pytest.mark.slow
def test_a_mirror_image_gets_the_same_answer_where_asked_for(trained, picture, tmp_path):
    run = tmp_path / "mirror"
    shutil.copytree(trained, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["mirror"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    view = picture(32, 32)
    images = torch.from_numpy(np.stack([view, view[:, ::-1]]))
    plain, both = (trained_model(folder)[1](images)[1]["emotion"] for folder in (trained, run))
    assert torch.allclose(both, plain.mean(0).expand(2, -1), atol=1e-5) and not torch.allclose(plain[0], plain[1], atol=1e-3)
    answers = Engine(export(run), backend="onnxruntime").run_graph(images.numpy())["emotion.logits"]
    assert np.abs(answers[0] - answers[1]).max() < 1e-4
    with pytest.raises(InputError, match=r"model.mirror: pain_clip sees clips"):
        load_config("pain_v1", ["model.mirror=true"])


def test_one_or_many_arrays_or_files(engine, picture, tmp_path):
    import cv2

    image = picture(40, 40)
    cv2.imwrite(str(tmp_path / "face.png"), image[..., ::-1])
    want = engine.predict(image)[0].faces[0].probs
    for other in ([image], image[None], str(tmp_path / "face.png"), [tmp_path / "face.png"]):
        assert engine.predict(other)[0].faces[0].probs == pytest.approx(want, abs=1e-6)
    assert engine.predict([]) == []
    assert engine.predict([image, image], times_s=[0.0, 0.04])[1].time_s == 0.04


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((40, 40, 3), np.float32), r"picture 0: found \(40, 40, 3\) float32; expected .* uint8; values 0..1"),
        (np.zeros((40, 40, 4), np.uint8), r"found \(40, 40, 4\) uint8"),
        (np.zeros((3, 40, 40), np.uint8), r"found \(3, 40, 40\)"),
        (np.zeros((0, 40, 3), np.uint8), r"found \(0, 40, 3\)"),
        (np.zeros(5, np.uint8), r"found \(5,\)"),
        ([np.zeros((4, 4), np.uint8), None], "picture 1: found NoneType"),
        ("nowhere.jpg", r"nowhere\.jpg: cannot be read: No such file"),
        (__file__, r"test_package\.py: not a picture"),
    ],
)
def test_bad_pictures_are_named(engine, bad, message):
    with pytest.raises(ValueError, match=message):
        engine.predict(bad)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_changed_byte_is_refused(copy, share):
    data = bytearray((copy / "model.onnx").read_bytes())
    data[int(share * len(data))] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(InputError, match=r"model\.onnx: its bytes have changed"):
        Engine.load(copy)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("manifest.json", "{", "not readable as JSON"),
        ("manifest.json", "{}", "not a manifest of this engine"),
        ("manifest.json", '{"schema": 99}', "schema 99 is newer"),
        ("model.onnx", None, "model.onnx: missing"),
        ("manifest.json", None, "no package: no manifest.json"),
    ],
)
def test_a_damaged_package_is_one_message(copy, file, text, message):
    (copy / file).unlink()
    if text is not None:
        (copy / file).write_text(text)
    with pytest.raises(InputError, match=message):
        ModelPackage.open(copy)


def test_one_onnx_file_works_alone(package, engine, tmp_path, picture):
    alone = Engine.load(shutil.copy(package / "model.onnx", tmp_path / "alone.onnx"), device="cpu")
    assert alone.predict(picture())[0].faces[0].probs == engine.predict(picture())[0].faces[0].probs


def test_an_onnx_file_of_others_is_refused(tmp_path):
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "other.onnx"
    )
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(InputError, match="without our manifest"):
        Engine.load(tmp_path / "other.onnx")
    with pytest.raises(InputError, match="cannot load it"):
        Engine.load(tmp_path / "text.onnx")


def test_parity_gate():
    want = np.array([[2.0, 1.0], [0.5, 0.499]], np.float32)
    assert parity(want, want + 1e-4, "here")["label_agreement"] == 1
    assert parity(want, want + np.array([[0, 0], [0, 0.0009 + 0.0002]]) * 0.9, "here")["rows"] == 2
    for got in (want + 0.002, want * np.nan, want[:, ::-1]):
        with pytest.raises(InputError, match="the graph is not the model"):
            parity(want, got, "here")


@pytest.mark.slow
def test_nothing_is_written_when_the_gate_closes(trained, tmp_path, monkeypatch):
    import affect.engine.export.parity as gate

    copy = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("package"))
    monkeypatch.setattr(gate, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(InputError, match="nothing was written"):
        export(copy)
    assert not (copy / "package").exists() and not list(copy.glob(".package*"))


@pytest.mark.slow
def test_run_and_package_evaluate_alike(trained, package, synthetic, tmp_path):
    of_run, of_package = (evaluate(m, synthetic, "val", tmp_path / m.name) for m in (trained, package))
    assert of_run["confusion"] == of_package["confusion"]
    assert of_run["nll"] == pytest.approx(of_package["nll"], abs=1e-5)
    written = json.loads((tmp_path / package.name / "metrics.json").read_text())
    assert list(written)[:2] == ["8way", "present_only"]
    assert (tmp_path / package.name / "confmat.png").stat().st_size > 1000


@pytest.mark.slow
def test_classes_are_matched_by_name(trained, synthetic, tmp_path):
    """A dataset that lists its classes in another order gives the same metrics."""
    from affect.shards.pack import pack
    from affect.shards.schema import TargetLayout
    from affect.shards.sources import synthetic_faces as source

    made = source.SyntheticSource(400, size=48, subjects=20)
    turned = source.Output("emotion", "classes", tuple(reversed(source.EMOTION.names)))
    made.layout = TargetLayout((turned, source.AU))
    pack(made, tmp_path / "turned")
    a, b = evaluate(trained, synthetic, "val", tmp_path / "a"), evaluate(trained, tmp_path / "turned", "val", tmp_path / "b")
    assert a["8way"] == pytest.approx(b["8way"]) and a["per_class"] == b["per_class"]


ALONE = """
import sys
from affect.engine import Engine
import numpy
Engine.load(sys.argv[1], device="cpu").predict(numpy.zeros((40, 40, 3), numpy.uint8))
loaded = [name for name in ("torch", "timm", "nvidia.dali", "pandas", "matplotlib") if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


@pytest.mark.slow
def test_the_engine_needs_no_torch(package):
    done = subprocess.run([sys.executable, "-c", ALONE, str(package)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
