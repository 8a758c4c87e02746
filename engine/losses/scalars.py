"""Squared errors of measured numbers. Axes: B batch, S scalars, N samples of the dataset."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.losses.base import LossTerm, ModelOutput, TeacherOutput, TrainingRows, loss_term
from affect.engine.metrics.regression import TOTAL
from affect.engine.system.log import say
from affect.engine.tasks.spec import Term
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError


@loss_term("scalar_mse")
class ScalarMse(LossTerm):
    """sum_k w_row w_k (said_k - labelled_k)^2 over a row's labelled scalars, the mean over rows with a label.

    w_row: by the row's moment. w_k: by how the scalar goes with the total in the training labels. Source: seed 002.
    """

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        config, dataset = run.loss.scalars, rows.dataset
        names = rows.names(term.on)
        targets = rows.target(term.on)
        weights = correlation_weights(targets, names) if config.weights == "correlation" else np.ones(len(names))
        self.register_buffer("scalar_weight", torch.from_numpy(weights).float())
        self.scalar_weight: Tensor
        self.moment_weight = moment_weights(dataset, config.moments) if config.moments else None  # on the CPU, by sample

    def count(self, batch: Batch) -> Tensor:
        return (batch.weight * batch.mask[self.on].amax(1)).sum()

    def forward(self, said: ModelOutput, batch: Batch, taught: TeacherOutput | None) -> Tensor:
        off = (said.outputs[self.on].float() - batch.targets[self.on]) * batch.mask[self.on]
        rows = (off.square() * self.scalar_weight).sum(1) * batch.weight
        if self.moment_weight is not None:
            rows = rows * self.moment_weight[batch.sample].to(rows.device, non_blocking=True)
        return rows.sum()


@loss_term("sum_consistency")
class SumConsistency(LossTerm):
    """(total - sum of the other scalars)^2 of what the model says, labelled or not. Source: seed 002."""

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        names = rows.names(term.on)
        if TOTAL not in names:
            raise InputError(f"loss.scalars.sum_weight: {term.on} has no {TOTAL!r}, only {', '.join(names)}; set it to 0")
        self.register_buffer("sign", torch.tensor([1.0 if name == TOTAL else -1.0 for name in names]))
        self.sign: Tensor

    def forward(self, said: ModelOutput, batch: Batch, taught: TeacherOutput | None) -> Tensor:
        return ((said.outputs[self.on].float() @ self.sign).square() * batch.weight).sum()


def correlation_weights(targets: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(S,) |r| of each scalar with the total over rows that have both, scaled to a mean of 1; the total itself has 1.

    targets: (N, S), NaN where not labelled. A scalar that does not vary has the smallest of the others' weights.
    """
    if TOTAL not in names:
        raise InputError(f"loss.scalars.weights: correlation is with {TOTAL!r}, and there is only {', '.join(names)}; take off")
    total = targets[:, names.index(TOTAL)]
    found = np.full(len(names), np.nan)
    for i in range(len(names)):
        both = ~np.isnan(targets[:, i]) & ~np.isnan(total)
        if both.sum() > 2 and np.ptp(targets[both, i]) > 0 and np.ptp(total[both]) > 0:
            found[i] = abs(np.corrcoef(targets[both, i], total[both])[0, 1])
    others = np.array([name != TOTAL for name in names])
    found = np.where(np.isnan(found), np.nanmin(found[others]) if (~np.isnan(found[others])).any() else 1.0, found)
    found[others] /= found[others].mean()
    found[~others] = 1.0
    say("loss.scalars.weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, found, strict=True)))
    return found


def moment_weights(dataset: Dataset, moments: dict[str, float]) -> Tensor:
    """(N,) by sample, of the column meta.moment; 1 for moments that are not named."""
    codes, names = dataset.coded("meta.moment")
    if unknown := sorted(set(moments) - set(names)):
        raise InputError(f"loss.scalars.moments: no row is of {', '.join(unknown)}; {dataset.folder} has {', '.join(names)}")
    return torch.tensor([*(moments.get(name, 1.0) for name in names), 1.0])[torch.tensor(codes).long()]
