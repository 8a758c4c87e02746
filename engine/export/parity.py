"""Compares a graph with the model that it was exported from, on real samples."""

from __future__ import annotations

import numpy as np

from affect.shards.errors import InputError
from affect.shards.schema import Kind

MAX_DIFFERENCE = 1e-3  # of logits, float32
CLEAR_MARGIN = 2e-3  # between the two largest logits: below it a changed label is rounding


def parity(want: np.ndarray, got: np.ndarray, where: str, kind: Kind = "classes") -> dict[str, float]:
    """Compare (N, C) logits or scalars in float32. Raises InputError above MAX_DIFFERENCE or where a clear label changed.

    A label is the largest logit of classes, the sign of each logit of a multilabel output; scalars have none.
    """
    measured = agreement(want, got, kind)
    difference = measured["max_abs_logit"]
    agree, clear = _labels(want, got, kind)
    if not difference <= MAX_DIFFERENCE or not agree[clear].all():
        raise InputError(
            f"{where}: the graph is not the model: largest difference {difference:.2e} (allowed {MAX_DIFFERENCE}), "
            f"{int((~agree & clear).sum())} clear labels changed of {len(want)}; nothing was written"
        )
    return measured


def agreement(want: np.ndarray, got: np.ndarray, kind: Kind = "classes") -> dict[str, float]:
    """Return rows, the largest difference and the share of equal labels of two (N, C), without a verdict."""
    agree, _ = _labels(want, got, kind)
    return {"rows": len(want), "max_abs_logit": float(np.abs(want - got).max()), "label_agreement": float(agree.mean())}


def _labels(want: np.ndarray, got: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Return which labels agree, and which are clear: (N,) of classes, (N, A) of multilabel outputs."""
    if kind == "classes":
        top = np.sort(want, axis=1)
        return want.argmax(1) == got.argmax(1), top[:, -1] - top[:, -2] > CLEAR_MARGIN
    if kind == "multilabel":
        return (want > 0) == (got > 0), np.abs(want) > CLEAR_MARGIN
    return np.ones(len(want), bool), np.zeros(len(want), bool)
