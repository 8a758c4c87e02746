"""Finds the samples whose bytes have changed since they were packed, after a picture could not be decoded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from affect.shards.clip import clip_sha256
from affect.shards.dataset import Dataset
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError, first
from affect.shards.images import decode, pixel_sha256


def damage(dataset: Dataset, samples: np.ndarray) -> InputError | None:
    """The error that names the damaged ones among these samples; None where all are what was packed."""
    damaged = list(_damaged(dataset, samples.tolist()))
    if not damaged:
        return None
    return InputError(f"{dataset.folder}: damaged since it was packed:\n{first(damaged)}\nRun: affect verify {dataset.folder}")


def _damaged(dataset: Dataset, samples: list[int]) -> Iterator[str]:
    for sample in samples:
        try:
            if _pixels_sha256(dataset, sample) == dataset.column("sha256")[sample]:
                continue
            reason = "its pixels have changed"
        except BadImage as error:
            reason = str(error)
        yield f"{dataset.column('shard')[sample]}: {dataset.column('key')[sample]}: {reason}"


def _pixels_sha256(dataset: Dataset, sample: int) -> bytes:
    """Return the digest that packing takes of a picture, or of all frames of a clip. Raises BadImage."""
    frames = [pixel_sha256(decode(frame)) for frame in dataset.frames(sample)]
    return frames[0] if len(dataset.times_s(sample)) == 0 else clip_sha256(frames)
