"""Conformal sets: the labels that a face may have, the right one among them in a given share of faces.

RAPS (Angelopoulos et al., Uncertainty Sets for Image Classifiers using Conformal Prediction, ICLR 2021), split conformal. A
label's score is the probability of all labels ranked above it, and `penalty` for each rank beyond `k_reg`; the set holds the
labels whose score is at most the threshold. This is the paper's score with its random number fixed at u = 1: the same picture
has the same set each time, the first label is always in it, and the coverage holds all the same, as it does for any fixed score.
The price is coverage above the wanted one where the first label alone is right more often than that.

Needs neither torch nor scikit-learn: the runtime reads sets. Axes: N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affect.shards.errors import InputError

# With 7 to 14 classes a set of more than three labels is of little use. Fitted on halves of FER+'s calib rows the choice matters
# little: at .9 sets have 1.63 to 1.66 labels for penalties from 0 to .5; at .95 2.2 up to .1, and 2.6 at .5.
PENALTY, K_REG = 0.05, 3
FEW_ROWS = 100
METHOD = "RAPS, not randomised (u = 1)"
HOLDS_FOR = (
    "Exchangeable stills: faces drawn one by one as the fitted rows were, and their majority label; over all of them, not within "
    "each class. Not for frames of a video, which are like each other, nor for another camera or crowd."
)


@dataclass(frozen=True)
class Conformal:
    """Sets of the labels of `output` at a coverage. rows, split: what the threshold was fitted on.

    penalty, k_reg: the paper's lambda and k_reg.
    """

    output: str
    coverage: float
    threshold: float
    rows: int
    split: str | None = None
    penalty: float = PENALTY
    k_reg: int = K_REG

    def sets(self, probs: np.ndarray) -> np.ndarray:
        """(N, C) calibrated probabilities -> (N, C) bool, which labels are in the set; the most probable one always is."""
        return scores(probs, self.penalty, self.k_reg) <= self.threshold

    def to_json(self) -> dict[str, Any]:
        return {
            "method": METHOD,
            "output": self.output,
            "coverage": self.coverage,
            "threshold": self.threshold,
            "lambda": self.penalty,
            "k_reg": self.k_reg,
            "fitted_on": {"split": self.split, "rows": self.rows},
            "holds_for": HOLDS_FOR,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Conformal:
        try:
            fitted = value["fitted_on"]
            return cls(
                value["output"],
                float(value["coverage"]),
                float(value["threshold"]),
                int(fitted["rows"]),
                fitted["split"],
                float(value["lambda"]),
                int(value["k_reg"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: conformal: not readable ({error!r}); fit it anew: affect calibrate RUN") from error


def checked_coverage(coverage: float) -> float:
    if not 0 < coverage < 1:
        raise InputError(f"coverage: found {coverage:g}; expected a share above 0 and below 1, such as 0.9")
    return coverage


def scores(probs: np.ndarray, penalty: float = PENALTY, k_reg: int = K_REG) -> np.ndarray:
    """(N, C) probabilities -> (N, C) float64: 0 for the most probable label, growing along the ranks; equals keep their order."""
    order = np.argsort(-probs, axis=1, kind="stable")
    ranked = np.take_along_axis(probs, order, 1).astype(np.float64)
    above = np.cumsum(ranked, 1) - ranked
    above[:, 0] = 0.0
    scored = np.empty_like(above)
    np.put_along_axis(scored, order, above + penalty * np.maximum(np.arange(1, probs.shape[1] + 1) - k_reg, 0), 1)
    return scored


def fit_conformal(
    probs: np.ndarray, label: np.ndarray, coverage: float, output: str, *, split: str | None = None
) -> tuple[Conformal, str]:
    """The threshold at which the sets of exchangeable rows hold their label in at least `coverage` of them, and a warning.

    probs: (N, C), N >= 1. label: (N,) int. The threshold is the ceil((N + 1) coverage)-th smallest score of the labels; where
    there are too few rows for that, every set holds all labels. Probabilities calibrated by one temperature on these rows count
    as fixed beforehand: one number more or less fitted moves the coverage far less than the choice of rows does.
    """
    checked_coverage(coverage)
    if not len(probs):
        raise InputError("coverage: no labelled rows to fit a threshold on; carve some out of val: affect pack ... --calib 0.3")
    rows, classes = probs.shape
    place = math.ceil((rows + 1) * coverage - 1e-9)
    all_labels = 1.0 + PENALTY * max(classes - K_REG, 0)
    of_labels = np.sort(scores(probs)[np.arange(rows), label])
    threshold = all_labels if place > rows else float(of_labels[place - 1])
    warning = ""
    if place > rows:
        enough = math.ceil(coverage / (1 - coverage) - 1e-9)
        warning = f"{rows} rows are too few for coverage {coverage:g}: every set holds all labels; {enough} rows are the least"
    elif rows < FEW_ROWS:
        warning = (
            f"conformal set fitted on {rows} rows, fewer than {FEW_ROWS}: the coverage of new faces may be off by "
            f"{2 * math.sqrt(coverage * (1 - coverage) / (rows + 2)):.2f}"
        )
    return Conformal(output, coverage, threshold, rows, split), warning


def coverage_figures(conformal: Conformal, probs: np.ndarray, label: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """How often the sets of rows that were not fitted on hold the label, and how many labels they have: overall, by class.

    chance: two standard deviations of the coverage that the draw of both samples alone makes.
    """
    sets = conformal.sets(probs)
    holds, size = sets[np.arange(len(label)), label], sets.sum(1)

    def of(keep: np.ndarray) -> dict[str, Any]:
        rows = int(keep.sum())
        share = {"coverage": float(holds[keep].mean()), "mean_size": float(size[keep].mean())} if rows else {}
        return {"coverage": None, "mean_size": None, **share, "rows": rows}

    wanted = conformal.coverage
    return {
        "asked": wanted,
        **of(np.ones(len(label), bool)),
        "one_label": float((size == 1).mean()),
        "chance": 2 * math.sqrt(wanted * (1 - wanted) * (1 / (conformal.rows + 2) + 1 / len(label))),
        "fitted_rows": conformal.rows,
        "per_class": {name: of(label == i) for i, name in enumerate(names)},
    }
