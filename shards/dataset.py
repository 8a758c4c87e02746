"""Reading by index: any sample of any shard by its number, without unpacking."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from affect.shards.errors import InputError, first
from affect.shards.index import Index
from affect.shards.schema import INDEX, INFO
from affect.shards.selection import Selection, select


class Dataset(Index):
    """An opened packed dataset: its index, and the bytes of any picture.

    Tars are mapped into memory when a sample of theirs is read. Threads may share it.
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self._check_files()
        self._maps: dict[int, memoryview] = {}

    def _check_files(self) -> None:
        wrong = []
        for name, fact in self.info.files.items():
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                wrong.append(f"{name}: missing")
            elif size != fact.size:
                wrong.append(f"{name}: {size} bytes, expected {fact.size}")
        if wrong:
            raise InputError(
                f"{self.folder}: not as it was packed:\n{first(wrong)}\nRun: affect verify {self.folder}; then pack it anew"
            )

    def rows(self, wanted: Selection | str) -> np.ndarray:
        """The sample numbers of a selection or a whole split, ascending. Raises InputError where there is none."""
        return select(self, Selection(wanted) if isinstance(wanted, str) else wanted)

    def coded(self, name: str) -> tuple[np.ndarray, list[str]]:
        """As of an index. Raises InputError where a shard is named that is not of the dataset, so no other file is opened."""
        codes, texts = super().coded(name)
        if name == "shard" and (other := [text for text in texts if text not in self.info.files]):
            raise InputError(
                f"{self.folder / INDEX}: shard: found {other[0]!r}, expected a tar that {INFO} lists. "
                f"Run: affect verify {self.folder}; then pack it anew"
            )
        return codes, texts

    @cached_property
    def _shard(self) -> tuple[np.ndarray, list[str]]:
        return self.coded("shard")

    def image(self, sample: int) -> np.ndarray:
        """The encoded bytes of a picture, (n,) uint8, as a view into the tar; of a clip, those of its first frame."""
        offset, size = int(self.column("offset")[sample]), int(self.column("size")[sample])
        return np.frombuffer(self._tar(sample), np.uint8, count=size, offset=offset)

    def frames(self, sample: int, chosen: Sequence[int] | np.ndarray | None = None) -> list[np.ndarray]:
        """The encoded bytes of a clip's frames, (n,) uint8 each, as views into the tar; a picture is a clip of one.

        chosen: numbers from 0, in any order, repeated or not; default: all, in order. Raises IndexError outside of the clip.
        """
        tar, (offsets, sizes) = self._tar(sample), self.places(sample)
        numbers = range(len(offsets)) if chosen is None else chosen
        return [np.frombuffer(tar, np.uint8, count=sizes[i], offset=offsets[i]) for i in numbers]

    def _tar(self, sample: int) -> memoryview:
        codes, names = self._shard
        code = int(codes[sample])
        tar = self._maps.get(code)
        if tar is None:
            with (self.folder / names[code]).open("rb") as stream:
                tar = self._maps[code] = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        return tar
