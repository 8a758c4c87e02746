"""Everything that a training step changes: model, loss, optimiser, and where the run stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from affect.engine.config.run import RunConfig
from affect.engine.data.loader import Loader
from affect.engine.data.side_signals import side_scale
from affect.engine.losses.base import Teacher, TrainingRows
from affect.engine.losses.build import LossFunction
from affect.engine.models.build import build_model
from affect.engine.models.side_signals import set_scale
from affect.engine.runs.checkpoint import initialise
from affect.engine.runs.description import fingerprint
from affect.engine.system.device import choose_precision
from affect.engine.system.distributed import Ranks
from affect.engine.tasks.spec import TaskSpec
from affect.engine.training.meter import Meter
from affect.engine.training.optim import build_optimizer
from affect.shards.schema import Output


@dataclass
class TrainState:
    """Where the run stands. history: a line an epoch. best: the merit of the best epoch. meter: of the epoch in progress."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf
    meter: Meter = field(default_factory=Meter)


class Learner:
    """A model and what trains it, built for the rows of a loader; the random state decides the first weights.

    task: its name. forward: the model as a step calls it, distributed and compiled.
    lineage: the checkpoint that its weights came from, None: none.
    dtype, precision_reason: of autocast, None for float32, and why.
    """

    def __init__(
        self, run: RunConfig, task: TaskSpec, loader: Loader, ranks: Ranks, init_from: Path | None, teacher: Teacher | None
    ) -> None:
        self.run, self.loader, self.ranks, self.device, self.task = run, loader, ranks, ranks.device, task.name
        layout = loader.dataset.info.layout
        self.outputs = [layout.output(name) for name in task.outputs]
        self.model = build_model(run, task, layout).to(self.device)
        _start_scalars_at_means(self.model.head, self.outputs, loader)
        self.lineage = initialise(self.model, init_from, self.outputs) if init_from else None
        if loader.side is not None:  # after the weights of another run, whose clips had another mean
            _scale_side_signals(self.model, loader, run)
        self.model.normalise.channels_last = run.train.channels_last
        if run.train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        rows = TrainingRows(loader.dataset, loader.targets, loader.order.rows, self.device)
        self.loss = LossFunction(run, task, rows, self.model.head.width, teacher)
        self.optimizer = build_optimizer([self.model, self.loss], run.optim)
        self.dtype, self.precision_reason = choose_precision(run.train.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.parallel = ranks.parallel(self.model)
        mode = compile_mode(run, self.device)
        self.forward = torch.compile(self.parallel, mode=mode) if mode else self.parallel
        self.ema = ModelEmaV3(self.model, run.optim.ema, use_warmup=True, warmup_power=3 / 4) if run.optim.ema else None
        self.state = TrainState()

    @property
    def scored(self) -> nn.Module:
        """The model that is scored, saved as the best and exported: the averaged one where there is an average."""
        return self.ema.module if self.ema else self.model

    @property
    def origins(self) -> dict[str, str]:
        """Everything that the weights come from, by sha256."""
        lineage = {"init": self.lineage["sha256"]} if self.lineage else {}
        return fingerprint(self.run, self.loader.dataset) | self.loss.origins | lineage


def compile_mode(run: RunConfig, device: torch.device) -> str | None:
    """The mode of torch.compile, None for eager."""
    if run.train.compile == "auto":
        return "default" if device.type == "cuda" else None
    return None if run.train.compile == "off" else run.train.compile


def _start_scalars_at_means(head: Any, outputs: list[Output], loader: Loader) -> None:
    """Means of the training rows, 0 where none is labelled."""
    samples = torch.from_numpy(loader.samples)
    for output in outputs:
        if output.kind == "scalars":
            means = loader.targets[output.name][samples].nanmean(0)
            head.start_at(output.name, means.nan_to_num(0.0).to(loader.device))


def _scale_side_signals(model: nn.Module, loader: Loader, run: RunConfig) -> None:
    """Scale side signals by the mean and deviation of the training rows."""
    assert loader.side is not None
    values = loader.side[torch.from_numpy(loader.samples)].numpy()
    set_scale(model, *map(torch.from_numpy, side_scale(loader.dataset, run.data.side, values)))
