"""The score of an epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from affect.engine.config.run import RunConfig
from affect.engine.data.build import eval_loader
from affect.engine.data.loader import Loader
from affect.engine.data.selection import train_rows, val_selection
from affect.engine.evaluation.predictions import check_labelled, pooled, predict_all
from affect.engine.metrics.output_metrics import all_figures, labelled
from affect.engine.system.device import autocast, choose_precision
from affect.engine.system.distributed import Ranks
from affect.engine.system.log import silent
from affect.engine.tasks.spec import TaskSpec
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, nearest

TRAIN = "train_"  # before the figures of training rows


class Scorer:
    """model -> the figures of `output_metrics.py` on the validation rows; where the task watches the gap, on training rows, too.

    Of training there are as many rows as of validation, evenly spread, in validation's view; gap is train minus validation
    accuracy. Several processes take a share of the rows each, and all get the figures of the whole.
    Raises: InputError where no row is labelled, or there is no figure to select by.
    """

    def __init__(self, run: RunConfig, task: TaskSpec, dataset: Dataset) -> None:
        self.run, self.task, self.dataset = run, task, dataset
        self.outputs = [dataset.info.layout.output(name) for name in task.outputs]
        self.targets = {name: dataset.targets(name) for name in task.outputs}
        self.rows = {"": dataset.rows(val_selection(run.data))}
        first = self.outputs[0]
        check_labelled(dataset, first, self.targets[first.name][self.rows[""]], f"of {run.data.val_split!r}")
        self._check_metric()
        if task.watch_gap:
            rows = train_rows(run.data, dataset, silent)
            rows = rows[labelled(first, self.targets[first.name][rows])]
            self.rows[TRAIN] = rows[np.linspace(0, len(rows) - 1, min(len(rows), len(self.rows[""]))).astype(np.int64)]
        self.loaders: dict[str, Loader] = {}

    def __call__(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        figures = self._figures(model, ranks, "")
        if self.task.watch_gap:
            figures |= {f"{TRAIN}{name}": value for name, value in self._figures(model, ranks, TRAIN).items()}
            if "accuracy" in figures:
                figures["gap"] = figures[f"{TRAIN}accuracy"] - figures["accuracy"]
        return figures

    def _figures(self, model: nn.Module, ranks: Ranks, which: str) -> dict[str, float]:
        dtype, _ = choose_precision(self.run.train.precision, ranks.device)
        model.eval()

        @torch.inference_mode()
        def predict(*args: torch.Tensor) -> dict[str, np.ndarray]:
            with autocast(dtype, ranks.device):
                _, outputs = model(*args)
            return {name: values.float().cpu().numpy() for name, values in outputs.items()}

        loader = self._loader(which, ranks)
        parts = ranks.gather(predict_all(predict, loader))
        rows, windows, values = self.rows[which], loader.planner.windows, {}
        for output in self.outputs:
            values[output.name] = np.empty((len(windows.sample) if windows else len(rows), len(output.names)), np.float32)
            for rank, part in enumerate(parts):
                values[output.name][rank :: ranks.world] = part[output.name]
        if windows:
            rows, values = pooled(windows.sample, values)
        return all_figures(self.outputs, values, {name: target[rows] for name, target in self.targets.items()})

    def _loader(self, which: str, ranks: Ranks) -> Loader:
        if which not in self.loaders:
            data, rows = self.run.data, self.rows[which]
            self.loaders[which] = eval_loader(
                self.dataset,
                rows,
                self.run.preprocess,
                self.task.outputs,
                ranks.device,
                clip=data.clip,
                batch=None if data.clip else data.batch_size,
                share=(ranks.rank, ranks.world),
                kind=data.loader,
                workers=data.workers,
                side=data.side,
            )
        return self.loaders[which]

    def _check_metric(self) -> None:
        """Check the metric's name against the figures of rows of zeros."""
        rows, metric = self.rows[""], self.task.select_by
        zeros = {output.name: np.zeros((len(rows), len(output.names)), np.float32) for output in self.outputs}
        known = all_figures(self.outputs, zeros, {name: target[rows] for name, target in self.targets.items()})
        if metric not in known:
            raise InputError(
                f"optim.select_by: there is no figure {metric!r}{nearest(metric, known)}; there are: {', '.join(known)}"
            )
