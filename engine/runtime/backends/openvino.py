"""A graph in OpenVINO, on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.runtime.backends.backend import Precision, side_inputs, still_open
from affect.engine.system import openvino as ov
from affect.shards.errors import InputError

HINTS: dict[Precision, str] = {"float32": "f32", "bf16": "bf16", "int8": "f32"}  # for what is not quantized
OUTPUT_NAMES = (".logits", ".probs", ".values", "features")  # how the names of our graphs' outputs end


class OpenVino:
    """Runs a graph in OpenVINO on the CPU. Raises InputError for bf16 on a CPU that does not compute in it."""

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
        actual = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if actual != HINTS[precision]:
            raise InputError(f"{graph}: asked OpenVINO for {HINTS[precision]}, it gives {actual}; take onnxruntime")
        self.names = [_name_in_the_graph(output.get_names()) for output in compiled.outputs]
        self.signals = compiled.inputs[1].partial_shape[1].get_length() if len(compiled.inputs) > 1 else 0
        self.request: Any = compiled.create_infer_request()
        self.description = f"OpenVINO on cpu, {graph.name}, {precision}"
        self._lock = threading.Lock()  # a request is of one thread at a time

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        inputs = [np.ascontiguousarray(images), *side_inputs(self.description, self.signals, len(images), side)]
        with self._lock:
            request = still_open(self.request, self.description)
            request.infer(inputs, share_inputs=True)
            return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self.names)}

    def close(self) -> None:
        with self._lock:
            self.request = None


def _name_in_the_graph(names: set[str]) -> str:
    """Return the output's name among the several that OpenVINO has for a tensor."""
    return next((name for name in sorted(names) if name.endswith(OUTPUT_NAMES)), min(names))
