"""Counts of a packed dataset, and of its shuffled order, which must leave nothing out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affect.shards.dataset import Dataset
from affect.shards.sampler import Order


@dataclass(frozen=True)
class Statistics:
    """Samples by split.

    counts: `source` or an output -> name -> samples in each of `splits`. A class counts where its share is the largest, a unit
    or scalar where it is above 0.
    """

    splits: tuple[str, ...]
    counts: dict[str, dict[str, list[int]]]
    unlabelled: dict[str, list[int]]  # output -> samples in each split without any label
    sizes: dict[str, int]  # WIDTHxHEIGHT -> samples, the most frequent first
    shorter_side: np.ndarray  # (N,)


def statistics(dataset: Dataset) -> Statistics:
    codes, names = dataset.coded("split")
    splits = tuple(dataset.info.counts)
    split = np.array([splits.index(name) if name in splits else -1 for name in [*names, ""]])[codes]

    def by_split(chosen: np.ndarray) -> list[int]:
        return np.bincount(split[chosen], minlength=len(splits)).tolist()

    source, sources = dataset.coded("source")
    counts = {"source": {name: by_split(source == i) for i, name in sorted(enumerate(sources), key=lambda pair: pair[1])}}
    unlabelled = {}
    for output in dataset.info.layout.outputs:
        targets = dataset.targets(output.name)
        known = ~np.isnan(targets).all(1)
        unlabelled[output.name] = by_split(~known)
        present = np.nan_to_num(targets) > 0
        if output.kind == "classes":
            present = (np.nan_to_num(targets).argmax(1)[:, None] == np.arange(len(output.names))) & known[:, None]
        counts[output.name] = {name: by_split(present[:, i]) for i, name in enumerate(output.names)}
    width, height = dataset.column("width"), dataset.column("height")
    shapes, times = np.unique(width.astype(np.int64) << 32 | height, return_counts=True)
    often = np.argsort(-times, kind="stable")
    sizes = {f"{shapes[i] >> 32}x{shapes[i] & 0xFFFFFFFF}": int(times[i]) for i in often}
    return Statistics(splits, counts, unlabelled, sizes, np.minimum(width, height))


def coverage(dataset: Dataset, split: str, epochs: int, batch: int, seed: int) -> list[dict[int, int]]:
    """Return, for each epoch: how often a sample came -> how many samples came so often. {1: N} is each sample exactly once."""
    rows = dataset.rows(split)
    order = Order(rows, seed=seed, batch=batch)
    stream = np.concatenate([order.step(k)[0] for k in range(order.first_step_of(epochs))])
    counts = []
    for epoch in range(epochs):
        came = np.bincount(stream[epoch * len(rows) : (epoch + 1) * len(rows)], minlength=dataset.info.num_samples)[rows]
        times, samples = np.unique(came, return_counts=True)
        counts.append(dict(zip(times.tolist(), samples.tolist(), strict=True)))
    return counts


def rows_by_source(dataset: Dataset, rows: np.ndarray) -> dict[str, int]:
    """Source -> how many of these rows are from it, where any is."""
    codes, names = dataset.coded("source")
    counts = np.bincount(codes[rows] + 1, minlength=len(names) + 1)[1:]
    return {name: int(count) for name, count in sorted(zip(names, counts, strict=True)) if count}
