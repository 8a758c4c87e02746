"""The model of a run, compiled by torch: only when named, since compiling takes tens of seconds."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from affect.engine.calibration.calibration import read_calibration
from affect.engine.models.deployed import Deployed
from affect.engine.package.graphs import output_names
from affect.engine.package.model_package import ModelPackage
from affect.engine.runs.files import CONFIG
from affect.engine.runs.trained import trained_model
from affect.engine.runtime.backends.backend import side_inputs, still_open
from affect.engine.system.log import say
from affect.shards.errors import InputError


class TorchBackend:
    """Runs the model of the run that a package lies in, compiled, on a GPU as CUDA graphs.

    Each number of rows is compiled when it first comes.
    """

    name = "torch"

    def __init__(self, package: ModelPackage, device: str = "cpu", threads: int | None = None, *, compile: bool = True) -> None:
        folder = package.model.resolve().parent.parent
        if not (folder / CONFIG).is_file():
            raise InputError(f"{package.model}: not in the folder of a run, whose model torch would run; take onnxruntime")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("torch: device cuda, but torch sees no GPU; take device='cpu'")
        if threads:
            torch.set_num_threads(threads)
        run, model, layout = trained_model(folder)
        self.signals = len(run.data.side)
        self.device, self.names = torch.device(device), output_names(layout)
        deployed = Deployed(model, layout, read_calibration(folder).temperature).eval().to(self.device)
        mode = "reduce-overhead" if device == "cuda" else "default"  # CUDA graphs
        self._model: Any = torch.compile(deployed.to(memory_format=torch.channels_last), mode=mode) if compile else deployed
        self._lock = threading.Lock()  # a CUDA graph has one memory for its outputs
        self.description = f"torch {torch.__version__} on {device}, {'compiled' if compile else 'eager'}"
        if compile:
            say(f"backend: {self.description}: the first call takes tens of seconds")

    def run(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        inputs = [np.ascontiguousarray(images), *side_inputs(self.description, self.signals, len(images), side)]
        with self._lock, torch.inference_mode():
            values = still_open(self._model, self.description)(*(torch.from_numpy(one).to(self.device) for one in inputs))
            return {name: value.float().cpu().numpy().copy() for name, value in zip(self.names, values, strict=True)}

    def close(self) -> None:
        with self._lock:
            self._model = None
