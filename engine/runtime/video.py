"""Sources as frames with times, and their answers as rows."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from affect.engine.runtime.frame import BATCH, Engine, Frame, columns_of
from affect.engine.runtime.sources import open_source
from affect.engine.runtime.stream import Stream
from affect.shards.errors import InputError

PREDICTIONS = "predictions.csv"


def frames(source: str | Path) -> Generator[tuple[str, float | None, np.ndarray], None, None]:
    """(name, seconds or None, (H, W, 3) uint8 RGB) of each frame of what `open_source` opens."""
    with Stream(open_source(source)) as stream:
        for shot in stream:
            yield shot.name, shot.time_s, shot.image


def run_source(
    engine: Engine, source: str | Path, out: Path, advance: Callable[[int], None] = lambda count: None
) -> tuple[Path, Counter[str]]:
    """Write a row per frame to `out`/predictions.csv; return its path and the frames of each label.

    Interrupted, it keeps the rows so far.
    """
    counts: Counter[str] = Counter()
    stream = frames(source)
    head = list(islice(stream, 1))  # a source that cannot be read leaves nothing behind
    if not head:
        raise InputError(f"{source}: has no frames")
    out.mkdir(parents=True, exist_ok=True)
    path = out / PREDICTIONS
    partial = path.with_name(f".{path.name}.partial")
    columns = columns_of(engine.package)
    try:
        with partial.open("w", newline="", encoding="utf-8") as file, closing(stream):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["source", "frame", "time_s", "x", "y", "w", "h", "label", "sure", *columns])
            number = 0
            while head:
                names, times, images = zip(*head, strict=True)
                for name, time_s, frame in zip(names, times, engine.predict(images), strict=True):
                    table.writerow(_row(name, number, time_s, frame, counts))
                    number += 1
                advance(len(head))
                head = list(islice(stream, BATCH))
    except KeyboardInterrupt:
        partial.replace(path)
        raise
    partial.replace(path)
    return path, counts


def _row(name: str, number: int, time_s: float | None, frame: Frame, counts: Counter[str]) -> list[object]:
    face = frame.faces[0]
    counts[face.label] += 1
    values = [f"{value:.4f}" for outputs in face.outputs.values() for output in outputs.values() for value in output.values]
    return [name, number, "" if time_s is None else f"{time_s:.4f}", *face.box, face.label, face.sure, *values]
