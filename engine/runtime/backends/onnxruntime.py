"""A graph in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.runtime.backends.backend import side_inputs, still_open
from affect.engine.system.onnxruntime import session as open_session
from affect.shards.errors import InputError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """Runs a graph in ONNX Runtime. threads: of one call; None or 0: a thread a core."""

    name = "onnxruntime"

    def __init__(self, graph: Path, device: str = "cpu", threads: int | None = None) -> None:
        if device not in PROVIDERS:
            raise InputError(f"device: {device!r}; expected cpu or cuda")
        self.session: Any = open_session(graph, [PROVIDERS[device]], threads or 0)
        self.names = [output.name for output in self.session.get_outputs()]
        inputs = self.session.get_inputs()
        self.inputs, self.signals = [one.name for one in inputs], inputs[1].shape[1] if len(inputs) > 1 else 0
        self.description = f"ONNX Runtime on {device}, {graph.name}"

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        inputs = [images, *side_inputs(self.description, self.signals, len(images), side)]
        session = still_open(self.session, self.description)
        values: list[Any] = session.run(self.names, dict(zip(self.inputs, inputs, strict=True)))
        return dict(zip(self.names, values, strict=True))

    def close(self) -> None:
        self.session = None
