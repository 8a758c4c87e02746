"""Proto-KD: distillation over frozen prototypes of features. Axes: B batch, C classes, D features, K prototypes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from affect.engine.config.loss_terms import TermConfig
from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.losses.base import LossTerm, ModelOutput, TeacherOutput, TrainingRows, loss_term
from affect.engine.losses.circumplex import grid_targets, read_anchors
from affect.engine.losses.prototype_file import read_prototypes
from affect.engine.system.log import say
from affect.engine.tasks.spec import Term
from affect.kernels.proto_kd import one_hot_floor, proto_kd
from affect.shards.errors import InputError


class ProtoKdConfig(TermConfig):
    """KL over frozen prototypes, at temperature tau."""

    prototypes: str  # of `affect prototypes`
    weight: float = Field(0.12, gt=0)
    mode: Literal["cos"] = "cos"
    tau: float = Field(0.90, gt=0)
    target: Literal["grid", "teacher"] = "grid"
    anchors: str = "default"  # of target grid: where each class stands in valence and arousal; or a file
    sigma: float = Field(0.4, gt=0)  # of target grid: width, in units of valence
    temperature: float = Field(5.0, gt=0)  # of target grid: softens it
    teacher_tau: float = Field(0.90, gt=0)  # of target teacher

    @property
    def learns_from(self) -> Literal["", "features"]:
        return "features" if self.target == "teacher" else ""

    @property
    def files(self) -> dict[str, str]:
        return {"prototypes": self.prototypes}


@loss_term("proto_kd", config=ProtoKdConfig)
class ProtoKd(LossTerm):
    """KL between two distributions over frozen prototypes: of the student's features, and a target.

    target grid: each class has a place in the prototypes' valence/arousal grid; only labelled samples count.
    target teacher: of the teacher's features, over all samples.
    Features of another width than the prototypes go through a learned linear projection, which is not exported.
    """

    op = "proto_kd"

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        self.config = config = run.loss.settings(term.name, ProtoKdConfig)
        stored = read_prototypes(Path(config.prototypes))
        self.origins = {"prototypes": stored.sha256}
        self.register_buffer("prototypes", torch.from_numpy(stored.vectors).float())
        self.prototypes: Tensor
        wide = self.prototypes.shape[1]
        self.project = nn.Linear(width, wide, bias=False) if width != wide else nn.Identity()
        names = rows.names(term.on)
        self.register_buffer("grid", None)
        self.grid: Tensor | None
        if config.target == "grid":
            if stored.centers is None:
                raise InputError(
                    f"{config.prototypes}: has no centers, which target grid needs; take loss.proto_kd.target=teacher"
                )
            self.grid = torch.from_numpy(
                grid_targets(names, stored.centers, read_anchors(config.anchors), config.sigma, config.temperature)
            )
        say(
            f"proto_kd: {len(self.prototypes)} prototypes of {wide} features; at tau {config.tau} the divergence from a target "
            f"on one of them cannot fall below {one_hot_floor(len(self.prototypes), config.tau):.3f}"
            + (f"; the model's {width} features are projected" if width != wide else "")
        )

    def count(self, batch: Batch) -> Tensor:
        return self._weight(batch).sum()

    def _weight(self, batch: Batch) -> Tensor:
        return batch.weight if self.grid is None else self.labelled_weight(batch)

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        features = self.project(prediction.features.float())
        if self.grid is not None:
            target, features_of_teacher = batch.targets[self.on] @ self.grid, None
        else:
            assert teacher is not None
            target, features_of_teacher = None, teacher.features
        return proto_kd(
            features,
            self.prototypes,
            target,
            teacher_features=features_of_teacher,
            temperature=self.config.tau,
            teacher_temperature=self.config.teacher_tau,
            sample_weight=self._weight(batch),
            reduction="sum",
        )
