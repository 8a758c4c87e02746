"""Terms that look at features: proto-KD and D-Geo. Axes: B batch, C classes, D features, K prototypes."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.distill.prototypes import grid_targets, read_anchors, read_prototypes
from affect.engine.losses.base import LossTerm, ModelOutput, TeacherOutput, TrainingRows
from affect.engine.system.log import say
from affect.engine.tasks.spec import Term
from affect.kernels.proto_kd import one_hot_floor, proto_kd
from affect.shards.class_maps import canonical
from affect.shards.errors import InputError, nearest


class ProtoKd(LossTerm):
    """KL between two distributions over frozen prototypes: of the student's features, and a target.

    target grid: each class has a place in the prototypes' valence/arousal grid; only labelled samples count.
    target teacher: of the teacher's features, over all samples.
    Features of another width than the prototypes go through a learned linear projection, which is not exported.
    """

    op = "proto_kd"

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        assert run.loss.proto_kd
        self.config = config = run.loss.proto_kd
        found = read_prototypes(Path(config.prototypes))
        self.made_from = {"prototypes": found.sha256}
        self.register_buffer("prototypes", torch.from_numpy(found.vectors).float())
        self.prototypes: Tensor
        wide = self.prototypes.shape[1]
        self.project = nn.Linear(width, wide, bias=False) if width != wide else nn.Identity()
        names = rows.names(term.on)
        self.register_buffer("grid", None)
        self.grid: Tensor | None
        if config.target == "grid":
            if found.centers is None:
                raise InputError(
                    f"{config.prototypes}: has no centers, which target grid needs; take loss.proto_kd.target=teacher"
                )
            self.grid = torch.from_numpy(
                grid_targets(names, found.centers, read_anchors(config.anchors), config.sigma, config.temperature)
            )
        say(
            f"proto_kd: {len(self.prototypes)} prototypes of {wide} features; at tau {config.tau} the divergence from a target "
            f"on one of them cannot fall below {one_hot_floor(len(self.prototypes), config.tau):.3f}"
            + (f"; the model's {width} features are projected" if width != wide else "")
        )

    def count(self, batch: Batch) -> Tensor:
        return self._weight(batch).sum()

    def _weight(self, batch: Batch) -> Tensor:
        return batch.weight if self.grid is None else self.labelled(batch)

    def forward(self, said: ModelOutput, batch: Batch, taught: TeacherOutput | None) -> Tensor:
        features = self.project(said.features.float())
        if self.grid is not None:
            target, theirs = batch.targets[self.on] @ self.grid, None
        else:
            assert taught is not None
            target, theirs = None, taught.features
        return proto_kd(
            features, self.prototypes, target, teacher_features=theirs, temperature=self.config.tau,
            teacher_temperature=self.config.teacher_tau, sample_weight=self._weight(batch), reduction="sum",
        )  # fmt: skip


class DGeo(LossTerm):
    """Positive classes tight, all classes apart, by the angles between features; of a batch as a whole.

        sum_(c positive) mean_(i: y = c) relu(1 - cos(f_i, mu_c) - hard_gate)
          + sum_(c < c') relu(cos(mu_c, mu_c') - (1 - margin)),   classes absent from the batch skipped

    mu_c is a moving average of unit features. Its past is constant; the batch's own share of it is not, or the second sum
    would have no gradient. Several processes share one average. The mean over micro-batches and processes is taken.
    Source: own, after the public description of NeuroGaze.
    """

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        assert run.loss.d_geo
        self.config, self.pieces = run.loss.d_geo, run.optim.accumulate
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

    def forward(self, said: ModelOutput, batch: Batch, taught: TeacherOutput | None) -> Tensor:
        unit = F.normalize(said.features.float())
        target = batch.targets[self.on]
        member = F.one_hot(target.argmax(1), target.shape[1]) * (self.labelled(batch) > 0)[:, None]
        member = member.to(unit.dtype)  # (B, C)
        count = member.sum(0)  # (C,)
        present = count > 0
        mean = (member.t() @ unit) / count.clamp_min(1)[:, None]
        keep = torch.where(self.seen, self.config.momentum, 0.0)[:, None]
        mu = torch.where(present[:, None], keep * self.centre + (1 - keep) * mean, self.centre)
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
        keep = torch.where(self.seen, self.config.momentum, 0.0)[:, None]
        moved = keep * self.centre + (1 - keep) * sums / count.clamp_min(1)[:, None]
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
