"""Opens the inference backend of a package: the named one, or the fastest on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from affect.engine.package.graphs import ENCODER, INT8, MODEL, TEMPORAL
from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.backends.auto import Candidates
from affect.engine.runtime.backends.backend import Backend, Choice, Precision
from affect.engine.runtime.backends.onnxruntime import PROVIDERS, OnnxRuntime
from affect.engine.runtime.backends.openvino import OpenVino
from affect.engine.runtime.backends.tensorrt import TensorRt
from affect.engine.system.log import say
from affect.shards.errors import InputError


def open_backend(package: ModelPackage, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Backend:
    """Open the inference backend of a package's graph.

    backend: `auto`, the fastest of those that load (`auto.py`); or one of BACKENDS, `openvino:bf16`, `openvino:int8`,
        `onnxruntime:int8`. device: auto, cpu, cuda. threads: None: a thread a core.
    Raises: InputError where the named one does not load, or with auto none does.
    """
    device = _device(device)
    if backend != "auto":
        return open_choice(package, Choice.parse(backend), device, threads)
    candidates = Candidates(package.model, row_shape(package), device, threads, allowed(package))
    return candidates.open(lambda choice: open_choice(package, choice, device, threads))


def open_parts(
    package: ModelPackage, backend: str = "auto", device: str = "auto", threads: int | None = None
) -> tuple[Backend, Backend]:
    """Open the two parts of a clip model in float32: frames (N, H, W, 3) -> features, and features (N, T, D) -> outputs."""
    folder, device = package.model.parent, _device(device)
    if not package.clip or not (folder / ENCODER).is_file() or not (folder / TEMPORAL).is_file():
        raise InputError(
            f"{package.manifest.name}: no {ENCODER} and {TEMPORAL} beside it; name the package folder of a clip model"
        )
    if backend != "auto":
        choice = Choice.parse(backend)
        encoder = open_graph(folder / ENCODER, choice, device, threads)
    else:
        candidates = Candidates(folder / ENCODER, row_shape(package)[1:], device, threads)
        encoder = candidates.open(lambda choice: open_graph(folder / ENCODER, choice, device, threads))
        choice = Choice(encoder.name)
    if package.side and choice.backend == "tensorrt":
        choice = Choice("onnxruntime")  # TensorRT takes no side signals
    return encoder, open_graph(folder / TEMPORAL, choice, device, threads)


def open_choice(package: ModelPackage, choice: Choice, device: str, threads: int | None = None) -> Backend:
    """Open a package in this very backend and precision."""
    if choice.backend == "torch":
        from affect.engine.runtime.backends.torch import TorchBackend  # loads torch

        return TorchBackend(package, device, threads)
    graph = package.model
    if choice.precision == "int8":
        graph = graph.with_name(INT8)
        if INT8 not in (package.manifest.files or {}):
            raise InputError(f"{package.manifest.name}: it has no {INT8}; affect export RUN --int8 makes one")
    if choice.precision not in allowed(package):
        say(f"warning: {choice}: what {choice.precision} costs is not in the manifest; affect export RUN measures it")
    return open_graph(graph, choice, device, threads)


def open_graph(graph: Path, choice: Choice, device: str, threads: int | None = None) -> Backend:
    """Open any of our graphs. Raises InputError where it does not load."""
    if choice.backend == "onnxruntime":
        return OnnxRuntime(graph, device, threads)
    if choice.backend == "openvino":
        if device != "cpu":
            raise InputError(f"OpenVINO: device {device!r}; here it computes on cpu")
        return OpenVino(graph, choice.precision, threads)
    if choice.backend == "tensorrt":
        return TensorRt(graph, choice.precision)
    raise InputError(f"backend: {choice} runs whole packages of a run, not a single graph")


def allowed(package: ModelPackage) -> tuple[Precision, ...]:
    """Precisions whose parity is in the manifest."""
    files = package.manifest.files or {}
    precisions: list[Precision] = ["float32"]
    if "bf16" in files.get(MODEL, {}).get("lower", {}):
        precisions.append("bf16")
    if INT8 in files:
        precisions.append("int8")
    return tuple(precisions)


def row_shape(package: ModelPackage) -> tuple[int, ...]:
    """(H, W, 3) or (T, H, W, 3)."""
    size, clip = package.preprocess.size, package.clip
    return (clip.frames, size, size, 3) if clip else (size, size, 3)


def best_device() -> str:
    """CUDA where there is a GPU that ONNX Runtime or TensorRT computes on, else the CPU."""
    if not Path("/proc/driver/nvidia/version").is_file():
        return "cpu"
    import onnxruntime as ort

    has_trt = any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx"))
    return "cuda" if has_trt or PROVIDERS["cuda"] in ort.get_available_providers() else "cpu"


def _device(name: str) -> str:
    chosen = best_device() if name == "auto" else name
    if chosen not in PROVIDERS:
        raise InputError(f"device: {name!r}; expected auto, cpu or cuda")
    return chosen
