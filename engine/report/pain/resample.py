"""Intervals over animals: clips of one animal are alike, so that it is the animals that are drawn again.

Every figure here is a function of sums over clips; sums of drawn animals are counts times the sums of each animal, and no clip is
touched again. Axes: N clips, A animals, K sums, R resamples. Source: Efron, Annals of Statistics 1979;
Field and Welsh, JRSS B 2007, of clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Interval = tuple[float, float]
RESAMPLES = 2000
FEW = 10  # animals: with fewer the interval is known to be too narrow


def animal_interval(
    animal: np.ndarray, parts: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """The 95 % percentile interval of figure(sums) with sums (R, K) of parts (N, K); None of a single animal.

    Resamples of which the figure is not finite are left out.
    """
    herd, place = np.unique(animal, return_inverse=True)
    if len(herd) < 2:
        return None
    sums = np.zeros((len(herd), parts.shape[1]))
    np.add.at(sums, place, parts)
    drawn = np.random.default_rng(seed).multinomial(len(herd), np.full(len(herd), 1 / len(herd)), size=resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentiles(figure(drawn @ sums))


def percentiles(values: np.ndarray) -> Interval | None:
    """2.5 and 97.5, of the finite ones; None where there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    return low, high


def caution(animals: int) -> str:
    """Return a warning about an interval over so few animals; empty where there are enough."""
    if animals < 2:
        return "One animal: there is no interval."
    return f"Only {animals} animals: the intervals are too narrow to be trusted." if animals < FEW else ""
