"""What computes a graph: ONNX Runtime, OpenVINO, TensorRT or torch, behind one small protocol."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from affect.engine.package.graphs import ENCODER, INT8, MODEL, TEMPORAL
from affect.engine.package.model_package import ModelPackage
from affect.engine.system import openvino as ov
from affect.engine.system.log import say
from affect.engine.system.onnxruntime import session
from affect.shards.errors import InputError, nearest

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "torch")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
HINTS = {"float32": "f32", "bf16": "bf16", "int8": "f32"}  # of OpenVINO, for what is not quantized
ANSWERS = (".logits", ".probs", ".values", "features")  # how the names of our outputs end

Precision = Literal["float32", "bf16", "int8"]


class Backend(Protocol):
    """name: one of BACKENDS. note: on what it runs, in which precision, as it was found, not as it was asked for.

    Several threads may share one; it does not survive a fork: open it in the process that runs it.
    """

    name: str
    note: str

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The graph's input, (N, ...), uint8 images or float32 features -> output name -> (N, C) float32.

        side: of a graph that takes side signals (N, S) as measured, NaN where missing; without it all are missing.
        """
        ...

    def close(self) -> None:
        """Frees its memory; it cannot run any more."""
        ...


@dataclass(frozen=True)
class Choice:
    """A backend and a precision, written `openvino:bf16`; without a precision it is float32."""

    backend: str
    precision: Precision = "float32"

    @classmethod
    def parse(cls, text: str) -> Choice:
        backend, _, precision = text.partition(":")
        if backend not in BACKENDS:
            known = ("auto", *BACKENDS)
            raise InputError(f"backend: {backend!r}{nearest(backend, known)}; expected {', '.join(known)}")
        if precision and (precision not in HINTS or (precision == "bf16" and backend != "openvino")):
            raise InputError(f"backend: {text!r}; expected openvino:bf16, openvino:int8, onnxruntime:int8 or tensorrt:int8")
        return cls(backend, precision or "float32")  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.backend if self.precision == "float32" else f"{self.backend}:{self.precision}"


class OnnxRuntime:
    """A graph in ONNX Runtime. threads: of one call; None or 0: a thread a core."""

    name = "onnxruntime"

    def __init__(self, graph: Path, device: str = "cpu", threads: int | None = None) -> None:
        if device not in PROVIDERS:
            raise InputError(f"device: {device!r}; expected cpu or cuda")
        self.session: Any = session(graph, [PROVIDERS[device]], threads or 0)
        self.names = [output.name for output in self.session.get_outputs()]
        given = self.session.get_inputs()
        self.given, self.signals = [one.name for one in given], given[1].shape[1] if len(given) > 1 else 0
        self.note = f"ONNX Runtime on {device}, {graph.name}"

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        given = [images, *signals_of(self.note, self.signals, len(images), side)]
        values: list[Any] = _open(self.session, self).run(self.names, dict(zip(self.given, given, strict=True)))
        return dict(zip(self.names, values, strict=True))

    def close(self) -> None:
        self.session = None


class OnnxBackend(OnnxRuntime):
    """A package's graph in ONNX Runtime: images (N, H, W, 3) or (N, T, H, W, 3) uint8 -> output name -> (N, C) float32."""

    def __init__(self, package: ModelPackage, device: str = "cpu", threads: int | None = None) -> None:
        super().__init__(package.model, device, threads)


class OpenVino:
    """A graph in OpenVINO on the CPU. precision bf16: where the CPU computes in it, else an InputError."""

    name = "openvino"

    def __init__(self, graph: Path, precision: Precision = "float32", threads: int | None = None) -> None:
        try:
            core = ov.core()
        except ImportError as error:
            raise InputError(f"OpenVINO: {error}; pip install 'affect-engine[openvino]'") from error
        wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
        if threads:
            wanted["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                raise InputError("OpenVINO: this CPU does not compute in bf16; take openvino")
            compiled = core.compile_model(str(graph), "CPU", wanted)
        except RuntimeError as error:
            raise InputError(f"{graph}: OpenVINO cannot load it ({error})") from error
        got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if got != HINTS[precision]:
            raise InputError(f"{graph}: asked OpenVINO for {HINTS[precision]}, it gives {got}; take onnxruntime")
        self.names = [_name_in_the_graph(output.get_names()) for output in compiled.outputs]
        self.signals = compiled.inputs[1].partial_shape[1].get_length() if len(compiled.inputs) > 1 else 0
        self.request: Any = compiled.create_infer_request()
        self.note = f"OpenVINO on cpu, {graph.name}, {precision}"
        self._lock = threading.Lock()  # a request is of one thread at a time

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        given = [np.ascontiguousarray(images), *signals_of(self.note, self.signals, len(images), side)]
        with self._lock:
            request = _open(self.request, self)
            request.infer(given, share_inputs=True)
            return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self.names)}

    def close(self) -> None:
        with self._lock:
            self.request = None


def signals_of(note: str, signals: int, rows: int, side: np.ndarray | None) -> list[np.ndarray]:
    """What a graph of so many side signals is given beside `rows` images: nothing, or (N, S) float32, NaN without `side`.

    note: of the backend. Raises: InputError where `side` is not (rows, signals).
    """
    if side is None:
        return [np.full((rows, signals), np.nan, np.float32)] if signals else []
    if not signals or side.shape != (rows, signals):
        expected = f"expected ({rows}, {signals})" if signals else "it takes no side signals"
        raise InputError(f"{note}: side: {expected}, got {side.shape}")
    return [np.ascontiguousarray(side, np.float32)]


def _name_in_the_graph(names: set[str]) -> str:
    """Of a tensor that OpenVINO has several names for, one of them its output's."""
    return next((name for name in sorted(names) if name.endswith(ANSWERS)), min(names))


def _open(running: Any, backend: Backend) -> Any:
    if running is None:
        raise InputError(f"{backend.note}: it was closed; open it again")
    return running


def open_backend(package: ModelPackage, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Backend:
    """What computes a package's graph.

    backend: `auto`, the fastest of those that load (`choose.py`); or one of BACKENDS, `openvino:bf16`, `openvino:int8`,
        `onnxruntime:int8`. device: auto, cpu, cuda. threads: None: a thread a core.
    Raises: InputError where the named one does not load, or with auto none does.
    """
    place = best_device() if device == "auto" else device
    if place not in PROVIDERS:
        raise InputError(f"device: {device!r}; expected auto, cpu or cuda")
    if backend != "auto":
        return open_choice(package, Choice.parse(backend), place, threads)
    from affect.engine.runtime.backends.auto import Candidates

    of = Candidates(package.model, row_shape(package), place, threads, allowed(package))
    return of.open(lambda choice: open_choice(package, choice, place, threads))


def open_parts(
    package: ModelPackage, backend: str = "auto", device: str = "auto", threads: int | None = None
) -> tuple[Backend, Backend]:
    """Of a package of clips: what encodes frames (N, H, W, 3), and what says of features (N, T, D). float32."""
    folder, place = package.model.parent, best_device() if device == "auto" else device
    if not package.clip or not (folder / ENCODER).is_file() or not (folder / TEMPORAL).is_file():
        raise InputError(
            f"{package.manifest.name}: no {ENCODER} and {TEMPORAL} beside it; name the package folder of a clip model"
        )
    if backend != "auto":
        choice = Choice.parse(backend)
        encoder = open_graph(folder / ENCODER, choice, place, threads)
    else:
        from affect.engine.runtime.backends.auto import Candidates

        of = Candidates(folder / ENCODER, row_shape(package)[1:], place, threads)
        encoder = of.open(lambda choice: open_graph(folder / ENCODER, choice, place, threads))
        choice = Choice(encoder.name)
    if package.side and choice.backend == "tensorrt":
        choice = Choice("onnxruntime")  # which is given side signals
    return encoder, open_graph(folder / TEMPORAL, choice, place, threads)


def open_choice(package: ModelPackage, choice: Choice, device: str, threads: int | None = None) -> Backend:
    if choice.backend == "torch":
        from affect.engine.runtime.backends.torch import TorchBackend

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
    """Of any of our graphs. Raises InputError where it does not load."""
    if choice.backend == "onnxruntime":
        return OnnxRuntime(graph, device, threads)
    if choice.backend == "openvino":
        if device != "cpu":
            raise InputError(f"OpenVINO: device {device!r}; here it computes on cpu")
        return OpenVino(graph, choice.precision, threads)
    if choice.backend == "tensorrt":
        from affect.engine.runtime.backends.tensorrt import TensorRt

        return TensorRt(graph, choice.precision)
    raise InputError(f"backend: {choice} runs whole packages of a run, not a single graph")


def allowed(package: ModelPackage) -> tuple[Precision, ...]:
    """Precisions whose parity is in the manifest."""
    files = package.manifest.files or {}
    found: list[Precision] = ["float32"]
    if "bf16" in files.get(MODEL, {}).get("lower", {}):
        found.append("bf16")
    if INT8 in files:
        found.append("int8")
    return tuple(found)


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
