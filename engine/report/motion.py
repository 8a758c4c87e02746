"""How much moves in a clip before and after a stimulus: the plain score that a model of clips has to beat.

Axes: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from affect.shards.errors import InputError

AFTER, FIRST_SECOND, RATIO = "motion, mean after the stimulus", "motion, first second", "motion, after / before"
BEFORE = "motion, before the stimulus"  # the control: the stimulus cannot have caused it
BASELINES = (AFTER, FIRST_SECOND, RATIO)
SLACK_S = 1e-3  # of a time: float32 times of a regular rate miss the stimulus by less


def frame_differences(frames: Iterable[np.ndarray]) -> np.ndarray:
    """(T - 1,) mean |x_t - x_(t-1)| over pixels and channels, from 0 to 255. frames: (H, W) or (H, W, 3) uint8."""
    differences = []
    for i, (before, after) in enumerate(pairwise(frames)):
        if before.shape != after.shape:
            raise InputError(f"frame {i + 1}: {after.shape}, the frame before {before.shape}; expected frames of one size")
        differences.append(np.abs(after.astype(np.int16) - before.astype(np.int16)).mean())
    return np.array(differences, np.float64)


def motion_scores(frames: Iterable[np.ndarray], times_s: Sequence[float] | np.ndarray, stimulus_s: float) -> dict[str, float]:
    """Return BASELINES and BEFORE of a clip; NaN where there are no such frames, or nothing moves before.

    times_s: (T,) rising, of each frame. stimulus_s: on the same clock. A difference is after the stimulus where both its frames
    are, the first of them at the stimulus or later, and before it where both are; the one across it is in neither.
    """
    times, moved = np.asarray(times_s, np.float64), frame_differences(frames)
    if len(times) != len(moved) + 1 or (np.diff(times) <= 0).any():
        raise InputError(f"{len(moved) + 1} frames, {len(times)} times: expected a time a frame, each later than the one before")
    start, end = times[:-1], times[1:]
    after = start >= stimulus_s - SLACK_S
    first = after & (start < stimulus_s + 1 - SLACK_S)
    before = end < stimulus_s - SLACK_S
    whole, calm = _mean(moved[after]), _mean(moved[before])
    ratio = whole / calm if calm > 0 else float("nan")
    return {AFTER: whole, FIRST_SECOND: _mean(moved[first]), RATIO: ratio, BEFORE: calm}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
