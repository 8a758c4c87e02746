"""A lower precision is in a package only with what it costs, and one INT8 file runs everywhere."""

import importlib.util
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from affect.engine.export.export_run import export
from affect.engine.export.precision_cost import PrecisionCost
from affect.engine.package.graphs import INT8
from affect.engine.runtime.backends import tensorrt_engine as tensorrt
from affect.engine.runtime.backends.auto import Candidates
from affect.engine.runtime.backends.onnxruntime import OnnxRuntime
from affect.engine.runtime.backends.open_backend import allowed
from affect.engine.runtime.backends.openvino import OpenVino
from affect.shards.errors import InputError

pytestmark = pytest.mark.slow  # what is tested is trained and exported first

ANY = 100.0  # points
needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("lower") / "run", ignore=shutil.ignore_patterns("package"))


@pytest.fixture(scope="module")
def lowered(run):
    return export(run, int8=True, max_drop=ANY)


@needs_nncf
def test_what_it_costs_is_in_the_manifest(lowered):
    files = json.loads((lowered.model.parent / "manifest.json").read_text())["files"]
    fact = files[INT8]
    assert fact["precision"] == "int8" and fact["metric"]["name"] == "macro_f1" and "int8" in allowed(lowered)
    assert fact["metric"]["drop_points"] == pytest.approx(100 * (fact["metric"]["float32"] - fact["metric"]["value"]))
    assert fact["parity"]["emotion"]["rows"] == 96 and 0 < fact["parity"]["emotion"]["label_agreement"] <= 1
    assert Candidates(lowered.model, (32, 32, 3), "cpu", precisions=allowed(lowered)).choices[-1].precision == "int8"
    if bf16 := files["model.onnx"].get("lower"):
        assert bf16["bf16"]["parity"]["emotion"]["label_agreement"] > 0.9 and "bf16" in allowed(lowered)


@needs_nncf
def test_all_that_is_quantized_is_signed_and_the_manifest_stays_inside(lowered):
    graph = onnx.load(lowered.model.with_name(INT8))
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.graph.initializer}
    points = [constants[node.input[2]] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert points and all(point.dtype == np.int8 and not point.any() for point in points)
    assert any(entry.key == "affect.manifest" for entry in graph.metadata_props)


@needs_nncf
@needs_openvino
def test_one_file_runs_in_every_library(lowered, monkeypatch):
    path = lowered.model.with_name(INT8)
    by_onnxruntime, by_openvino = OnnxRuntime(path).run(IMAGES), OpenVino(path, "int8", threads=1).run(IMAGES)
    assert np.abs(by_onnxruntime["emotion.probs"] - by_openvino["emotion.probs"]).max() < 0.05
    assert np.abs(by_onnxruntime["emotion.probs"] - OnnxRuntime(lowered.model).run(IMAGES)["emotion.probs"]).max() < 0.3
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("tensorrt_rtx",))
    assert tensorrt.engine_of(path, tensorrt.Gpu("", ("8.9",)), precision="int8").stat().st_size > 10_000


def test_too_dear_a_precision_is_left_out_and_said(run, capsys, monkeypatch):
    measure = PrecisionCost.measure

    def dear(self, backend):
        facts = measure(self, backend)
        return facts | {"metric": facts["metric"] | {"drop_points": 0.6}}

    monkeypatch.setattr(PrecisionCost, "measure", dear)
    package = export(run, int8=importlib.util.find_spec("nncf") is not None)
    assert allowed(package) == ("float32",) and not package.model.with_name(INT8).exists()
    said = capsys.readouterr().err
    if importlib.util.find_spec("nncf"):
        assert "a drop of 0.60 points, at most 0.5 allowed: left out; --max-drop 0.60 would keep it" in said


def test_without_nncf_the_remedy_is_said(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(InputError, match=r"--int8 needs NNCF: pip install 'affect-engine\[int8\]'"):
        export(run, int8=True)


def test_an_unknown_target_is_said(run):
    with pytest.raises(InputError, match=r"--to: 'tensort'.*did you mean 'tensorrt'"):
        export(run, ("onnx", "tensort"))
