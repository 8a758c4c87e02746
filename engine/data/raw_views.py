"""The evaluation view of samples that are not packed: from files or arrays, a few batches in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from affect.engine.config.preprocess import Preprocess
from affect.engine.data.opencv import AHEAD
from affect.shards.encoded import BadImage
from affect.shards.images import pixels
from affect.shards.sample import Sample


@dataclass(frozen=True)
class Views:
    """inputs: (B, size, size, 3) uint8 RGB. samples: the B they are of. rejected: path and reason of those met on the way."""

    inputs: torch.Tensor
    samples: list[Sample]
    rejected: list[tuple[str, str]]


def views(samples: Iterable[Sample], preprocess: Preprocess, workers: int, batch: int) -> Iterator[Views]:
    """Yield batches of views in the order of the samples; one that cannot be read is in `rejected`, and missing in its batch."""
    pictures, readable, rejected = list[np.ndarray](), list[Sample](), list[tuple[str, str]]()
    for sample, view in _viewed(samples, preprocess, workers, AHEAD * batch):
        if isinstance(view, BadImage):
            rejected.append((sample.path, str(view)))
        else:
            pictures.append(view)
            readable.append(sample)
        if len(pictures) + len(rejected) == batch:
            yield _stacked(pictures, readable, rejected, preprocess)
            pictures, readable, rejected = [], [], []
    if pictures or rejected:
        yield _stacked(pictures, readable, rejected, preprocess)


def _stacked(
    pictures: list[np.ndarray], readable: list[Sample], rejected: list[tuple[str, str]], preprocess: Preprocess
) -> Views:
    inputs = np.stack(pictures) if pictures else np.empty((0, preprocess.size, preprocess.size, 3), np.uint8)
    return Views(torch.from_numpy(inputs), readable, rejected)


def _viewed(
    samples: Iterable[Sample], preprocess: Preprocess, workers: int, ahead: int
) -> Iterator[tuple[Sample, np.ndarray | BadImage]]:
    """Each sample with its view, computed in threads; at most `ahead` are on the way."""

    def view(sample: Sample) -> np.ndarray | BadImage:
        try:
            return preprocess(pixels(sample.image, sample.box))
        except BadImage as reason:
            return reason

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Sample, Future[np.ndarray | BadImage]]] = deque()
        try:
            for sample in samples:
                if len(waiting) == ahead:
                    done, future = waiting.popleft()
                    yield done, future.result()
                waiting.append((sample, pool.submit(view, sample)))
            for done, future in waiting:
                yield done, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
