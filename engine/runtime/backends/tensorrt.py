"""A graph in TensorRT, on the first GPU."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.runtime.backends.backend import side_inputs, still_open
from affect.engine.runtime.backends.tensorrt_engine import Facts, Profile, engine_of, library, read, this_gpu
from affect.shards.errors import InputError


class TensorRt:
    """Runs the TensorRT engine of a graph: built where it is missing (seconds to minutes), else from beside the graph.

    Calls of more rows than the profile has are made in parts.
    Raises: InputError where there is no GPU, no TensorRT, or it cannot build or load the engine.
    """

    name = "tensorrt"

    def __init__(self, graph: Path, precision: str = "float32", profile: Profile | None = None) -> None:
        trt, gpu, self.profile = library(), this_gpu(), profile or Profile()
        path = engine_of(graph, gpu, self.profile, precision)
        data = read(path, Facts.of(graph, trt, gpu, self.profile, precision))
        self._runtime: Any = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine: Any = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise InputError(f"{path}: TensorRT cannot load it; delete it, it is built anew")
        self._context: Any = self._engine.create_execution_context()
        tensors = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in tensors if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.input, self.names = inputs[0], [name for name in tensors if name not in inputs]
        self._buffers = {name: self._allocated(trt, name) for name in tensors}
        self._stream = _done(_cuda().cudaStreamCreate())
        self._lock = threading.Lock()
        self.description = f"{trt.__name__} {trt.__version__} on {gpu.name}, {graph.name}, {precision}"

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        side_inputs(self.description, 0, len(images), side)  # a graph that takes them has no engine
        most = self.profile.most
        with self._lock:
            still_open(self._engine, self.description)
            parts = [self._call(np.ascontiguousarray(images[i : i + most])) for i in range(0, len(images), most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}

    def close(self) -> None:
        with self._lock:
            if self._engine is not None:
                for pointer in self._buffers.values():
                    _cuda().cudaFree(pointer)
                _cuda().cudaStreamDestroy(self._stream)
            self._context = self._engine = self._runtime = None
            self._buffers = {}

    def _allocated(self, trt: Any, name: str) -> int:
        """GPU memory for the most rows."""
        row = tuple(self._engine.get_tensor_shape(name))[1:]
        size = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))).itemsize
        pointer = int(_done(_cuda().cudaMalloc(self.profile.most * math.prod(row) * size)))
        self._context.set_tensor_address(name, pointer)
        return pointer

    def _call(self, images: np.ndarray) -> dict[str, np.ndarray]:
        cuda, stream = _cuda(), self._stream
        to, back = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._context.set_input_shape(self.input, images.shape)
        _done(cuda.cudaMemcpyAsync(self._buffers[self.input], images.ctypes.data, images.nbytes, to, stream))
        if not self._context.execute_async_v3(int(stream)):
            raise InputError(f"{self.description}: TensorRT failed on images of shape {images.shape}")
        values = {}
        for name in self.names:
            values[name] = value = np.empty(tuple(self._context.get_tensor_shape(name)), np.float32)
            _done(cuda.cudaMemcpyAsync(value.ctypes.data, self._buffers[name], value.nbytes, back, stream))
        _done(cuda.cudaStreamSynchronize(stream))
        return values


def _cuda() -> Any:
    from cuda.bindings import runtime

    return runtime


def _done(result: tuple[Any, ...]) -> Any:
    """Return what a call of the CUDA runtime gave besides its status. Raises InputError where it failed."""
    status, *rest = result
    if status.name != "cudaSuccess":
        raise InputError(f"TensorRT: CUDA says {status.name}")
    return rest[0] if rest else None
