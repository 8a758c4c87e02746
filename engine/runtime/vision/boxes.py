"""Boxes of subjects in a picture, and boxes known beforehand: from the caller, a CSV, or DeepLabCut."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from affect.shards.errors import InputError

COLUMNS = ("frame", "x", "y", "w", "h")
DLC_HEADERS = ("scorer", "individuals", "bodyparts", "coords")
LIKELY = 0.6  # a DeepLabCut point counts above this likelihood
DLC_MARGIN = 0.2  # around its points, as a share of the longer side


@dataclass(frozen=True, eq=False)
class Box:
    """A subject's place in a picture.

    x, y: of the top left corner; w, h: all in pixels, also outside of the picture. score: 0..1.

    points: (5, 2) float32 x, y of the right eye, the left eye, the nose, the right and the left corner of the mouth of
    the person, or None.
    """

    x: float
    y: float
    w: float
    h: float
    score: float = 1.0
    points: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def at(cls, place: Iterable[float], score: float = 1.0, points: np.ndarray | None = None) -> Box:
        """place: x, y, w, h, as plain or NumPy numbers."""
        x, y, w, h = map(float, place)
        return cls(x, y, w, h, score, points)

    @property
    def tuple(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.w, self.h

    def iou(self, other: Box) -> float:
        """Shared area over joint area, 0..1."""
        width = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        height = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / max(self.w * self.h + other.w * other.h - shared, 1e-9)


class Detector(Protocol):
    """Finds subjects. One detector serves one thread."""

    def detect(self, image: np.ndarray, number: int = 0) -> list[Box]:
        """Return boxes, best first, of an (H, W, 3) uint8 RGB picture. number: of the frame in its source, from 0."""
        ...


class Listed:
    """A detector of boxes known beforehand: frame number -> boxes. A frame that is not listed has none."""

    def __init__(self, boxes: Mapping[int, Sequence[Box]]) -> None:
        self.boxes = boxes

    def detect(self, image: np.ndarray, number: int = 0) -> list[Box]:
        return list(self.boxes.get(number, ()))


def read_boxes(path: Path, margin: float = DLC_MARGIN) -> Listed:
    """Read a CSV with the columns frame, x, y, w, h and perhaps score, or one of DeepLabCut.

    DeepLabCut: three header rows, or four with several animals; each animal's box holds its points of a likelihood above
    LIKELY, and `margin` of the longer side around them. Raises InputError with the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV with {', '.join(COLUMNS)}, or one of DeepLabCut")
    lines = _lines(path)
    _, header = next(lines, (0, [""]))
    if header[0].strip().casefold() == DLC_HEADERS[0]:
        return Listed(_deeplabcut(path, lines, margin))
    return Listed(_plain(path, [name.strip().casefold() for name in header], lines))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            yield from ((reader.line_num, line) for line in reader if any(line))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as a CSV ({error}); save it as comma-separated UTF-8") from error


def _plain(path: Path, header: list[str], lines: Iterator[tuple[int, list[str]]]) -> dict[int, list[Box]]:
    lacking = [name for name in COLUMNS if name not in header]
    if lacking:
        raise InputError(f"{path}: no column {lacking[0]!r} in {', '.join(header)!r}; expected {', '.join(COLUMNS)}[, score]")
    columns = [header.index(name) for name in COLUMNS]
    score = next((header.index(name) for name in ("score", "det_score") if name in header), None)
    boxes: defaultdict[int, list[Box]] = defaultdict(list)
    for line, cells in lines:
        if all(not cells[column].strip() for column in columns[1:] if column < len(cells)):
            continue  # a frame without a subject
        frame, *place = (_number(path, line, cells, column, header[column]) for column in columns)
        if place[2] <= 0 or place[3] <= 0:
            raise InputError(f"{path}:{line}: found a box of {place[2]:g} x {place[3]:g}; expected w and h above 0")
        scored = score is not None and score < len(cells) and cells[score].strip()
        boxes[int(frame)].append(Box.at(place, _number(path, line, cells, score, "score") if scored and score else 1.0))
    return dict(boxes)


def _deeplabcut(path: Path, lines: Iterator[tuple[int, list[str]]], margin: float) -> dict[int, list[Box]]:
    headers: dict[str, list[str]] = {}
    for line, cells in lines:
        kind = cells[0].strip().casefold()
        if kind not in DLC_HEADERS:
            raise InputError(f"{path}:{line}: found {cells[0]!r}; expected the header rows {', '.join(DLC_HEADERS)}")
        headers[kind] = cells
        if kind == "coords":
            break
    animals = _animals(path, headers)
    boxes: dict[int, list[Box]] = {}
    for line, cells in lines:
        frame = int(_number(path, line, cells, 0, "frame"))
        places = (_around(path, line, cells, parts, margin) for parts in animals)
        boxes[frame] = [place for place in places if place is not None]
    return boxes


def _animals(path: Path, headers: dict[str, list[str]]) -> list[list[tuple[int, int, int]]]:
    """Return for each animal the columns of x, y and likelihood of each of its points."""
    if "bodyparts" not in headers or "coords" not in headers:
        raise InputError(f"{path}: DeepLabCut's header rows end early; expected scorer, [individuals,] bodyparts, coords")
    parts, coords = headers["bodyparts"], headers["coords"]
    names = headers.get("individuals", ["animal"] * len(parts))
    columns: defaultdict[str, defaultdict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for column in range(1, len(coords)):
        columns[names[column]][parts[column]][coords[column]] = column
    try:
        return [[(at["x"], at["y"], at["likelihood"]) for at in points.values()] for points in columns.values()]
    except KeyError as error:
        raise InputError(f"{path}: a body part without {error.args[0]}; expected x, y and likelihood of each") from error


def _around(path: Path, line: int, cells: list[str], parts: list[tuple[int, int, int]], margin: float) -> Box | None:
    """Return the box of an animal, or None where fewer than two of its points are likely."""
    points = []
    for part in parts:
        if all(column < len(cells) and cells[column].strip() for column in part):  # DeepLabCut leaves a missing point empty
            points.append([_number(path, line, cells, column, "a point") for column in part])
    likely = np.array([point for point in points if point[2] > LIKELY])
    if len(likely) < 2:
        return None
    (left, top), (right, bottom) = likely[:, :2].min(0), likely[:, :2].max(0)
    room = margin * max(right - left, bottom - top)
    side = right - left + 2 * room, bottom - top + 2 * room
    return Box(float(left - room), float(top - room), float(side[0]), float(side[1]), float(likely[:, 2].mean()))


def _number(path: Path, line: int, cells: list[str], column: int, name: str) -> float:
    cell = cells[column] if column < len(cells) else ""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}:{line}: {name}: found {cell!r}; expected a number")
    return value
