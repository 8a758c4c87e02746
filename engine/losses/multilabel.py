"""Binary cross-entropy of action units, each present or absent by itself. Axes: B batch, A action units."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.losses.base import LossTerm, ModelOutput, TeacherOutput, TrainingRows, loss_term
from affect.engine.system.log import say
from affect.engine.tasks.spec import Term


@loss_term("au_bce")
class UnitsBce(LossTerm):
    """Binary cross-entropy, the mean over a row's labelled units, summed over rows and divided by all rows, labelled or not.

    That is the mean over labelled rows times their share, the form of the reference recipe
    (docs/recipes/action_units.md): a batch of few labels weighs little. The gradient
    of a row without labels is exactly zero.
    """

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        self.config = run.loss.au
        targets = rows.target(term.on)
        names = rows.names(term.on)
        _warn_of_unlearnable(names, targets)
        balanced = self.config.pos_weight == "balanced"
        self.register_buffer("pos_weight", positive_weights(targets, self.config.pos_weight_max) if balanced else None)
        self.register_buffer("ramp", torch.ones(()))
        self.pos_weight: Tensor | None
        self.ramp: Tensor

    def at_epoch(self, epoch: int) -> dict[str, float]:
        ramp = self.config.ramp_at(epoch)
        self.ramp.fill_(ramp)
        return {f"{self.on}_ramp": ramp}

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        target, mask = batch.targets[self.on], batch.mask[self.on]
        target = (1 - self.config.smoothing) * target + self.config.smoothing / 2
        logits = prediction.outputs[self.on].float()
        each = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.pos_weight, reduction="none")  # (B, A)
        rows = (each * mask).sum(1) / mask.sum(1).clamp_min(1)
        return self.ramp * (rows * batch.weight).sum()


def positive_weights(targets: np.ndarray, most: float) -> Tensor:
    """Return (A,) float32 negatives / positives of each unit, from 1 / most to `most`; 1 where it is never or always present.

    targets: (N, A), NaN where not labelled.
    """
    positives, negatives = np.nansum(targets, 0), np.nansum(1 - targets, 0)
    ratio = np.where((positives > 0) & (negatives > 0), negatives / np.maximum(positives, 1e-9), 1.0)
    return torch.from_numpy(ratio.clip(1 / most, most)).float()


def _warn_of_unlearnable(names: tuple[str, ...], targets: np.ndarray) -> None:
    never = [name for name, count in zip(names, np.nansum(targets, 0), strict=True) if not count]
    labelled = int((~np.isnan(targets)).any(1).sum())
    if labelled < len(targets):
        say(f"au: {labelled:,} of {len(targets):,} training rows are labelled; the others train the emotion alone")
    if never:
        say(f"au: no training row is positive for {', '.join(never)}: these cannot be learned, and no mean counts them")
