"""Terms that learn from a teacher's logits, and their settings. Axes: B batch, C classes, N samples of a dataset."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from affect.engine.config.loss_terms import TermConfig
from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.losses.base import LossTerm, ModelOutput, TeacherOutput, TrainingRows, loss_term
from affect.engine.tasks.spec import Term
from affect.kernels.dkd import dkd


class KdConfig(TermConfig):
    """Plain distillation, T^2 KL."""

    weight: float = Field(1.0, gt=0)
    temperature: float = Field(4.0, gt=0)

    @property
    def learns_from(self) -> Literal["logits"]:
        return "logits"


@loss_term("kd", config=KdConfig)
class Kd(LossTerm):
    """T^2 KL(p^T || p^S) at temperature T, over all samples, labelled or not. Source: Hinton et al., 2015."""

    op = "dkd"

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        self.config = run.loss.settings(term.name, KdConfig)

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        assert teacher is not None and teacher.logits is not None
        student = prediction.outputs[self.on]
        ignored = torch.zeros(len(student), dtype=torch.int64, device=student.device)  # KL does not read the label
        return dkd(
            student,
            teacher.logits,
            ignored,
            rows=teacher.rows,
            temperature=self.config.temperature,
            alpha=1.0,
            beta=None,
            ce=0.0,
            sample_weight=batch.weight,
            reduction="sum",
        )


class DkdConfig(TermConfig):
    """Decoupled distillation, T^2 (alpha TCKD + beta NCKD); the defaults are the paper's."""

    weight: float = Field(1.0, gt=0)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)
    temperature: float = Field(4.0, gt=0)
    warmup_epochs: int = Field(20, ge=0)

    def ramp_at(self, epoch: int) -> float:
        return min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

    @property
    def learns_from(self) -> Literal["logits"]:
        return "logits"

    def check_epochs(self, key: str, epochs: int) -> None:
        if self.warmup_epochs >= epochs:
            raise ValueError(
                f"{key}.warmup_epochs: {self.warmup_epochs} is not below optim.epochs ({epochs}); take fewer, e.g. {epochs // 12}"
            )


@loss_term("dkd", config=DkdConfig)
class DecoupledKd(LossTerm):
    """T^2 (alpha TCKD + beta NCKD) over labelled samples, rising from 0 over `warmup_epochs`. Source: Zhao et al., CVPR 2022."""

    op = "dkd"

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        self.config = run.loss.settings(term.name, DkdConfig)
        self.register_buffer("ramp", torch.ones(()))
        self.ramp: Tensor

    def at_epoch(self, epoch: int) -> dict[str, float]:
        ramp = self.config.ramp_at(epoch)
        self.ramp.fill_(ramp)
        return {"dkd_ramp": ramp}

    def count(self, batch: Batch) -> Tensor:
        return self.labelled_weight(batch).sum()

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        assert teacher is not None and teacher.logits is not None
        return dkd(
            prediction.outputs[self.on],
            teacher.logits,
            batch.targets[self.on],
            rows=teacher.rows,
            temperature=self.config.temperature,
            alpha=self.config.alpha,
            beta=self.config.beta,
            ce=0.0,
            weight=self.ramp,
            sample_weight=self.labelled_weight(batch),
            reduction="sum",
        )


class KdMseConfig(TermConfig):
    """Mean squared distance of logits over T."""

    weight: float = Field(0.30, gt=0)
    temperature: float = Field(1.0, gt=0)

    @property
    def learns_from(self) -> Literal["logits"]:
        return "logits"


@loss_term("kd_mse", config=KdMseConfig)
class KdMse(LossTerm):
    """The mean over classes of (z^S / T - z^T / T)^2, over all samples, labelled or not."""

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        self.temperature = run.loss.settings(term.name, KdMseConfig).temperature

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        assert teacher is not None
        gap = (prediction.outputs[self.on].float() - teacher.gathered().float()) / self.temperature
        return (batch.weight * gap.square().mean(1)).sum()
