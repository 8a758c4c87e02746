"""Figures of the state head, and pain by a cut-off on the total. Axes: N clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affect.engine.metrics.classification import confusion, f1_per_class
from affect.engine.report.pain.figures import Figures
from affect.engine.report.pain.out_of_fold import ACUTE, NO_PAIN, STATES, PainPredictions


@dataclass(frozen=True)
class CutOff:
    """A total of `at` or more counts as pain. youden: sensitivity + specificity - 1 where it was fitted.

    rated_at, rated_youden: the same of the true totals themselves, the most that a model of them can be asked for.
    """

    at: float
    youden: float
    rated_at: float
    rated_youden: float


def is_pain(predictions: PainPredictions) -> np.ndarray:
    """(N,) 1 acute, 0 no pain, NaN neither: residual pain, after analgesia, or not known."""
    pain = np.full(len(predictions), np.nan)
    pain[predictions.state == ACUTE], pain[predictions.state == NO_PAIN] = 1.0, 0.0
    return pain


def cut_off(true_total: np.ndarray, predicted_total: np.ndarray, is_pain: np.ndarray) -> CutOff | None:
    """The total with the highest Youden's J on training folds, between two predicted values; of equal ones the lowest, as
    pain that is missed weighs more. None without a clip of both kinds.

    All (N,); is_pain: 1, 0, or NaN, as bool or float. Source: Youden, Cancer 1950.
    """
    pain = np.asarray(is_pain, np.float64)
    known = ~np.isnan(pain) & np.isfinite(predicted_total) & np.isfinite(true_total)
    holds = pain[known] == 1
    if holds.all() or not holds.any():
        return None
    predicted, rated = (_youden(totals[known], holds) for totals in (predicted_total, true_total))
    return CutOff(*predicted, *rated)


def _youden(totals: np.ndarray, holds: np.ndarray) -> tuple[float, float]:
    """(cut-off, J)."""
    values = np.unique(totals.astype(np.float64))
    below = np.append(values[:1], values[:-1])
    cuts = (values + below) / 2  # (V,) the first calls all of them pain
    predicted = totals >= cuts[:, None]  # (V, N)
    gain = predicted[:, holds].mean(1) - predicted[:, ~holds].mean(1)
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[0])
    return float(cuts[best]), float(gain[best])


def at_cut_off(predicted_total: np.ndarray, is_pain: np.ndarray, at: float | np.ndarray) -> Figures:
    """Sensitivity and specificity, and of how many clips; None where there are none. at: one, or one a clip (N,)."""
    at = np.broadcast_to(np.asarray(at, np.float64), predicted_total.shape)
    known = np.isfinite(predicted_total) & np.isfinite(at)
    predicted, pain = predicted_total >= at, known & (is_pain == 1)
    calm = known & (is_pain == 0)
    return {
        "sensitivity": float(predicted[pain].mean()) if pain.any() else None,
        "specificity": float((~predicted)[calm].mean()) if calm.any() else None,
        "pain": int(pain.sum()),
        "no_pain": int(calm.sum()),
    }


def other_folds_cut_offs(predictions: PainPredictions) -> np.ndarray:
    """(N,) for each clip the cut-off of the out-of-fold totals of all folds but its own; NaN where they give none."""
    pain, target, predicted = is_pain(predictions), predictions.target[:, -1], predictions.predicted[:, -1]
    at = np.full(len(predictions), np.nan)
    for fold in np.unique(predictions.fold):
        here = predictions.fold == fold
        cut = cut_off(target[~here], predicted[~here], pain[~here])
        at[here] = cut.at if cut else np.nan
    return at


def state_figures(predictions: PainPredictions) -> Figures:
    """Return the figures of the most probable state: accuracy, macro-F1 over the states that occur, and recall, precision, F1.

    commonest: the accuracy of always predicting the state that most of these clips have. unsaid: labelled, without probabilities.
    """
    labelled = predictions.state >= 0
    here = labelled & np.isfinite(predictions.state_probs).all(1)
    figures: Figures = {"rows": int(here.sum()), "unsaid": int((labelled & ~here).sum())}
    if not here.any():
        return figures | {"accuracy": None, "macro_f1": None, "commonest": None, "states": {}}
    label, predicted = predictions.state[here].astype(np.int64), predictions.state_probs[here].argmax(1)
    matrix = confusion(label, predicted, len(STATES))
    f1, support, times = f1_per_class(matrix), matrix.sum(1), matrix.sum(0)
    states = {
        name: {
            "rows": int(support[i]), "f1": float(f1[i]),
            "recall": float(matrix[i, i] / support[i]) if support[i] else None,
            "precision": float(matrix[i, i] / times[i]) if times[i] else None,
        }
        for i, name in enumerate(STATES)
    }  # fmt: skip
    return figures | {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "macro_f1": float(f1[support > 0].mean()),
        "commonest": float(support.max() / support.sum()),
        "states": states,
        "confusion": matrix.tolist(),
    }
