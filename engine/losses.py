"""Named loss terms and their weighted sum. A term is a function of what the model said and the batch.

The gradient of an update is that of one mean over all its samples, however many processes and micro-batches they are spread
over: a term gives a sum and, from the targets alone and before any forward pass, the count that the sum is divided by.
Axes: B batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from affect.engine.config import RunConfig
from affect.engine.data.loader import Batch, Loader
from affect.engine.data.selection import largest_share
from affect.engine.log import say
from affect.engine.task import TaskSpec, Term
from affect.kernels import arcface_ce
from affect.kernels.choose import choose

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Losses:
    """total: () float32, what is descended. parts: term -> () float32, before its weight."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


def row_counts(target: Tensor, class_weight: Tensor | None, hard: bool) -> Tensor:
    """(B,) what a row counts in the mean, in torch's semantics: its class's weight under hard labels, 1 under distributions."""
    if class_weight is None or not hard:
        return target.new_ones(len(target))
    return class_weight[target.argmax(1)]


def balanced_class_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """(C,) weights (1 - beta) / (1 - beta^n), scaled to a mean of 1 over the classes that occur; 0 for one that does not.

    counts: (C,) samples of each class. Source: Cui et al., Class-Balanced Loss, CVPR 2019.
    """
    counts = np.asarray(counts, np.float64)
    effective = -np.expm1(counts * math.log(beta)) if beta > 0 else (counts > 0).astype(float)
    weights = np.where(counts > 0, (1 - beta) / np.maximum(effective, 1e-300), 0.0)
    return weights / weights[counts > 0].mean()


def _class_weights(target: np.ndarray, labels: np.ndarray, run: RunConfig, hard: bool) -> Tensor:
    """Of (N, C) training targets, whose top classes are `labels`, -1 where there is none."""
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


class CrossEntropy(nn.Module):
    """With smoothing and class weights; of cosine logits with the margin of the epoch."""

    op = "arcface_ce"

    def __init__(self, term: Term, run: RunConfig, loader: Loader, *, margin: bool = False) -> None:
        super().__init__()
        self.on, self.smoothing = term.on, run.loss.label_smoothing
        self.arcface = run.loss.arcface if margin else None
        rows = loader.planner.order.rows
        target = loader.targets[term.on].numpy()[rows]
        labels = largest_share(target)
        mixes = run.data.augment.mixup > 0 or run.data.augment.cutmix > 0
        self.hard = bool((target[labels >= 0].max(1) == 1).all()) and not mixes
        weights = _class_weights(target, labels, run, self.hard) if run.loss.class_weights == "balanced" else None
        self.register_buffer("class_weight", weights)
        self.register_buffer("margin", torch.zeros(()))  # a tensor: a new value recompiles nothing
        self.class_weight: Tensor | None
        self.margin: Tensor

    def at_epoch(self, epoch: int) -> dict[str, float]:
        """Set the epoch's margin; return what `history.json` says of it."""
        if self.arcface is None:
            return {}
        margin = self.arcface.margin_at(epoch)
        self.margin.fill_(margin)
        return {"margin": margin}

    def _labelled(self, batch: Batch) -> Tensor:
        return batch.weight * batch.mask[self.on].amin(1)

    def count(self, batch: Batch) -> Tensor:
        return (self._labelled(batch) * row_counts(batch.targets[self.on], self.class_weight, self.hard)).sum()

    def forward(self, features: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        logits, scale = outputs[self.on], 1.0
        if self.arcface is not None:  # of the plain head too, before the margin starts: the scale cancels out
            scale = self.arcface.scale
            logits = logits.float() / scale
        return arcface_ce(
            logits, batch.targets[self.on], scale=scale, margin=self.margin, class_weight=self.class_weight,
            sample_weight=self._labelled(batch), label_smoothing=self.smoothing, reduction="sum",
        )  # fmt: skip


def _arcface(term: Term, run: RunConfig, loader: Loader) -> CrossEntropy:
    return CrossEntropy(term, run, loader, margin=True)


TERMS: dict[str, Callable[[Term, RunConfig, Loader], CrossEntropy]] = {"cross_entropy": CrossEntropy, "arcface_ce": _arcface}


class LossFunction(nn.Module):
    """The task's terms, made for one run."""

    def __init__(self, run: RunConfig, task: TaskSpec, loader: Loader) -> None:
        super().__init__()
        self.names = [term.name for term in task.terms]
        self.terms = nn.ModuleList([TERMS[term.name](term, run, loader) for term in task.terms])
        self.register_buffer("weights", torch.tensor([term.weight for term in task.terms]))
        self.weights: Tensor
        self.to(loader.device)

    def _terms(self) -> list[CrossEntropy]:
        return cast(list[CrossEntropy], list(self.terms))

    def at_epoch(self, epoch: int) -> dict[str, float]:
        """Set what the terms change by epoch; return it by name."""
        return {name: value for term in self._terms() for name, value in term.at_epoch(epoch).items()}

    def implementation(self) -> str:
        """Which kernels run here and why, for the start-up log."""
        chosen = {term.op: choose(term.op, self.weights, classes=2) for term in self._terms()}
        return ", ".join(f"{op} by {choice.provider} ({choice.reason})" for op, choice in chosen.items())

    def counts(self, batch: Batch) -> Tensor:
        """(terms,) what each term's sum over these samples is to be divided by."""
        return torch.stack([term.count(batch) for term in self._terms()])

    def forward(self, features: Tensor, outputs: dict[str, Tensor], batch: Batch, counts: Tensor) -> Losses:
        """counts: of the whole update. A term that counts nothing is 0, with zero gradient."""
        sums = torch.stack([term(features, outputs, batch) for term in self.terms])
        parts = sums / counts.clamp_min(TINY)
        return Losses((parts * self.weights).sum(), dict(zip(self.names, parts.unbind(), strict=True)))
