"""Measures what a lower precision costs: labels that agree with float32, and the selection metric, on the validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.engine.config.run import RunConfig
from affect.engine.data.build import eval_loader
from affect.engine.data.loader import Loader
from affect.engine.data.selection import open_dataset, train_selection, val_selection
from affect.engine.evaluation.predictions import pooled, predict_all
from affect.engine.export.parity import agreement
from affect.engine.export.quantize import CLIPS, SAMPLES
from affect.engine.metrics.output_metrics import all_figures
from affect.engine.package.graphs import raw_name
from affect.engine.runtime.backends.backend import Backend
from affect.engine.runtime.backends.openvino import OpenVino
from affect.engine.tasks import TASKS
from affect.engine.training.early_stopping import merit
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout

POINTS = 100.0


@dataclass(frozen=True)
class PrecisionCost:
    """Measures backends of a run's graph. float32: the one in float32, which the others are compared with."""

    run: RunConfig
    layout: TargetLayout
    float32: Backend

    def measure(self, backend: Backend) -> dict[str, Any]:
        """Return `parity` by output, and `metric`: its name, both values, and the drop in points.

        A point is a hundredth of a figure of which higher is better, and a percent of an error.
        """
        want, got = self._expected, self._predict(backend)
        parity = {output.name: agreement(want[output.name], got[output.name], output.kind) for output in self.layout.outputs}
        before, after = self._metric(want), self._metric(got)
        drop = POINTS * (merit(self.metric, before) - merit(self.metric, after))
        if merit(self.metric, 1.0) < 0:
            drop /= max(abs(before), 1e-12)
        metric = {"name": self.metric, "float32": before, "value": after, "drop_points": drop}
        return {"parity": parity, "metric": metric}

    def samples(self) -> list[np.ndarray]:
        """Return training samples in the view of evaluation, (1, ...) uint8 each, evenly spread."""
        rows = open_dataset(self.run.data.dataset).rows(train_selection(self.run.data))
        loader, samples = self._loader(rows, CLIPS if self.run.data.clip else SAMPLES), list[np.ndarray]()
        batches, count = loader.from_step(0), len(loader.order.rows)
        while len(samples) < count:
            samples += [image[None] for image in next(batches).inputs.numpy()]
        return samples[:count]

    @property
    def metric(self) -> str:
        return self.run.optim.select_by or TASKS[self.run.task].select_by

    @cached_property
    def _validation(self) -> Loader:
        return self._loader(open_dataset(self.run.data.dataset).rows(val_selection(self.run.data)), None)

    @cached_property
    def _expected(self) -> dict[str, np.ndarray]:
        return self._predict(self.float32)

    def _loader(self, rows: np.ndarray, most: int | None) -> Loader:
        names = tuple(output.name for output in self.layout.outputs)
        dataset = open_dataset(self.run.data.dataset)
        return eval_loader(
            dataset,
            rows,
            self.run.preprocess,
            names,
            torch.device("cpu"),
            clip=self.run.data.clip,
            most=most,
            kind=self.run.data.loader,
            workers=self.run.data.workers,
            side=self.run.data.side,
        )

    def _predict(self, backend: Backend) -> dict[str, np.ndarray]:
        def predict(*inputs: torch.Tensor) -> dict[str, np.ndarray]:
            values = backend.run(*(tensor.numpy() for tensor in inputs))
            return {output.name: values[raw_name(output)] for output in self.layout.outputs}

        return predict_all(predict, self._validation)

    def _metric(self, values: dict[str, np.ndarray]) -> float:
        windows = self._validation.windows
        rows = self._validation.order.rows
        if windows:
            rows, values = pooled(windows.sample, values)
        targets = {output.name: self._validation.targets[output.name].numpy()[rows] for output in self.layout.outputs}
        return float(all_figures(self.layout.outputs, values, targets)[self.metric])


def openvino_in_bf16(graph: Path) -> Backend | None:
    """Open a graph in OpenVINO in bf16; None where this machine has not both."""
    try:
        return OpenVino(graph, "bf16")
    except InputError:
        return None
