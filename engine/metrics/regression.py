"""Figures of measured numbers, in numpy float64. Axes: N rows, S scalars; NaN where not labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

TOTAL = "total"  # a scalar of this name is the sum of the others; its figures stand apart, too


def scalar_figures(values: np.ndarray, target: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Errors of each scalar, and their means over those with labelled rows; see `errors`."""
    each = {name: errors(values[:, i], target[:, i]) for i, name in enumerate(names)}
    known = [figures for figures in each.values() if figures["rows"]]

    def mean(key: str) -> float:
        values = [figures[key] for figures in known if figures[key] is not None]
        return float(np.mean(values)) if values else float("nan")

    rows = int((~np.isnan(target)).any(1).sum())
    return {"rows": rows, "r2": mean("r2"), "mae": mean("mae"), "scalars": each}


def errors(values: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """r2 against the mean of these rows, mae, rmse, bias (predicted - true), and Pearson's r of (N,) values.

    None where it is not defined: no rows, or labels that are all equal.
    """
    labelled = ~np.isnan(target)
    predicted, true = values[labelled].astype(np.float64), target[labelled].astype(np.float64)
    if not len(true):
        return {"rows": 0, "r2": None, "mae": None, "rmse": None, "bias": None, "pearson": None}
    off, spread = predicted - true, float(((true - true.mean()) ** 2).sum())
    both_vary = spread > 0 and np.ptp(predicted) > 0
    return {
        "rows": len(true),
        "r2": 1 - float((off**2).sum()) / spread if spread else None,
        "mae": float(np.abs(off).mean()),
        "rmse": float(np.sqrt((off**2).mean())),
        "bias": float(off.mean()),
        "pearson": float(np.corrcoef(predicted, true)[0, 1]) if both_vary else None,
    }
