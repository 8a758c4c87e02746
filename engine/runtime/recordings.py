"""What models of clips say of recordings, as clips.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from affect.engine.runtime.answers import columns_of, named, values_of
from affect.engine.runtime.clip import ClipEngine
from affect.engine.runtime.stream import Source
from affect.shards.errors import InputError

CLIPS = "clips.csv"
FIXED = ["package", "source", "start_s", "end_s", "label", "sure"]


def run_clips(engines: Sequence[ClipEngine], source: Source, out: Path) -> int:
    """Write a row for each package and clip of a recording, a file or a folder of its frames, to `out`/clips.csv; how many.

    Times are seconds of the first and the last frame that was seen.
    """
    path, name = Path(source.name).expanduser(), engines[0].name
    if source.live or not path.exists():
        raise InputError(f"{source.name}: {name} sees clips of a recording; expected a video file or a folder of its frames")
    if path.is_file() and not source.moving:
        raise InputError(
            f"{path}: a single picture, and {name} sees clips; expected a video file, or a folder that holds the frames of one "
            "recording in order"
        )
    columns = list(dict.fromkeys(column for engine in engines for column in columns_of(engine.package)))
    rows = [row for engine in engines for row in _rows(engine, path, columns)]
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{CLIPS}.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([[*FIXED, *columns], *rows])
    partial.replace(out / CLIPS)
    return len(rows)


def _rows(engine: ClipEngine, path: Path, columns: list[str]) -> list[list[object]]:
    rows: list[list[object]] = []
    for clip in engine.predict(path):
        outputs = clip.outputs[engine.name]
        values, said = values_of(outputs), named(outputs)
        label = ["+".join(said.labels), said.sure] if said else ["", ""]
        cells = [f"{values[column]:.4f}" if column in values else "" for column in columns]
        rows.append([engine.name, path.name, f"{clip.start_s:.4f}", f"{clip.end_s:.4f}", *label, *cells])
    return rows
