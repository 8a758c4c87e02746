"""What every inference backend has in common: the protocol, its name and precision, the second input, and being closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np

from affect.shards.errors import InputError, nearest

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "torch")

Precision = Literal["float32", "bf16", "int8"]
Running = TypeVar("Running")


class Backend(Protocol):
    """Runs one graph.

    name: one of BACKENDS. description: library, device and precision as they are, not as they were asked for.
    Threads may share a backend. It does not survive a fork: open it in the process that runs it.
    """

    name: str
    description: str

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Run the graph: (N, ...) uint8 images or float32 features -> {output name: (N, C) float32}.

        side: (N, S) side signals as measured, NaN where missing, of a graph that takes them; without it all are missing.
        """
        ...

    def close(self) -> None:
        """Free the memory; the backend cannot run any more."""
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
        if precision and (precision not in get_args(Precision) or (precision == "bf16" and backend != "openvino")):
            raise InputError(f"backend: {text!r}; expected openvino:bf16, openvino:int8, onnxruntime:int8 or tensorrt:int8")
        return cls(backend, precision or "float32")  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.backend if self.precision == "float32" else f"{self.backend}:{self.precision}"


def side_inputs(description: str, signals: int, rows: int, side: np.ndarray | None) -> list[np.ndarray]:
    """Return the inputs beside `rows` images of a graph with so many side signals: none, or (N, S) float32, NaN without `side`.

    description: of the backend. Raises: InputError where `side` is not (rows, signals).
    """
    if side is None:
        return [np.full((rows, signals), np.nan, np.float32)] if signals else []
    if not signals or side.shape != (rows, signals):
        expected = f"expected ({rows}, {signals})" if signals else "it takes no side signals"
        raise InputError(f"{description}: side: {expected}, got {side.shape}")
    return [np.ascontiguousarray(side, np.float32)]


def still_open(running: Running | None, description: str) -> Running:
    """Return what a backend runs; raises InputError where the backend was closed."""
    if running is None:
        raise InputError(f"{description}: it was closed; open it again")
    return running
