"""Squared errors of scalars. Axes: B batch, S scalars, N samples of the dataset."""

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
    """sum_k w_row w_k (predicted_k - true_k)^2 over a row's labelled scalars, the mean over rows with a label.

    w_row: by the row's moment. w_k: by the scalar's correlation with the total in the training labels.
    Source: the reference recipe, docs/recipes/cattle_pain.md.
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

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        off = (prediction.outputs[self.on].float() - batch.targets[self.on]) * batch.mask[self.on]
        rows = (off.square() * self.scalar_weight).sum(1) * batch.weight
        if self.moment_weight is not None:
            rows = rows * self.moment_weight[batch.sample].to(rows.device, non_blocking=True)
        return rows.sum()


@loss_term("sum_consistency")
class SumConsistency(LossTerm):
    """(predicted total - sum of the other predicted scalars)^2, labelled or not. Source: docs/recipes/cattle_pain.md."""

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int) -> None:
        super().__init__(term.on)
        names = rows.names(term.on)
        if TOTAL not in names:
            raise InputError(f"loss.scalars.sum_weight: {term.on} has no {TOTAL!r}, only {', '.join(names)}; set it to 0")
        self.register_buffer("sign", torch.tensor([1.0 if name == TOTAL else -1.0 for name in names]))
        self.sign: Tensor

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        return ((prediction.outputs[self.on].float() @ self.sign).square() * batch.weight).sum()


def correlation_weights(targets: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Return (S,) |r| of each scalar with the total over rows that have both, scaled to a mean of 1; the total has 1.

    targets: (N, S), NaN where not labelled. A scalar that does not vary has the smallest of the others' weights.
    """
    if TOTAL not in names:
        raise InputError(f"loss.scalars.weights: correlation is with {TOTAL!r}, and there is only {', '.join(names)}; take off")
    total = targets[:, names.index(TOTAL)]
    weights = np.full(len(names), np.nan)
    for i in range(len(names)):
        both = ~np.isnan(targets[:, i]) & ~np.isnan(total)
        if both.sum() > 2 and np.ptp(targets[both, i]) > 0 and np.ptp(total[both]) > 0:
            weights[i] = abs(np.corrcoef(targets[both, i], total[both])[0, 1])
    others = np.array([name != TOTAL for name in names])
    weights = np.where(np.isnan(weights), np.nanmin(weights[others]) if (~np.isnan(weights[others])).any() else 1.0, weights)
    weights[others] /= weights[others].mean()
    weights[~others] = 1.0
    say("loss.scalars.weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True)))
    return weights


def moment_weights(dataset: Dataset, moments: dict[str, float]) -> Tensor:
    """Return (N,) weights by sample number, from the column meta.moment; 1 for moments without a weight."""
    codes, names = dataset.coded("meta.moment")
    if unknown := sorted(set(moments) - set(names)):
        raise InputError(f"loss.scalars.moments: no row is of {', '.join(unknown)}; {dataset.folder} has {', '.join(names)}")
    return torch.tensor([*(moments.get(name, 1.0) for name in names), 1.0])[torch.tensor(codes).long()]
