"""Writes the predictions of clip models, of recordings and of streams, as clips.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from affect.engine.runtime.clip_engine import ClipEngine
from affect.engine.runtime.clip_reader import ClipReader
from affect.engine.runtime.results import Clip, columns_of, main_output, values_of
from affect.engine.runtime.side_signals import Side, signals_by_package
from affect.engine.runtime.sources.stream import Source
from affect.engine.runtime.vision.subject import FULL, Search
from affect.engine.runtime.writers.partial_file import Flush, finish_file, open_file, writing
from affect.engine.system.folder_lock import lock_folder
from affect.shards.errors import InputError

CLIPS = "clips.csv"
FIXED = ["package", "source", "track", "start_s", "end_s", "label", "sure"]


def run_clips(
    engines: Sequence[ClipEngine],
    source: Source,
    out: Path,
    *,
    hop: int | None = None,
    search: Search = FULL,
    side: Side | None = None,
) -> int:
    """Write a row for each package and clip of a source to `out`/clips.csv; return their number.

    The clips of a recording, a file or a folder of its frames, are those of training. hop: instead windows that slide by so
    many frames, over all packages at once, as a live source is always read. Times are seconds of the first and the last frame
    that the model saw. side: signals beside the recording, by name; each package takes those that it knows. Interrupted, the
    file holds the rows so far; a source that gives no clip leaves no file.
    """
    if source.live or hop is not None:
        with ClipReader(engines, source, search, hop or 1, side) as reader:
            return _write(engines, reader, source, out)
    return _write(engines, _whole(engines, source, side), source, out)


def _whole(engines: Sequence[ClipEngine], source: Source, side: Side | None) -> Iterator[Clip]:
    path, name = Path(source.name).expanduser(), engines[0].name
    if not path.exists():
        raise InputError(f"{source.name}: {name} sees clips of a recording; expected a video file or a folder of its frames")
    if path.is_file() and not source.moving:
        raise InputError(
            f"{path}: a single picture, and {name} sees clips; expected a video file, or a folder that holds the frames of one "
            "recording in order"
        )
    signals = signals_by_package([engine.package for engine in engines], side)
    for engine, values in zip(engines, signals, strict=True):
        yield from engine.predict(path, side=values)


def _write(engines: Sequence[ClipEngine], clips: Iterator[Clip] | ClipReader, source: Source, out: Path) -> int:
    columns, name = list(dict.fromkeys(column for engine in engines for column in columns_of(engine.package))), source.name
    rows, path = (_row(clip, Path(name).name or name, columns) for clip in clips), out / CLIPS
    first = next(rows, None)
    if first is None:
        raise InputError(f"{name}: too short for a clip of {', '.join(engine.name for engine in engines)}")
    with lock_folder(out):
        count, file = 1, open_file(path)
        flush = Flush(path, file)
        try:
            table = csv.writer(file, lineterminator="\n")
            writing(path, table.writerows, [[*FIXED, *columns], first])
            for row in rows:
                writing(path, table.writerow, row)
                flush()
                count += 1
        finally:
            finish_file(path, file)
    return count


def _row(clip: Clip, source: str, columns: list[str]) -> list[object]:
    ((package, outputs),) = clip.outputs.items()
    values, main = values_of(outputs), main_output(outputs)
    label = ["+".join(main.labels), main.sure] if main else ["", ""]
    cells = [f"{values[column]:.4f}" if column in values else "" for column in columns]
    track = "" if clip.track is None else clip.track
    return [package, source, track, f"{clip.start_s:.4f}", f"{clip.end_s:.4f}", *label, *cells]
