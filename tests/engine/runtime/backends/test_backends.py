"""Every backend gives the same outputs; the fastest is chosen and remembered, and one that does not load is named."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.backends import auto as choose
from affect.engine.runtime.backends import open_backend as backends
from affect.engine.runtime.backends.auto import Candidates, cache_file
from affect.engine.runtime.backends.backend import Choice
from affect.engine.runtime.backends.onnxruntime import OnnxRuntime
from affect.engine.runtime.backends.open_backend import allowed, open_backend
from affect.engine.runtime.backends.openvino import OpenVino
from affect.shards.errors import InputError

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choose, "SECONDS", 0.02)


@pytest.fixture
def opened(package):
    return ModelPackage.open(package)


@pytest.fixture
def want(opened):
    return OnnxRuntime(opened.model).run(IMAGES)


@needs_openvino
def test_openvino_agrees_with_onnx_runtime(opened, want):
    backend = OpenVino(opened.model, threads=1)
    got = backend.run(IMAGES)
    assert got.keys() == want.keys() and all(np.abs(got[name] - want[name]).max() < 1e-4 for name in want)
    copies = {name: values.copy() for name, values in got.items()}
    backend.run(255 - IMAGES[:1])
    assert all((got[name] == copies[name]).all() for name in copies)  # the next call leaves them alone
    backend.close()
    with pytest.raises(InputError, match="was closed"):
        backend.run(IMAGES)


@pytest.mark.slow  # compiling
def test_torch_agrees_with_onnx_runtime(opened, want):
    from affect.engine.runtime.backends.torch import TorchBackend

    for compile in (False, True):
        got = TorchBackend(opened, "cpu", compile=compile).run(IMAGES)
        assert all(np.abs(got[name] - want[name]).max() < 1e-4 for name in want)


@pytest.mark.parametrize(
    ("backend", "device", "message"),
    [
        ("onnxrutime", "cpu", "did you mean 'onnxruntime'"),
        ("onnxruntime:bf16", "cpu", "expected openvino:bf16"),
        ("openvino:fp4", "cpu", "expected openvino:bf16"),
        ("openvino:int8", "cpu", "it has no model.int8.onnx; affect export RUN --int8"),
        ("openvino", "cuda", "here it computes on cpu"),
        ("onnxruntime", "cuda", "asked ONNX Runtime for CUDAExecutionProvider, it gives CPU|cannot load"),
        ("auto", "tpu", "expected auto, cpu or cuda"),
        ("torch", "cuda", "torch sees no GPU"),
        ("tensorrt", "cuda", "no GPU here|not installed|No module"),
    ],
)
def test_what_cannot_be_opened_is_named(opened, backend, device, message):
    with pytest.raises(InputError, match=message):
        open_backend(opened, backend, device)


@needs_openvino
def test_auto_says_why_and_remembers(opened, want, capsys, monkeypatch):
    got = open_backend(opened).run(IMAGES)
    assert all(np.abs(got[name] - want[name]).max() < 1e-4 for name in want if "openvino:bf16" not in allowed(opened))
    messages = capsys.readouterr().err
    assert (
        "the fastest of" in messages
        and "int8 (not measured in the manifest)" in messages
        and "torch (only when named)" in messages
    )
    (cached,) = json.loads(cache_file().read_text()).values()
    assert set(cached["ms"]) >= {"onnxruntime", "openvino"} and cached["choice"] == min(cached["ms"], key=cached["ms"].get)
    monkeypatch.setattr(choose, "timed", lambda *_: pytest.fail("timed again"))
    open_backend(opened)
    assert "when it was timed on this machine" in capsys.readouterr().err


def test_of_another_graph_machine_or_version_nothing_is_remembered(opened, monkeypatch, tmp_path):
    def key(**changed):
        return Candidates(**{"graph": opened.model, "row": (32, 32, 3), "device": "cpu", **changed}).key

    other = shutil.copy(opened.model, tmp_path / "other.onnx")
    same = key(graph=other)
    other.write_bytes(other.read_bytes() + b"\0")
    keys = [key(), key(graph=other), key(threads=1), key(device="cuda"), key(precisions=("float32", "bf16"))]
    monkeypatch.setattr(choose, "machine", lambda: "another")
    keys.append(key())
    monkeypatch.setattr(choose, "versions", lambda: {"openvino": "1"})
    assert same == keys[0] and len({*keys, key()}) == 7


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 3}', '{"KEY": {}}', '{"KEY": {"choice": "nothing"}}'])
def test_a_damaged_cache_is_replaced(opened, text):
    of = Candidates(opened.model, (32, 32, 3), "cpu")
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(text.replace("KEY", of.key))
    assert of.open(lambda choice: OnnxRuntime(opened.model)).run(IMAGES)
    assert json.loads(cache_file().read_text())[of.key]["choice"] in ("onnxruntime", "openvino")


def test_what_does_not_load_is_named_and_the_next_one_chosen(opened, capsys, monkeypatch):
    def failing(*_):
        raise InputError("OpenVINO: libopenvino.so is gone")

    monkeypatch.setattr(backends, "OpenVino", failing)
    assert open_backend(opened, device="cpu").name == "onnxruntime"
    messages = capsys.readouterr().err
    assert "openvino does not load: OpenVINO: libopenvino.so is gone" in messages and "the only one that loads" in messages
    assert not cache_file().exists()  # it may load tomorrow
    monkeypatch.setattr(backends, "OnnxRuntime", failing)
    with pytest.raises(InputError, match="no backend loads: onnxruntime: OpenVINO: lib"):
        open_backend(opened, device="cpu")


def test_a_cache_that_cannot_be_written_is_no_error(opened, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(choose.Candidates, "choices", [Choice("onnxruntime")])
    assert open_backend(opened, device="cpu").name == "onnxruntime" and "not remembered" in capsys.readouterr().err


SIGNALS = """
import signal, subprocess, sys
from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.backends.openvino import OpenVino
opened = [OpenVino(ModelPackage.open(sys.argv[1]).model, threads=1) for _ in range(2)]
for backend in opened:
    backend.close()
del backend, opened
signal.signal(signal.SIGCHLD, lambda *_: None)  # as torch's DataLoader does
subprocess.run(["true"])
"""


@pytest.mark.slow
@needs_openvino
def test_a_child_that_ends_after_openvino_does_not_kill(package):
    done = subprocess.run([sys.executable, "-c", SIGNALS, str(package)], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)


ALONE = """
import sys, numpy
from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.backends.open_backend import open_backend
for name in sys.argv[2:]:
    open_backend(ModelPackage.open(sys.argv[1]), name, "cpu").run(numpy.zeros((1, 32, 32, 3), numpy.uint8))
loaded = [name for name in ("torch", "timm", "nvidia.dali", "pandas", "nncf", "onnx") if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


@pytest.mark.slow
@needs_openvino
def test_none_of_what_training_needs_is_loaded(package):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(package), "onnxruntime", "openvino", "auto"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
