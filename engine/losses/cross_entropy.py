"""Cross-entropy of labels or distributions, with the ArcFace margin on cosine logits. Axes: B batch, C classes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.data.selection import largest_share
from affect.engine.losses.base import LossTerm, ModelOutput, TeacherOutput, TrainingRows, loss_term
from affect.engine.system.log import say
from affect.engine.tasks.spec import Term
from affect.kernels.arcface_ce import arcface_ce


def row_counts(target: Tensor, class_weight: Tensor | None, hard: bool) -> Tensor:
    """Return (B,) what each row counts in the mean, as in torch: its class's weight under hard labels, 1 under distributions."""
    if class_weight is None or not hard:
        return target.new_ones(len(target))
    return class_weight[target.argmax(1)]


def focal(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, class_weight: Tensor | None, smoothing: float) -> Tensor:
    """Return the sum over rows of -v_i sum_j w_j q_j (1 - p_j)^gamma log p_j, q the smoothed target; gamma 0: cross-entropy.

    logits, target: (B, C). weight: (B,) v. class_weight: (C,) w.
    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 5; for distributions share by share.
    """
    log_p = logits.float().log_softmax(1)
    q = (1 - smoothing) * target + smoothing / target.shape[1]
    if class_weight is not None:
        q = q * class_weight
    miss = -torch.expm1(log_p)  # 1 - p without cancellation; floored: the slope of x^gamma at 0 is infinite for gamma < 1
    return -(weight[:, None] * q * miss.clamp_min(1e-7) ** gamma * log_p).sum()


def neighbourhood(classes: int, sigma: float) -> Tensor:
    """Return (C, C): row j is the distribution exp(-(j - k)^2 / 2 sigma^2) over levels k that the label j becomes, of sum 1."""
    step = torch.arange(classes, dtype=torch.float64)
    return torch.softmax(-((step[:, None] - step) ** 2) / (2 * sigma * sigma), 1).float()


def balanced_class_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Return (C,) weights (1 - beta) / (1 - beta^n), scaled to a mean of 1 over the classes that occur; 0 for one that does not.

    counts: (C,) samples of each class. Source: Cui et al., Class-Balanced Loss, CVPR 2019.
    """
    counts = np.asarray(counts, np.float64)
    effective = -np.expm1(counts * math.log(beta)) if beta > 0 else (counts > 0).astype(float)
    weights = np.where(counts > 0, (1 - beta) / np.maximum(effective, 1e-300), 0.0)
    return weights / weights[counts > 0].mean()


def _class_weights(target: np.ndarray, labels: np.ndarray, run: RunConfig, hard: bool) -> Tensor:
    """Return (C,) weights of the classes of (N, C) training targets, whose top classes are `labels`, -1 where there is none."""
    counts = np.bincount(labels[labels >= 0], minlength=target.shape[1])
    weights = torch.from_numpy(balanced_class_weights(counts, run.loss.class_weights_beta)).float()
    if not hard:
        ratio = float(weights.max() / weights[weights > 0].min())
        say(
            "warning: loss.class_weights: the labels are distributions, of which each share is multiplied by its class's "
            f"weight, the rarest {ratio:.0f} times the commonest: the model will see rare classes that are not there. "
            "Usual: --set loss.class_weights=off"
        )
    return weights


@loss_term("cross_entropy")
class CrossEntropy(LossTerm):
    """Cross-entropy with smoothing and class weights, the epoch's ArcFace margin on cosine logits, or focal where gamma > 0.

    ordered: the classes are levels; with loss.neighbours a label is a distribution over the levels around it, not smoothed.
    """

    op = "arcface_ce"

    def __init__(
        self, term: Term, run: RunConfig, rows: TrainingRows, width: int, *, margin: bool = False, ordered: bool = False
    ) -> None:
        super().__init__(term.on)
        spread = run.loss.neighbours if ordered else 0.0
        self.smoothing, self.gamma = 0.0 if spread else run.loss.label_smoothing, run.loss.focal_gamma
        self.arcface = run.loss.arcface if margin else None
        target = rows.target(term.on)
        labels = largest_share(target)
        mixes = run.data.augment.mixup > 0 or run.data.augment.cutmix > 0
        self.hard = bool((target[labels >= 0].max(1) == 1).all()) and not mixes and not spread
        weights = _class_weights(target, labels, run, self.hard) if run.loss.class_weights == "balanced" else None
        self.register_buffer("around", neighbourhood(target.shape[1], spread) if spread else None)
        self.register_buffer("class_weight", weights)
        self.register_buffer("margin", torch.zeros(()))  # a tensor: a new value recompiles nothing
        self.around: Tensor | None
        self.class_weight: Tensor | None
        self.margin: Tensor

    def at_epoch(self, epoch: int) -> dict[str, float]:
        """Set the epoch's margin and return it for history.json."""
        if self.arcface is None:
            return {}
        margin = self.arcface.margin_at(epoch)
        self.margin.fill_(margin)
        return {"margin": margin}

    def count(self, batch: Batch) -> Tensor:
        return (self.labelled_weight(batch) * row_counts(batch.targets[self.on], self.class_weight, self.hard)).sum()

    def target(self, batch: Batch) -> Tensor:
        """Return (B, C) distributions over the classes, before smoothing."""
        target = batch.targets[self.on]
        return target if self.around is None else target @ self.around

    def rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return (B,) the cross-entropy of each row, without margin and focus."""
        target = self.target(batch)
        q = (1 - self.smoothing) * target + self.smoothing / target.shape[1]
        return -((q if self.class_weight is None else q * self.class_weight) * logits.float().log_softmax(1)).sum(1)

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        logits, scale = prediction.outputs[self.on], 1.0
        if self.gamma:
            target, weight = self.target(batch), self.labelled_weight(batch)
            return focal(logits, target, weight, self.gamma, self.class_weight, self.smoothing)
        if self.arcface is not None:  # of the plain head too, before the margin starts: the scale cancels out
            scale = self.arcface.scale
            logits = logits.float() / scale
        return arcface_ce(
            logits,
            self.target(batch),
            scale=scale,
            margin=self.margin,
            class_weight=self.class_weight,
            sample_weight=self.labelled_weight(batch),
            label_smoothing=self.smoothing,
            reduction="sum",
        )


@loss_term("arcface_ce")
def arcface(term: Term, run: RunConfig, rows: TrainingRows, width: int) -> CrossEntropy:
    return CrossEntropy(term, run, rows, width, margin=True)


@loss_term("ordered_ce")
def ordered(term: Term, run: RunConfig, rows: TrainingRows, width: int) -> CrossEntropy:
    return CrossEntropy(term, run, rows, width, ordered=True)
