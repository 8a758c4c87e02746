"""Figures of units that hold or do not, each by itself, in numpy float64. Axes: N rows, A units; NaN where not labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MIDDLE = 0.5  # the threshold where none was fitted
FEW_POSITIVES = 20  # fewer on the calib rows fit no threshold


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)), for any shape, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def unit_figures(
    logits: np.ndarray, target: np.ndarray, names: Sequence[str], thresholds: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """F1, area under the ROC curve, positives and rows of each unit, and the means over those where they mean something.

    macro_f1 is over the units with a positive, macro_auc over those with a positive and a negative: a unit that never occurs
    would count as a failure. NaN where no unit has any.
    """
    at = thresholds or {}
    units = {name: _unit(logits[:, i], target[:, i], at.get(name, MIDDLE)) for i, name in enumerate(names)}
    with_positives = [unit["f1"] for unit in units.values() if unit["support"]]
    with_both = [unit["auc"] for unit in units.values() if unit["auc"] is not None]
    return {
        "rows": int((~np.isnan(target)).any(1).sum()),
        "macro_f1": float(np.mean(with_positives)) if with_positives else float("nan"),
        "macro_auc": float(np.mean(with_both)) if with_both else float("nan"),
        "macro_units": len(with_positives),
        "never_positive": [name for name, unit in units.items() if not unit["support"]],
        "units": units,
    }


def _unit(logits: np.ndarray, target: np.ndarray, threshold: float) -> dict[str, Any]:
    labelled = ~np.isnan(target)
    probs, holds = sigmoid(logits[labelled]), target[labelled] >= MIDDLE
    f1 = float(_f1((probs >= threshold) & holds, probs >= threshold, holds))
    return {
        "f1": f1,
        "auc": auc(probs, holds),
        "support": int(holds.sum()),
        "rows": len(holds),
        "threshold": threshold,
    }


def _f1(hits: np.ndarray, predicted: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """Return F1 from counts or masks (N,); 0 where nothing holds and nothing is predicted."""
    return 2 * hits.sum(-1) / np.maximum(predicted.sum(-1) + holds.sum(-1), 1)


def auc(scores: np.ndarray, holds: np.ndarray) -> float | None:
    """The chance that a positive scores above a negative, ties counting half; None without one of both.

    scores: (N,). holds: (N,) bool. Source: Hanley and McNeil, Radiology 1982; the Mann-Whitney statistic.
    """
    positives, negatives = int(holds.sum()), int((~holds).sum())
    if not positives or not negatives:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(count) - (count - 1) / 2
    above = middle_rank[place][holds].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def tuned_thresholds(logits: np.ndarray, target: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Unit -> the probability from which it is predicted, by the best F1 on these rows; .5 with fewer than 20 positives."""
    return {name: _tuned(logits[:, i], target[:, i]) for i, name in enumerate(names)}


def _tuned(logits: np.ndarray, target: np.ndarray) -> float:
    labelled = ~np.isnan(target)
    probs, holds = sigmoid(logits[labelled]), target[labelled] >= MIDDLE
    if holds.sum() < FEW_POSITIVES:
        return MIDDLE
    order = np.argsort(-probs, kind="stable")
    ranked, hits = probs[order], np.cumsum(holds[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + hits[-1])
    lower = np.append(ranked[1:], 0.0)
    f1 = np.where(ranked > lower, f1, -1.0)  # no threshold between equals
    best = np.flatnonzero(f1 == f1.max())
    middles = (ranked[best] + lower[best]) / 2
    return float(middles[np.abs(middles - MIDDLE).argmin()])
