"""TensorRT engines are built of every graph that is exported, and one of something else is never loaded."""

import importlib.util
import json
import shutil
from dataclasses import replace

import pytest
import torch

from affect.engine.config.network import ModelConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.export.onnx import write_onnx
from affect.engine.models.clip_model import ClipModel, FrameEncoder, frame_backbone
from affect.engine.models.deployed import Deployed, DeployedTemporal
from affect.engine.models.normalise import Normalise
from affect.engine.models.temporal import TEMPORALS, Differences
from affect.engine.package.graphs import graph_names
from affect.engine.package.manifest import Manifest
from affect.engine.runtime.backends import tensorrt_engine as tensorrt
from affect.engine.runtime.backends.tensorrt_engine import Facts, Gpu, Profile, engine_of, read
from affect.shards.errors import InputError
from affect.shards.schema import Output, TargetLayout

ADA = Gpu("", ("8.9",))
LAYOUT = TargetLayout((Output("state", "classes", ("no", "yes")), Output("pain", "scalars", ("total",))))
MANIFEST = Manifest("drawn", "pain_clip", LAYOUT, Preprocess(32), "full", {}, {}, [], "", {"shape": ["N", 4, 32, 32, 3]})
NAMES = [name for output in LAYOUT.outputs for name in graph_names(output)]
SIZES = {"transformer": {"size": 32, "layers": 1, "heads": 4, "feed": 32, "hidden": 16}, "lstm_attention": {"hidden": 16}}
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed, which builds without a GPU"
)


@pytest.fixture(autouse=True)
def without_a_data_centre(monkeypatch):
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("tensorrt_rtx",))


@pytest.fixture(scope="module")
def built(package, tmp_path_factory):
    """A package of one graph, and its engine."""
    folder = shutil.copytree(package, tmp_path_factory.mktemp("trt") / "package")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt, "LIBRARIES", ("tensorrt_rtx",))
        return folder / "model.onnx", engine_of(folder / "model.onnx", ADA)


def head(name, width):
    differences = name == "differences"
    made = TEMPORALS["mean" if differences else name]
    inner = made((1 + differences) * width, {"state": 2, "pain": 1}, 4, **SIZES.get(name, {}))
    return Differences(inner) if differences else inner


def test_an_engine_is_built_of_a_model_of_frames(built):
    _, engine = built
    facts = json.loads(engine.with_suffix(".json").read_text())
    assert engine.stat().st_size > 10_000 and facts["gpu"] == {"name": "", "capabilities": ["8.9"]}
    assert facts["library"].startswith("tensorrt_rtx ") and facts["profile"] == {"least": 1, "usual": 1, "most": 32}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TEMPORALS, "differences"])
def test_an_engine_is_built_of_every_temporal_head(name, tmp_path):
    module = DeployedTemporal(head(name, 12).eval(), LAYOUT, (1.0, 1.0))
    write_onnx(module, torch.zeros(2, 4, 12), ("features", NAMES), tmp_path / "temporal.onnx", MANIFEST)
    assert engine_of(tmp_path / "temporal.onnx", ADA).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["model", "encoder"])
def test_an_engine_is_built_of_a_model_of_clips(part, tmp_path):
    encoder = FrameEncoder(Normalise(), frame_backbone(ModelConfig(backbone="small_cnn")))
    clips = torch.zeros(2, 4, 32, 32, 3, dtype=torch.uint8)
    if part == "model":
        module, given, names = Deployed(ClipModel(encoder, head("mean", encoder.width)), LAYOUT, (1.0, 1.0)), clips, NAMES
    else:
        module, given, names = encoder, clips[:, 0], ["features"]
    write_onnx(module.eval(), given, ("images", names), tmp_path / f"{part}.onnx", MANIFEST)
    assert engine_of(tmp_path / f"{part}.onnx", ADA).is_file()


def test_it_is_built_once(built, monkeypatch):
    graph, engine = built
    monkeypatch.setattr(tensorrt, "build", lambda *_: pytest.fail("built again"))
    assert engine_of(graph, ADA) == engine


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gpu": Gpu("", ("12.0",))}, r"engine of another GPU \(8\.9, here 12\.0\)"),
        ({"gpu": Gpu("NVIDIA H200", ("9.0",))}, r"engine of another GPU \(8\.9, here NVIDIA H200\)"),
        ({"library": "tensorrt_rtx 0.1"}, r"engine of another version \(tensorrt_rtx .*, here tensorrt_rtx 0\.1\)"),
        ({"profile": Profile(most=64)}, "engine of another profile or precision"),
        ({"precision": "int8"}, "engine of another profile or precision"),
        ({"graph_sha256": "0"}, "engine of another graph"),
    ],
)
def test_an_engine_of_something_else_is_not_loaded(built, changed, message):
    graph, engine = built
    facts = Facts.of(graph, tensorrt.library(), ADA, Profile(), "float32")
    assert read(engine, facts) == engine.read_bytes()
    with pytest.raises(InputError, match=f"{message}.*; delete it, it is built anew"):
        read(engine, replace(facts, **changed))


def test_a_stale_engine_is_left_alone_and_another_built(built, capsys, monkeypatch, tmp_path):
    graph = shutil.copytree(built[0].parent, tmp_path / "package") / "model.onnx"
    monkeypatch.setattr(tensorrt, "build", lambda *_: b"another")
    engine = engine_of(graph, Gpu("", ("12.0",)))
    said = capsys.readouterr().err
    assert "engine of another GPU (8.9, here 12.0); left alone" in said and engine.read_bytes() == b"another"
    assert len(list(graph.parent.glob("engines/*.engine"))) == 2


def test_changed_bytes_and_missing_facts_are_refused(built, tmp_path):
    graph, engine = built
    facts = Facts.of(graph, tensorrt.library(), ADA, Profile(), "float32")
    copy = tmp_path / engine.name
    copy.write_bytes(engine.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="no facts beside it"):
        read(copy, facts)
    shutil.copy(engine.with_suffix(".json"), copy.with_suffix(".json"))
    with pytest.raises(InputError, match="its bytes have changed since it was built"):
        read(copy, facts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: engine_of(path, Gpu("", ("1.2",))), "TensorRT-RTX has no compute capability 1.2; it has 7.5, 8"),
        (lambda path: engine_of(path.with_name("text.onnx"), ADA), "TensorRT cannot read it"),
        (lambda path: tensorrt.this_gpu(), "no GPU here"),
    ],
)
def test_what_cannot_be_built_is_said(built, call, message):
    built[0].with_name("text.onnx").write_text("no graph")
    with pytest.raises(InputError, match=message):
        call(built[0])


def test_a_library_that_does_not_load_is_named(monkeypatch):
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("tensorrt_of_nobody",))
    with pytest.raises(InputError, match="tensorrt_of_nobody: No module named .*; pip install tensorrt-rtx"):
        tensorrt.library()
