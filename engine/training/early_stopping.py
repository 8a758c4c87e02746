"""Which epoch is the best, and when training longer is of no use."""

from __future__ import annotations

import math
from typing import Any

LOWER_IS_BETTER = ("nll", "mae", "gap")  # as the last part of a figure's name


def merit(metric: str, value: float) -> float:
    """The figure, turned so that higher is better; what is not a number is worse than all."""
    if math.isnan(value):
        return -math.inf
    return -value if metric.rpartition("_")[2] in LOWER_IS_BETTER else value


def best_epoch(history: list[dict[str, Any]], metric: str, keep: str = "best") -> int:
    """The first of the best, of those whose model could be the result; with keep `last` the last of them."""
    final = [line for line in history if line["final_head"]]
    return (final[-1] if keep == "last" else max(final, key=lambda line: merit(metric, line["val"][metric])))["epoch"]


def stale_epochs(history: list[dict[str, Any]], metric: str, min_delta: float) -> int:
    """How many epochs ago the metric last improved by more than `min_delta`; 0 where no epoch could be the result yet."""
    best, stale = -math.inf, 0
    for line in history:
        if not line["final_head"]:
            continue
        now = merit(metric, line["val"][metric])
        if now > best + min_delta:
            best, stale = now, 0
        else:
            stale += 1
    return stale
