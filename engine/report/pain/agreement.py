"""Agreement between raters: the intraclass correlation."""

from __future__ import annotations

import numpy as np


def icc(ratings: np.ndarray) -> float | None:
    """ICC(2,1): two-way random effects, absolute agreement, of a single rater.

        (MSR - MSE) / (MSR + (K - 1) MSE + K (MSC - MSE) / N)

    of the mean squares of subjects, raters and the rest. ratings: (N, K), no NaN. None with fewer than two subjects, or where all
    ratings are equal. Source: Shrout and Fleiss, Psychological Bulletin 1979.
    """
    subjects, raters = ratings.shape
    if subjects < 2 or raters < 2:
        return None
    ratings = ratings.astype(np.float64) - ratings.mean()
    of_subjects, of_raters = ratings.mean(1), ratings.mean(0)
    rest = ratings - of_subjects[:, None] - of_raters
    between = raters * (of_subjects**2).sum() / (subjects - 1)
    across = subjects * (of_raters**2).sum() / (raters - 1)
    error = (rest**2).sum() / ((subjects - 1) * (raters - 1))
    whole = between + (raters - 1) * error + raters * (across - error) / subjects
    return float((between - error) / whole) if whole > 0 else None
