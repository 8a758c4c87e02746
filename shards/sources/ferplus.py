"""Reads FER+, ten votes a face, from npz files or from the published `fer2013new.csv` beside images.

Source of both protocols: Barsoum et al., Training Deep Networks for Facial Expression Recognition with Crowd-Sourced
Label Distribution, ICMI 2016, and its public code.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from affect.shards.checksum import file_sha256
from affect.shards.errors import InputError
from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.sources.npz import FaceArrays
from affect.shards.sources.pack_command import Argument, Option, pack_command

EMOTION = Output("emotion", "classes", ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"))
VOTES = (*EMOTION.names, "unknown", "NF")  # NF: not a face
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
FOLDERS = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
Protocol = Literal["votes", "majority-official"]


def distribution(votes: np.ndarray, protocol: Protocol) -> np.ndarray | str:
    """Return the target of one face, or the reason why the protocol leaves it out.

    votes: (10,) counts in the order of VOTES.
    Returns: (8,) float64 that sums to 1.
      `votes`: the first eight, normalised; out if unknown or NF leads.
      `majority-official`: single votes are removed first; out unless one of the eight has more than half of the rest; one-hot.
    """
    if protocol == "votes":
        if votes.sum() == 0:
            return "no votes"
        if votes.argmax() >= len(EMOTION.names):
            return f"top vote is {VOTES[votes.argmax()]}"
        return votes[:8] / votes[:8].sum()
    counted = np.where(votes > 1, votes, 0)
    top = int(counted.argmax())
    if counted.sum() == 0 or counted[top] <= counted.sum() / 2:
        return "no majority"
    return f"majority is {VOTES[top]}" if top >= len(EMOTION.names) else np.eye(8)[top]


class FerPlusSource:
    """`sources`: npz files (split by `train`, `valid`, `test` in the name, or written `val=FILE`), or one CSV and its folder."""

    def __init__(self, sources: Sequence[str], protocol: Protocol = "votes") -> None:
        self.label_protocol: str = protocol
        self.protocol: Protocol = protocol
        self.meta: dict[str, type] = {"fer2013": str}
        self.layout, self.filtered = TargetLayout((EMOTION,)), Counter[str]()
        paths = [s for s in sources if s.endswith(".csv")]
        if paths:
            if len(paths) != 1 or len(sources) != 2 or not Path(next(s for s in sources if s not in paths)).is_dir():
                raise InputError(f"{' '.join(sources)}: expected one fer2013new.csv and the folder of its images")
            self.csv: Path | None = Path(paths[0])
            self.images = Path(next(s for s in sources if s not in paths))
            self.files = [self.csv]
        else:
            self.csv, self.archives = None, [_split_of(s) for s in sources]
            self.files = [path for _, path in self.archives]
        for path in self.files:
            if not path.is_file():
                raise InputError(f"{path}: no such file; expected a FER+ .npz, or fer2013new.csv and a folder of images")

    def samples(self) -> Iterator[Sample]:
        self.filtered.clear()
        if self.csv:
            yield from self._from_csv(self.csv)
        else:
            for split, path in self.archives:
                yield from self._from_npz(split, path)

    def _sample(self, image: Path | np.ndarray, path: str, split: str, votes: np.ndarray, fer2013: str) -> Sample | None:
        target = distribution(votes, self.protocol)
        if isinstance(target, str):
            self.filtered[target] += 1
            return None
        meta: dict[str, str | float] = {"fer2013": fer2013} if fer2013 else {}
        return Sample(image, path, split, dict(zip(EMOTION.columns, target.tolist(), strict=True)), source="ferplus", meta=meta)

    def _from_npz(self, split: str, path: Path) -> Iterator[Sample]:
        arrays = FaceArrays(path)
        for i, (image, vote) in enumerate(zip(arrays.images(), votes_of(arrays), strict=True)):
            fer2013 = "" if arrays.fer2013 is None else str(arrays.fer2013[i])
            sample = self._sample(image, arrays.place(i), split, vote, fer2013)
            if sample:
                yield sample

    def _from_csv(self, path: Path) -> Iterator[Sample]:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            missing = [c for c in ("Usage", "Image name", *VOTES) if c not in (table.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: no column {missing[0]!r}; expected Usage, Image name, {', '.join(VOTES)}")
            for line, row in enumerate(table, start=2):
                sample = self._csv_row(path, line, row)
                if sample:
                    yield sample

    def _csv_row(self, path: Path, line: int, row: dict[str, str]) -> Sample | None:
        if row["Usage"] not in USAGES:
            raise InputError(f"{path}:{line}: Usage {row['Usage']!r}; expected one of {', '.join(USAGES)}")
        try:
            votes = np.array([int(row[name]) for name in VOTES])
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}:{line}: the votes are not ten whole numbers") from error
        if not row["Image name"]:  # the published file has rows without a picture
            self.filtered["no image name"] += 1
            return None
        split, name = USAGES[row["Usage"]], row["Image name"]
        nested = self.images / FOLDERS[split] / name
        return self._sample(nested if nested.exists() else self.images / name, name, split, votes, "")

    def fingerprint(self) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in self.files}


def _split_of(source: str) -> tuple[str, Path]:
    """`val=FILE`, or a FILE whose name holds train, valid or test."""
    split, equals, name = source.partition("=")
    if equals and split in FOLDERS:
        return split, Path(name)
    path = Path(source)
    for word, split in {"train": "train", "val": "val", "test": "test"}.items():
        if word in path.stem.lower():
            return split, path
    raise InputError(f"{source}: its name holds none of train, valid, test; write the split before it: val={source}")


def votes_of(arrays: FaceArrays) -> np.ndarray:
    """Return (N, 10) counts of an npz. Raises InputError where it has other labels."""
    path, votes = arrays.path, arrays.labels
    if votes.ndim != 2 or votes.shape[1] != 10 or votes.dtype.kind not in "iuf":
        actual = f"{arrays.label}: found {votes.shape} {votes.dtype}"
        raise InputError(f"{path}: {actual}, expected votes (N, 10): {', '.join(VOTES)}")
    if arrays.vote_names not in (None, VOTES):
        raise InputError(f"{path}: vote_names are {', '.join(arrays.vote_names)}; expected the order {', '.join(VOTES)}")
    return votes


@pack_command("ferplus")
def ferplus_source(
    sources: Annotated[list[str], Argument("npz files, or fer2013new.csv and the folder of its images")],
    label_protocol: Annotated[Protocol, Option("how votes become a label")] = "votes",
) -> FerPlusSource:
    """FER+: ten votes a face."""
    return FerPlusSource(sources, label_protocol)
