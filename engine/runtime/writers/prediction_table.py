"""Results as tables: predictions.csv and .parquet, events.csv. Written row by row, in constant memory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from affect.engine.runtime.result_row import Row
from affect.engine.runtime.smoothing import Event
from affect.engine.runtime.writers.partial_file import Flush, finish_file, make_folder, open_file, partial_of, writing
from affect.shards.errors import InputError

PREDICTIONS, EVENTS = "predictions", "events.csv"
GROUP = 4096  # rows a row group
FIXED: dict[str, tuple[pa.DataType, str]] = {  # the columns of every row, each with its type and how the CSV writes it
    "package": (pa.string(), "{}"),
    "frame": (pa.int64(), "{}"),
    "time_s": (pa.float64(), "{:.4f}"),
    "source": (pa.string(), "{}"),
    "face": (pa.int32(), "{}"),
    "track": (pa.int64(), "{}"),
    "x": (pa.float32(), "{:.1f}"),
    "y": (pa.float32(), "{:.1f}"),
    "w": (pa.float32(), "{:.1f}"),
    "h": (pa.float32(), "{:.1f}"),
    "det_score": (pa.float32(), "{:.3f}"),
    "face_px": (pa.float32(), "{:.0f}"),
    "blur": (pa.float32(), "{:.1f}"),
    "label": (pa.string(), "{}"),
    "sure": (pa.bool_(), "{}"),
}
VALUE, SET = (pa.float32(), "{:.4f}"), (pa.string(), "{}")


class Predictions:
    """`folder`/predictions.csv and predictions.parquet, row by row.

        with Predictions(folder, ["emotion.neutral", ...]) as table:
            table.write(rows)

    columns: `<output>.<name>` of all packages. sets: `<output>.set` of those that have one, the last columns. Both files are
    hidden and called `.partial` until they are closed; whatever ends the block, the rows written so far stay, and a kill leaves
    those of the hidden CSV but for its last second. Raises InputError where the disk is full.
    """

    def __init__(self, folder: Path, columns: Sequence[str], parquet: bool = True, sets: Sequence[str] = ()) -> None:
        names = [*columns, *sets]
        twice = {name for name in names if name in FIXED or names.count(name) > 1}
        if twice:
            raise InputError(f"{folder}: two columns {sorted(twice)[0]!r}; packages run together need outputs of different names")
        make_folder(folder)
        self.columns, self.sets, self.rows = tuple(columns), tuple(sets), 0
        self.paths = [folder / f"{PREDICTIONS}.csv", *([folder / f"{PREDICTIONS}.parquet"] if parquet else [])]
        self._kinds = [*FIXED.values(), *[VALUE] * len(columns), *[SET] * len(sets)]
        self._formats: list[Callable[..., str]] = [text.format for _, text in self._kinds]
        self._schema = pa.schema(list(zip([*FIXED, *names], [kind for kind, _ in self._kinds], strict=True)))
        self._waiting: list[list[Any]] = []
        self._file = open_file(self.paths[0])
        self._flush_csv = Flush(self.paths[0], self._file)
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(self._schema.names)
        self._parquet: pq.ParquetWriter | None = None
        if parquet:
            try:
                self._parquet = writing(self.paths[1], pq.ParquetWriter, partial_of(self.paths[1]), self._schema)
            except InputError:
                partial_of(self.paths[1]).unlink(missing_ok=True)
                self.close()
                raise

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            cells = row.cells(self.columns, self.sets)
            texts = ["" if cell is None else text(cell) for text, cell in zip(self._formats, cells, strict=True)]
            writing(self.paths[0], self._csv.writerow, texts)
            self.rows += 1
            if self._parquet is not None:
                self._waiting.append(cells)
                if len(self._waiting) >= GROUP:
                    self._flush()
        self._flush_csv()

    def _flush(self) -> None:
        columns = zip(*self._waiting, strict=True)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._waiting = []
        assert self._parquet is not None
        writing(self.paths[1], self._parquet.write_batch, pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """May be called twice. The CSV stays with the rows written so far; a Parquet file without its end is removed."""
        if self._file.closed:
            return
        try:
            finish_file(self.paths[0], self._file)
        finally:
            self._close_parquet()

    def _close_parquet(self) -> None:
        if self._parquet is None:
            return
        try:
            if self._waiting:
                self._flush()
            writing(self.paths[1], self._parquet.close)
            partial_of(self.paths[1]).replace(self.paths[1])
        finally:
            partial_of(self.paths[1]).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class EventTable:
    """`folder`/events.csv: package, track, label, start_s, end_s; an event is written when it ends."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path, self.rows = folder / EVENTS, 0
        self._file = open_file(self.path)
        self._flush = Flush(self.path, self._file)
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(["package", "track", "label", "start_s", "end_s"])

    def write(self, package: str, events: Iterable[Event]) -> None:
        for event in events:
            cells = [package, event.track, event.label, f"{event.start_s:.4f}", f"{event.end_s:.4f}"]
            writing(self.path, self._csv.writerow, cells)
            self.rows += 1
        self._flush()

    def close(self) -> None:
        """May be called twice."""
        if not self._file.closed:
            finish_file(self.path, self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
