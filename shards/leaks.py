"""Finds pictures, persons and animals that are in two splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from affect.shards.sample import Sample

OnLeak = Literal["error", "drop-train", "keep"]


@dataclass
class Leak:
    """A picture or group of one split that is also in another."""

    path: str
    split: str
    twin: str
    twin_split: str
    what: str  # same pixels | same group
    dropped: bool


class HeldOut:
    """Remembers the pixels and groups of the held-out splits, and finds them in the others."""

    def __init__(self, on_leak: OnLeak) -> None:
        self.on_leak = on_leak
        self.pixels: dict[bytes, tuple[str, str]] = {}  # sha256 -> path, split
        self.groups: dict[str, tuple[str, str]] = {}

    def check(self, sample: Sample, sha256: bytes) -> Leak | None:
        twin, what = self.pixels.get(sha256), "same pixels"
        if (twin is None or twin[1] == sample.split) and sample.group is not None:
            twin, what = self.groups.get(sample.group), "same group"
        if sample.split != "train":
            self.pixels.setdefault(sha256, (sample.path, sample.split))
            if sample.group is not None:
                self.groups.setdefault(sample.group, (sample.path, sample.split))
        if twin is None or twin[1] == sample.split:
            return None
        dropped = self.on_leak == "drop-train" and sample.split == "train"
        return Leak(sample.path, sample.split, *twin, what, dropped)


def held_out_elsewhere(codes: np.ndarray, held_out: np.ndarray, dataset: np.ndarray) -> np.ndarray:
    """Return (N,): for each row a row with the same code that another dataset holds out, -1 where there is none.

    codes: (N,) int, equal for the same picture or group, -1 for none. held_out: (N,) bool.
    dataset: (N,) the number of each row's dataset, ascending.
    """
    rows, twins = np.flatnonzero(held_out & (codes >= 0)), np.full(len(codes), -1)
    for order in (rows, rows[::-1]):  # if any row of a code is of another dataset, then its last or its first is
        last = np.full(codes.max(initial=-1) + 2, -1)  # by code; the code -1 finds the end, which stays -1
        last[codes[order]] = order
        twin = last[codes]
        twins = np.where((twin >= 0) & (dataset[twin] != dataset), twin, twins)
    return twins
