"""Random numbers of drawn faces: a separate stream for each purpose."""

from types import SimpleNamespace

import numpy as np

IDENTITY, STILL, VIDEO, POSED = 1, 2, 3, 4  # purposes


def generator(*key: int) -> np.random.Generator:
    """The stream of (seed, subject, purpose, emotion, index)."""
    # every key is five long: SeedSequence pads with zeros, so (1, 2) and (1, 2, 0) would be one stream
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def uniform(rng: np.random.Generator, ranges: dict[str, tuple[float, float]]) -> SimpleNamespace:
    """A number for each name, uniform in its range."""
    low, high = np.transpose(list(ranges.values()))
    return SimpleNamespace(**dict(zip(ranges, rng.uniform(low, high).tolist(), strict=True)))
