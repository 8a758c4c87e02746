"""The index of a packed dataset: a row for every sample, read a column at a time."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affect.shards.errors import InputError, nearest
from affect.shards.schema import INDEX, INFO, DatasetInfo


class Index:
    """The rows of `index.parquet`, one per sample. Columns are read when they are asked for; threads may share it."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.info = DatasetInfo.read(self.folder)
        self._reading = threading.Lock()  # two threads in one Parquet file crash the process
        self._columns: dict[str, np.ndarray] = {}
        self._listed: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def index_sha256(self) -> str:
        """Identifies the dataset."""
        return self.info.files[INDEX].sha256

    @cached_property
    def _file(self) -> pq.ParquetFile:
        try:
            file = pq.ParquetFile(self.folder / INDEX, memory_map=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{self.folder / INDEX}: damaged ({error}). Run: affect verify {self.folder}") from error

        if (rows := file.metadata.num_rows) != self.info.num_samples:
            raise InputError(
                f"{self.folder / INFO}: counts add up to {self.info.num_samples} samples, {INDEX} has {rows}. "
                f"Run: affect verify {self.folder}; then pack it anew"
            )
        return file

    def table(self, columns: list[str]) -> pa.Table:
        """Columns of the index as Arrow, one row per sample."""
        self._check_columns(columns)
        try:
            with self._reading:
                return self._file.read(columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{self.folder / INDEX}: damaged ({error}). Run: affect verify {self.folder}") from error

    def _check_columns(self, columns: list[str]) -> None:
        for column in columns:
            if not self.has(column):
                raise InputError(f"{self.folder}: no column {column!r}{nearest(column, self.names)}")

    def column(self, name: str) -> np.ndarray:
        """(N,) values of one index column; text comes as objects, `offset`, `size` and `time_s` as those of the first frame."""
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
        """(N,) int32 codes of a text column, -1 where it is empty, and the text of each code."""
        values = self.table([name]).column(0)
        if not pa.types.is_dictionary(values.type):
            values = values.dictionary_encode()
        codes, texts = codes_of(values)
        return codes, texts.to_pylist()

    def is_text(self, name: str) -> bool:
        """Return whether an index column holds text. Raises InputError where there is no such column."""
        self._check_columns([name])
        kind = self._file.schema_arrow.field(name).type
        return pa.types.is_dictionary(kind) or pa.types.is_string(kind)

    def has(self, name: str) -> bool:
        """Return whether there is such an index column."""
        return name in self.names

    @property
    def names(self) -> list[str]:
        """The names of the index columns."""
        return self._file.schema_arrow.names

    def places(self, sample: int) -> tuple[np.ndarray, np.ndarray]:
        """(T,) int64 offsets in the tar and sizes of the image members, in the order of the frames."""
        starts, offsets = self._lists("offset")
        frames = slice(starts[sample], starts[sample + 1])
        return offsets[frames], self._lists("size")[1][frames]

    def times_s(self, sample: int) -> np.ndarray:
        """(T,) float32 seconds of each frame in its recording; (0,) of a picture."""
        if not self.has("time_s"):
            return np.zeros(0, np.float32)
        starts, times = self._lists("time_s")
        return times[starts[sample] : starts[sample + 1]]

    def _lists(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(N + 1,) where each sample's values begin, and all values, of a column of lists."""
        if name not in self._listed:
            values = self.table([name]).column(0)
            starts = np.concatenate([[0], np.cumsum(pc.list_value_length(values).to_numpy())])
            self._listed[name] = starts, pc.list_flatten(values).to_numpy()
        return self._listed[name]


def codes_of(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return (N,) int32 codes of a dictionary-encoded column, -1 where it is empty, and the values of the codes."""
    values = values.unify_dictionaries().combine_chunks()
    return np.from_dlpack(values.indices.fill_null(-1)), values.dictionary  # to_numpy would import pandas: 0.5 s
