"""What the state head says, and pain by a cut-off on the total. Axes: N clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affect.engine.metrics.classification import confusion, f1_per_class
from affect.engine.report.pain.figures import Figures
from affect.engine.report.pain.out_of_fold import ACUTE, NO_PAIN, STATES, PainAnswers


@dataclass(frozen=True)
class CutOff:
    """Pain is said of a total of `at` or more. youden: sensitivity + specificity - 1 where it was fitted.

    rated_at, rated_youden: the same of the rated totals themselves, the most that a model of them can be asked for.
    """

    at: float
    youden: float
    rated_at: float
    rated_youden: float


def is_pain(answers: PainAnswers) -> np.ndarray:
    """(N,) 1 acute, 0 no pain, NaN neither: residual pain, after analgesia, or not known."""
    pain = np.full(len(answers), np.nan)
    pain[answers.state == ACUTE], pain[answers.state == NO_PAIN] = 1.0, 0.0
    return pain


def cut_off(target_total: np.ndarray, said_total: np.ndarray, is_pain: np.ndarray) -> CutOff | None:
    """The total with the highest Youden's J on training folds, between two values that were said; of equal ones the lowest, as
    pain that is missed weighs more. None without a clip of both kinds.

    All (N,); is_pain: 1, 0, or NaN, as bool or float. Source: Youden, Cancer 1950.
    """
    pain = np.asarray(is_pain, np.float64)
    known = ~np.isnan(pain) & np.isfinite(said_total) & np.isfinite(target_total)
    holds = pain[known] == 1
    if holds.all() or not holds.any():
        return None
    said, rated = (_youden(totals[known], holds) for totals in (said_total, target_total))
    return CutOff(*said, *rated)


def _youden(totals: np.ndarray, holds: np.ndarray) -> tuple[float, float]:
    """(cut-off, J)."""
    values = np.unique(totals.astype(np.float64))
    below = np.append(values[:1], values[:-1])
    cuts = (values + below) / 2  # (V,) the first: pain is said of all
    said = totals >= cuts[:, None]  # (V, N)
    gain = said[:, holds].mean(1) - said[:, ~holds].mean(1)
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[0])
    return float(cuts[best]), float(gain[best])


def at_cut_off(said_total: np.ndarray, is_pain: np.ndarray, at: float | np.ndarray) -> Figures:
    """Sensitivity and specificity, and of how many clips; None where there are none. at: one, or a clip's own (N,), NaN: none."""
    at = np.broadcast_to(np.asarray(at, np.float64), said_total.shape)
    known = np.isfinite(said_total) & np.isfinite(at)
    said, pain = said_total >= at, known & (is_pain == 1)
    calm = known & (is_pain == 0)
    return {
        "sensitivity": float(said[pain].mean()) if pain.any() else None,
        "specificity": float((~said)[calm].mean()) if calm.any() else None,
        "pain": int(pain.sum()),
        "no_pain": int(calm.sum()),
    }


def other_folds_cut_offs(answers: PainAnswers) -> np.ndarray:
    """(N,) for each clip the cut-off of the out-of-fold totals of all folds but its own; NaN where they give none."""
    pain, target, said = is_pain(answers), answers.target[:, -1], answers.said[:, -1]
    at = np.full(len(answers), np.nan)
    for fold in np.unique(answers.fold):
        here = answers.fold == fold
        found = cut_off(target[~here], said[~here], pain[~here])
        at[here] = found.at if found else np.nan
    return at


def state_figures(answers: PainAnswers) -> Figures:
    """Of the most probable state: accuracy, macro-F1 over the states that occur, each one's recall, precision and F1.

    commonest: the accuracy of always saying the state that most of these clips have. unsaid: labelled, without probabilities.
    """
    labelled = answers.state >= 0
    here = labelled & np.isfinite(answers.state_probs).all(1)
    found: Figures = {"rows": int(here.sum()), "unsaid": int((labelled & ~here).sum())}
    if not here.any():
        return found | {"accuracy": None, "macro_f1": None, "commonest": None, "states": {}}
    label, said = answers.state[here].astype(np.int64), answers.state_probs[here].argmax(1)
    matrix = confusion(label, said, len(STATES))
    f1, support, times = f1_per_class(matrix), matrix.sum(1), matrix.sum(0)
    states = {
        name: {
            "rows": int(support[i]), "f1": float(f1[i]),
            "recall": float(matrix[i, i] / support[i]) if support[i] else None,
            "precision": float(matrix[i, i] / times[i]) if times[i] else None,
        }
        for i, name in enumerate(STATES)
    }  # fmt: skip
    return found | {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "macro_f1": float(f1[support > 0].mean()),
        "commonest": float(support.max() / support.sum()),
        "states": states,
        "confusion": matrix.tolist(),
    }
