"""A model to evaluate: a run, one of its checkpoints, a package or one of our .onnx files, as a function of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affect.engine.calibration.calibration import read_calibration
from affect.engine.config.data import ClipConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.package.graphs import MODEL, raw_name
from affect.engine.package.model_package import ModelPackage
from affect.engine.runs.files import BEST, CONFIG
from affect.engine.runs.trained import trained_model
from affect.engine.runtime.backends.onnxruntime import OnnxRuntime
from affect.shards.errors import InputError
from affect.shards.schema import Output, TargetLayout

Predict = Callable[..., dict[str, np.ndarray]]  # `Batch.args` -> output -> (B, C) logits
BEST_OF_A_RUN = (BEST, "best.onnx", MODEL)


@dataclass(frozen=True)
class EvaluatedModel:
    """predict: in float32, calibrated. run: the folder of the run whose best model it is, where that is known.

    clip: which frames of clips it sees; None: it sees pictures. side: columns of a dataset's index that it takes beside clips.
    """

    predict: Predict
    preprocess: Preprocess
    layout: TargetLayout
    calibration: dict[str, Any]
    run: Path | None
    clip: ClipConfig | None = None
    side: tuple[str, ...] = ()

    @property
    def output(self) -> Output:
        """The first output of classes. Raises InputError where there is none."""
        first = self.layout.first_classes
        if first is None:
            has = ", ".join(f"{output.name} ({output.kind})" for output in self.layout.outputs)
            raise InputError(f"the model has no output of classes, only {has}; evaluate it on a packed dataset: --data")
        return first


def open_model(model: Path) -> EvaluatedModel:
    """Raises InputError where `model` is none of what can be evaluated."""
    return _of_run(model) if (model / CONFIG).is_file() or model.suffix == ".pt" else _of_package(model)


def in_torch(model: nn.Module) -> Predict:
    """Predict in float32, on the device where the model is."""

    @torch.inference_mode()
    def predict(*args: torch.Tensor) -> dict[str, np.ndarray]:
        return {name: values.float().cpu().numpy() for name, values in model(*args)[1].items()}

    return predict


def _of_run(path: Path) -> EvaluatedModel:
    run, model, layout = trained_model(path)
    predict, first = in_torch(model), layout.first_classes
    folder = path.parent if path.suffix == ".pt" else path
    calibration = read_calibration(folder)

    def calibrated(*args: torch.Tensor) -> dict[str, np.ndarray]:
        logits = predict(*args)
        return logits | ({first.name: calibration.apply(logits[first.name])} if first else {})

    is_best = path == folder or path.name in BEST_OF_A_RUN
    return EvaluatedModel(
        calibrated,
        run.preprocess,
        layout,
        calibration.to_json(),
        folder if is_best else None,
        run.data.clip,
        tuple(run.data.side),
    )


def _of_package(path: Path) -> EvaluatedModel:
    package = ModelPackage.open(path)
    backend = OnnxRuntime(package.model)

    def predict(*args: torch.Tensor) -> dict[str, np.ndarray]:
        values = backend.run(*(values.numpy() for values in args))
        return {output.name: values[raw_name(output)] for output in package.layout.outputs}

    above = package.model.resolve().parents[:2] if package.model.name in BEST_OF_A_RUN else ()
    run = next((folder for folder in above if (folder / CONFIG).is_file()), None)
    side = tuple(signal["column"] for signal in package.side)
    return EvaluatedModel(predict, package.preprocess, package.layout, package.manifest.calibration, run, package.clip, side)
