"""The `optim` section: optimiser, schedule, and which epoch's model is the result."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from affect.engine.config.section import Section


class EarlyStopping(Section):
    """Ends training when the metric has not risen by more than `min_delta` for `patience` epochs, not before `min_epochs` epochs.

    Only epochs whose model could be the result count: in an ArcFace run those with the cosine head.
    """

    patience: int = Field(10, gt=0)
    min_delta: float = Field(0.0, ge=0)
    min_epochs: int = Field(5, ge=0)


class PlateauConfig(Section):
    """The learning rate falls by `factor` whenever the selecting figure has not improved for more than `patience` epochs."""

    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(7, ge=0)
    min_delta: float = Field(0.0, ge=0)


class OptimConfig(Section):
    """The learning rate rises over `warmup_epochs` to `lr` and falls as a cosine or on plateaus, never below `min_lr`."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd
    plateau: PlateauConfig | None = None  # null: a cosine
    epochs: int = Field(gt=0)
    steps: int | None = Field(None, gt=0)  # updates after which the run ends, for a trial; the schedule stays that of `epochs`
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_epochs: float = Field(2.0, ge=0)
    min_lr: float = Field(1e-5, ge=0)
    clip_norm: float | None = Field(1.0, gt=0)  # L2 over all parameters
    accumulate: int = Field(1, gt=0)  # micro-batches per update; the gradient is that of the whole batch
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the weights' moving average, which is then scored, saved and exported; 0: off
    select_by: str = ""  # the figure by which the best epoch is chosen; empty: the task's
    keep: Literal["best", "last"] = "best"  # which epoch's weights are the result; last: scored rows choose nothing
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def last_is_not_stopped(self) -> Self:
        if self.keep == "last" and self.early_stopping:
            raise ValueError("keep: last, but early_stopping chooses the epoch by the rows that are scored; take null for one")
        return self

    @model_validator(mode="after")
    def warmup_fits(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} is not below epochs ({self.epochs}); take fewer, e.g. 0.5")
        return self
