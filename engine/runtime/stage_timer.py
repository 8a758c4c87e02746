"""Measures how long each stage of a pass takes."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

WIDTH = math.log(1.02)  # of a bin, in logarithms of seconds: percentiles are right to 1 %
PERCENTILES = (50, 95, 99)


class Stages:
    """Seconds a frame, by stage, as histograms: of constant memory. Each stage is timed in one thread."""

    def __init__(self) -> None:
        self._bins: dict[str, Counter[int]] = {}
        self._sums: defaultdict[str, float] = defaultdict(float)

    def add(self, stage: str, seconds: float, frames: int = 1) -> None:
        """seconds: for all of the frames together, which share them."""
        if frames:
            self._sums[stage] += seconds
            each = max(seconds / frames, 1e-9)
            self._bins.setdefault(stage, Counter())[round(math.log(each) / WIDTH)] += frames

    @contextmanager
    def of(self, stage: str, frames: int = 1) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - began, frames)

    def seconds(self, stage: str) -> float:
        """Sum over all frames so far; 0 of a stage that did not run."""
        return self._sums.get(stage, 0.0)

    def to_json(self) -> dict[str, dict[str, float]]:
        """Return {stage: {p50_ms, p95_ms, p99_ms}} of a frame."""
        return {
            stage: {f"p{q}_ms": round(1e3 * _percentile(bins, q), 4) for q in PERCENTILES} for stage, bins in self._bins.items()
        }


def _percentile(bins: Counter[int], percent: float) -> float:
    """Return the percentile in seconds."""
    due = math.ceil(bins.total() * percent / 100)
    for bin_, count in sorted(bins.items()):
        due -= count
        if due <= 0:
            return math.exp(bin_ * WIDTH)
    raise AssertionError("no bins")
