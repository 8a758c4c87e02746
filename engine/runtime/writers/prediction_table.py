"""Answers as tables: predictions.csv and .parquet, events.csv. Written as they come, in constant memory."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from affect.engine.runtime.smoothing import Event
from affect.shards.errors import InputError

PREDICTIONS, EVENTS = "predictions", "events.csv"
GROUP = 4096  # rows a row group
FIXED: dict[str, tuple[pa.DataType, str]] = {  # column -> its type, and how the CSV writes it
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


@dataclass(frozen=True)
class Row:
    """A frame's face as one package reads it; a frame without a face has only package, frame, time_s and source.

    face: its number in the frame, best detection first. box: x, y, w, h in pixels from the top left. face_px: the shorter
    side of the box. blur: the variance of the Laplacian (`crop.sharpness`): near 0 where blurred. label: of several, joined
    by `+`. values: `<output>.<name>` -> value. sets: `<output>.set` -> the labels of its conformal set, joined by `|`.
    """

    package: str
    frame: int
    time_s: float | None
    source: str
    face: int | None = None
    track: int | None = None
    box: tuple[float, float, float, float] | None = None
    det_score: float | None = None
    blur: float | None = None
    label: str | None = None
    sure: bool | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)

    def cells(self, columns: Sequence[str], sets: Sequence[str] = ()) -> list[Any]:
        """In the order of FIXED, then the values of `columns`, then the `sets`; None where there is nothing."""
        x, y, w, h = self.box or (None,) * 4
        px = None if w is None or h is None else min(w, h)
        place = (self.face, self.track, x, y, w, h, self.det_score, px, self.blur, self.label, self.sure)
        behind = [*(self.values.get(name) for name in columns), *(self.sets.get(name) for name in sets)]
        return [self.package, self.frame, self.time_s, self.source, *place, *behind]


class Predictions:
    """`folder`/predictions.csv and predictions.parquet, row by row.

        with Predictions(folder, ["emotion.neutral", ...]) as table:
            table.write(rows)

    columns: `<output>.<name>` of all packages. sets: `<output>.set` of those that have one, the last columns. Both files bear
    a dot and `.partial` until they are closed; whatever ends the block, the rows written so far are kept. Raises InputError where
    the disk is full.
    """

    def __init__(self, folder: Path, columns: Sequence[str], parquet: bool = True, sets: Sequence[str] = ()) -> None:
        given = [*columns, *sets]
        twice = {name for name in given if name in FIXED or given.count(name) > 1}
        if twice:
            raise InputError(f"{folder}: two columns {sorted(twice)[0]!r}; packages run together need outputs of different names")
        made(folder)
        self.columns, self.sets, self.rows = tuple(columns), tuple(sets), 0
        self.paths = [folder / f"{PREDICTIONS}.csv", *([folder / f"{PREDICTIONS}.parquet"] if parquet else [])]
        self._kinds = [*FIXED.values(), *[VALUE] * len(columns), *[SET] * len(sets)]
        self._formats: list[Callable[..., str]] = [text.format for _, text in self._kinds]
        self._schema = pa.schema(list(zip([*FIXED, *given], [kind for kind, _ in self._kinds], strict=True)))
        self._waiting: list[list[Any]] = []
        self._file = opened(self.paths[0])
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(self._schema.names)
        self._parquet: pq.ParquetWriter | None = None
        if parquet:
            try:
                self._parquet = kept(self.paths[1], pq.ParquetWriter, partial_of(self.paths[1]), self._schema)
            except InputError:
                partial_of(self.paths[1]).unlink(missing_ok=True)
                self.close()
                raise

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            cells = row.cells(self.columns, self.sets)
            texts = ["" if cell is None else text(cell) for text, cell in zip(self._formats, cells, strict=True)]
            kept(self.paths[0], self._csv.writerow, texts)
            self.rows += 1
            if self._parquet is not None:
                self._waiting.append(cells)
                if len(self._waiting) >= GROUP:
                    self._flush()

    def _flush(self) -> None:
        columns = zip(*self._waiting, strict=True)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._waiting = []
        assert self._parquet is not None
        kept(self.paths[1], self._parquet.write_batch, pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """May be called twice. The CSV is kept with the rows that went in; a Parquet file without its end is removed."""
        if self._file.closed:
            return
        try:
            ended(self.paths[0], self._file)
        finally:
            self._close_parquet()

    def _close_parquet(self) -> None:
        if self._parquet is None:
            return
        try:
            if self._waiting:
                self._flush()
            kept(self.paths[1], self._parquet.close)
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
        made(folder)
        self.path, self.rows = folder / EVENTS, 0
        self._file = opened(self.path)
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(["package", "track", "label", "start_s", "end_s"])

    def write(self, package: str, events: Iterable[Event]) -> None:
        for event in events:
            cells = [package, event.track, event.label, f"{event.start_s:.4f}", f"{event.end_s:.4f}"]
            kept(self.path, self._csv.writerow, cells)
            self.rows += 1

    def close(self) -> None:
        """May be called twice."""
        if not self._file.closed:
            ended(self.path, self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def made(folder: Path) -> Path:
    """It is there, and may be written to; else an InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"{folder}: no folder can be written there ({error.strerror}); name another: --out DIR") from error
    return folder


def partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def opened(path: Path) -> TextIO:
    file: TextIO = kept(path, lambda: partial_of(path).open("w", newline="", encoding="utf-8"))
    return file


def ended(path: Path, file: TextIO) -> None:
    """Closed, and in place with what went in; where not even the first row did there is no file."""
    try:
        kept(path, file.close)
    finally:
        if partial_of(path).stat().st_size:
            partial_of(path).replace(path)
        else:
            partial_of(path).unlink()


def put(path: Path, write: Callable[[Path], Any]) -> None:
    """A file that is written at once, whole or not at all. Raises InputError where it cannot be."""
    try:
        kept(path, write, path)
    except InputError:
        path.unlink(missing_ok=True)
        raise


def kept(path: Path, write: Callable[..., Any], *given: Any) -> Any:
    try:
        return write(*given)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); make room, or name another --out") from error
