"""D-Geo: geometry of the features of classes. Axes: B batch, C classes, D features."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from affect.engine.config.loss_terms import TermConfig
from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.losses.base import LossTerm, ModelOutput, TeacherOutput, TrainingRows, loss_term
from affect.engine.tasks.spec import Term
from affect.shards.class_maps import canonical
from affect.shards.errors import InputError, nearest


class DGeoConfig(TermConfig):
    """Geometry of the features: positive classes tight, all classes apart."""

    weight: float = Field(0.012, gt=0)
    positive_classes: list[str] = Field(default_factory=lambda: ["happiness", "surprise"])
    hard_gate: float = Field(0.2, ge=0)
    margin: float = Field(0.5, ge=0)
    intra_class: bool = True
    momentum: float = Field(0.9, ge=0, lt=1)  # of the classes' mean features
    schedule: Literal["late_cosine", "constant"] = "late_cosine"
    start_epoch: int = Field(20, ge=0)  # of late_cosine: 0 before
    end_epoch: int = Field(60, ge=0)  # of late_cosine: whole from here on

    def ramp_at(self, epoch: int) -> float:
        if self.schedule == "constant":
            return 1.0
        share = min(max((epoch - self.start_epoch) / max(self.end_epoch - self.start_epoch, 1), 0.0), 1.0)
        return 0.5 * (1 - math.cos(math.pi * share))

    def check_epochs(self, key: str, epochs: int) -> None:
        if self.schedule == "late_cosine" and self.end_epoch >= epochs:
            raise ValueError(
                f"{key}: its weight is whole at epoch {self.end_epoch}, but the last of optim.epochs={epochs} is {epochs - 1}. "
                f"The recipe scaled to {epochs}: --set {key}.start_epoch={epochs // 5} --set {key}.end_epoch={epochs * 3 // 5}"
            )


@loss_term("d_geo", config=DGeoConfig)
class DGeo(LossTerm):
    """Pulls features of positive classes together and all classes apart, by the angles between them, over a whole batch.

        sum_(c positive) mean_(i: y = c) relu(1 - cos(f_i, mu_c) - hard_gate)
          + sum_(c < c') relu(cos(mu_c, mu_c') - (1 - margin)),   classes absent from the batch skipped

    mu_c is a moving average of unit features. Its past is constant; the batch's own share of it is not, or the second sum
    would have no gradient. Several processes share one average. The mean over micro-batches and processes is taken.
    Source: this project, after the public description of NeuroGaze.
    """

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        self.config, self.pieces = run.loss.settings(term.name, DGeoConfig), run.optim.accumulate
        names = rows.names(term.on)
        self.register_buffer("positive", _named(names, self.config.positive_classes))
        self.register_buffer("centre", torch.zeros(len(names), width))
        self.register_buffer("seen", torch.zeros(len(names), dtype=torch.bool))
        self.register_buffer("ramp", torch.ones(()))
        self.positive: Tensor
        self.centre: Tensor
        self.seen: Tensor
        self.ramp: Tensor

    def at_epoch(self, epoch: int) -> dict[str, float]:
        ramp = self.config.ramp_at(epoch)
        self.ramp.fill_(ramp)
        return {"d_geo_ramp": ramp}

    def count(self, batch: Batch) -> Tensor:
        return torch.full((), float(self.pieces), device=batch.weight.device)

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        unit = F.normalize(prediction.features.float())
        target = batch.targets[self.on]
        member = F.one_hot(target.argmax(1), target.shape[1]) * (self.labelled_weight(batch) > 0)[:, None]
        member = member.to(unit.dtype)  # (B, C)
        count = member.sum(0)  # (C,)
        present = count > 0
        mean = (member.t() @ unit) / count.clamp_min(1)[:, None]
        momentum = torch.where(self.seen, self.config.momentum, 0.0)[:, None]
        mu = torch.where(present[:, None], momentum * self.centre + (1 - momentum) * mean, self.centre)
        if self.training:
            self._remember(member, unit)
        total = (self._apart(mu) * present[:, None] * present[None, :]).triu(1).sum()
        if self.config.intra_class:
            far = (1 - unit @ F.normalize(mu.detach()).t() - self.config.hard_gate).relu()  # (B, C)
            total = total + (((far * member).sum(0) / count.clamp_min(1)) * self.positive).sum()
        return self.ramp * total

    def _apart(self, mu: Tensor) -> Tensor:
        unit = F.normalize(mu)
        return (unit @ unit.t() - (1 - self.config.margin)).relu()

    @torch.no_grad()
    def _remember(self, member: Tensor, unit: Tensor) -> None:
        sums, count = member.t() @ unit, member.sum(0)
        if dist.is_initialized():
            dist.all_reduce(sums)
            dist.all_reduce(count)
        present = count > 0
        momentum = torch.where(self.seen, self.config.momentum, 0.0)[:, None]
        moved = momentum * self.centre + (1 - momentum) * sums / count.clamp_min(1)[:, None]
        self.centre.copy_(torch.where(present[:, None], moved, self.centre))
        self.seen.logical_or_(present)


def _named(names: tuple[str, ...], wanted: list[str]) -> Tensor:
    """(C,) float32, 1 at the classes of these names, synonyms included."""
    known = [canonical(name) for name in names]
    for name in wanted:
        if canonical(name) not in known:
            raise InputError(
                f"loss.d_geo.positive_classes: no class {name!r}{nearest(name, names)}; there are: {', '.join(names)}"
            )
    return torch.tensor([float(name in {canonical(each) for each in wanted}) for name in known])
