"""Reads faces for evaluation from an npz: FER+ votes, or labels of any classes, as ids, names or distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from affect.shards.checksum import file_sha256
from affect.shards.class_maps import ClassMap, canonical
from affect.shards.errors import InputError, first
from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.sources.ferplus import EMOTION, VOTES, Protocol, distribution, votes_of
from affect.shards.sources.npz import FaceArrays


class NpzSource:
    """One npz as the split test. The shape of its labels tells their kind: (N, 10) votes, (N,) ids or names, (N, C) shares.

    protocol: of votes; default: `votes`. class_map: what ids mean and whose shares they are; default: FER+'s order.
    A label that is not in the class map is left out and counted.
    """

    def __init__(self, path: Path, protocol: Protocol | None = None, class_map: ClassMap | None = None) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected an npz with images and votes or labels")
        self.arrays = arrays = FaceArrays(path)
        self.meta: dict[str, type] = {}
        self.filtered, self.uncovered = Counter[str](), Counter[str]()
        self.names = class_map.names if class_map else EMOTION.names
        self.label_protocol: str = protocol or "votes"
        if arrays.labels.ndim == 2 and arrays.labels.shape[1] == len(VOTES) != len(self.names):
            self.names, votes = EMOTION.names, votes_of(arrays)
            self.targets: Sequence[np.ndarray | str] = [distribution(vote, protocol or "votes") for vote in votes]
        else:
            if protocol == "majority-official":
                raise InputError(f"{path}: no votes (N, 10) to take a majority of; leave --label-protocol out")
            self.label_protocol = "hard" if arrays.labels.ndim == 1 else "votes"
            self.targets = self._hard(class_map) if arrays.labels.ndim == 1 else self._shares()
        self.layout = TargetLayout((Output("emotion", "classes", tuple(self.names)),))

    @property
    def has_ids(self) -> bool:
        return self.arrays.labels.ndim == 1 and self.arrays.labels.dtype.kind in "iu"

    def samples(self) -> Iterator[Sample]:
        self.filtered.clear()
        columns = self.layout.columns
        for i, (image, target) in enumerate(zip(self.arrays.images(), self.targets, strict=True)):
            if isinstance(target, str):
                self.filtered[target] += 1
                continue
            values = dict(zip(columns, target.tolist(), strict=True))
            yield Sample(image, self.arrays.place(i), "test", values, source=self.arrays.path.stem)

    def fingerprint(self) -> dict[str, str]:
        return {self.arrays.path.name: file_sha256(self.arrays.path)}

    def _hard(self, class_map: ClassMap | None) -> list[np.ndarray | str]:
        """A one-hot row for each label, or the reason why it is left out."""
        labels = self.arrays.labels
        if labels.dtype.kind not in "iuU":
            raise self._wrong("ids, which are whole numbers, or names")
        ids = class_map.ids if class_map else {name: i for i, name in enumerate(self.names)}
        by_id = {number: name for name, number in ids.items()}
        values, place = np.unique(labels, return_inverse=True)
        meant = [canonical(str(value)) if labels.dtype.kind == "U" else by_id.get(int(value), "") for value in values]
        rows: list[np.ndarray | str] = []
        for value, name, count in zip(values, meant, np.bincount(place).tolist(), strict=True):
            if name not in self.names:
                self.uncovered[str(value)] += count
            row = np.eye(len(self.names))[self.names.index(name)] if name in self.names else "label not in the class map"
            rows.append(row)
        return [rows[i] for i in place.tolist()]

    def _shares(self) -> list[np.ndarray | str]:
        """(N, C) counts or shares, each row divided by its sum."""
        labels = self.arrays.labels
        if labels.ndim != 2 or labels.shape[1] != len(self.names) or labels.dtype.kind not in "iuf":
            raise self._wrong(f"ids (N,), votes (N, 10), or shares of {len(self.names)} classes: {', '.join(self.names)}")
        wrong = np.flatnonzero(~(np.isfinite(labels) & (labels >= 0)).all(1))
        if len(wrong):
            raise self._wrong(f"numbers of 0 or more; picture {wrong[0]} has {first(labels[wrong[0]], 10)}")
        return [row / row.sum() if row.any() else "no votes" for row in labels.astype(np.float64)]

    def _wrong(self, expected: str) -> InputError:
        arrays = self.arrays
        return InputError(
            f"{arrays.path}: {arrays.label}: found {arrays.labels.shape} {arrays.labels.dtype}, expected {expected}"
        )
