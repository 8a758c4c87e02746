"""Reading by index: any sample of any shard by its number, without unpacking."""

from __future__ import annotations

import mmap
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affect.shards.errors import InputError, first, nearest
from affect.shards.schema import INDEX, DatasetInfo
from affect.shards.select import Selection, select


class Dataset:
    """A packed dataset, opened: `info`, columns of the index, and the bytes of any picture.

    Columns are read when they are asked for; tars are mapped into memory when a sample of theirs is.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.info = DatasetInfo.read(self.folder)
        self._check_files()
        self._columns: dict[str, np.ndarray] = {}
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

    @property
    def index_sha256(self) -> str:
        """What tells this dataset from every other."""
        return self.info.files[INDEX].sha256

    @cached_property
    def _index(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.folder / INDEX, memory_map=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{self.folder / INDEX}: damaged ({error}). Run: affect verify {self.folder}") from error

    def table(self, columns: list[str]) -> pa.Table:
        """Columns of the index as Arrow, one row per sample."""
        self._check_columns(columns)
        try:
            return self._index.read(columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{self.folder / INDEX}: damaged ({error}). Run: affect verify {self.folder}") from error

    def _check_columns(self, columns: list[str]) -> None:
        for column in columns:
            if not self.has(column):
                raise InputError(f"{self.folder}: no column {column!r}{nearest(column, self.names)}")

    def column(self, name: str) -> np.ndarray:
        """(N,) values of one index column; text comes as objects, `offset` and `size` as those of the first image member."""
        if name not in self._columns:
            values = self.table([name]).column(0)
            if pa.types.is_list(values.type):
                values = pc.list_element(values, 0)
            if pa.types.is_dictionary(values.type):
                codes, names = self.coded(name)
                self._columns[name] = np.array([*names, None], object)[codes]  # -1 is the last
            else:
                self._columns[name] = values.to_numpy()
        return self._columns[name]

    def targets(self, output: str) -> np.ndarray:
        """(N, len(names)) float32 of one output of the layout; NaN where a sample is not labelled."""
        columns = self.info.layout.output(output).columns
        values = np.empty((self.info.num_samples, len(columns)), np.float32)
        for i, column in enumerate(columns):
            values[:, i] = self.table([column]).column(0).to_numpy()
        return values

    def coded(self, name: str) -> tuple[np.ndarray, list[str]]:
        """(N,) int32 codes of a text column, -1 where it is empty, and the texts they stand for."""
        values = self.table([name]).column(0)
        if not pa.types.is_dictionary(values.type):
            values = values.dictionary_encode()
        codes, texts = codes_of(values)
        return codes, texts.to_pylist()

    def is_text(self, name: str) -> bool:
        """Whether an index column holds text. Raises InputError where there is no such column."""
        self._check_columns([name])
        kind = self._index.schema_arrow.field(name).type
        return pa.types.is_dictionary(kind) or pa.types.is_string(kind)

    def has(self, name: str) -> bool:
        """Whether there is such an index column."""
        return name in self.names

    @property
    def names(self) -> list[str]:
        """Of the index columns."""
        return self._index.schema_arrow.names

    def rows(self, wanted: Selection | str) -> np.ndarray:
        """The sample numbers of a selection or a whole split, ascending. Raises InputError where there is none."""
        return select(self, Selection(wanted) if isinstance(wanted, str) else wanted)

    @cached_property
    def _shard(self) -> tuple[np.ndarray, list[str]]:
        return self.coded("shard")

    def image(self, sample: int) -> np.ndarray:
        """The encoded bytes of a picture, (n,) uint8, as a view into the tar."""
        codes, names = self._shard
        code = int(codes[sample])
        tar = self._maps.get(code)
        if tar is None:
            with (self.folder / names[code]).open("rb") as stream:
                tar = self._maps[code] = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        offset = int(self.column("offset")[sample])
        return np.frombuffer(tar, np.uint8, count=int(self.column("size")[sample]), offset=offset)


def codes_of(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """(N,) int32 codes of a dictionary-encoded column, -1 where it is empty, and what they stand for."""
    values = values.unify_dictionaries().combine_chunks()
    return np.from_dlpack(values.indices.fill_null(-1)), values.dictionary  # to_numpy would import pandas: 0.5 s
