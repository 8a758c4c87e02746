"""When training longer is of no use."""

from __future__ import annotations

import math
from typing import Any


def stale_epochs(history: list[dict[str, Any]], metric: str, min_delta: float) -> int:
    """How many epochs ago the metric last rose by more than `min_delta`; 0 where no epoch could be the result yet."""
    best, stale = -math.inf, 0
    for line in history:
        if not line["final_head"]:
            continue
        if line["val"][metric] > best + min_delta:
            best, stale = line["val"][metric], 0
        else:
            stale += 1
    return stale
