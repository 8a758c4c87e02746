"""Reads the table and the folds of the mouse recipe's folder from CSV, JSON or pickle."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect.shards.errors import InputError, first, nearest
from affect.shards.sources.fold_files import read_json
from affect.shards.sources.pickled import Frame, read_pickle
from affect.shards.sources.table import as_number, header, lines

TABLE, FOLD = "dataset_df", re.compile(r"fold_?(\d+)")
COLUMNS = ("image", "video", "mouse", "recording", "treatment", "label")
BOX = ("box_x", "box_y", "box_w", "box_h")
PICKLES = (".pkl", ".pickle", "")
PARTS = ("train", "test")


@dataclass(frozen=True)
class Row:
    """A frame. index: its label in the table, by which folds refer to it. folder: of the table."""

    where: str
    index: Any
    folder: Path
    cells: dict[str, str]


def table_path(folder: Path) -> Path | None:
    """Return the table of a folder; of several the CSV, or else the JSON."""
    paths = (folder / f"{TABLE}{suffix}" for suffix in (".csv", ".json", *PICKLES))
    return next((path for path in paths if path.is_file()), None)


def read_table(folder: Path) -> tuple[Path, list[Row]]:
    """Read the table of a folder. Raises InputError where there is none, or columns are missing."""
    path = table_path(folder)
    if path is None:
        raise InputError(f"{folder}: no {TABLE}.csv, .json or .pkl; expected a table with {', '.join(COLUMNS)}")
    rows = list(_csv(path) if path.suffix == ".csv" else _records(path))
    if not rows:
        raise InputError(f"{path}: found no rows, expected one a frame")
    lacking = [column for column in COLUMNS if column not in rows[0].cells]
    if lacking:
        columns = ", ".join(rows[0].cells)
        raise InputError(f"{path}: no column {lacking[0]!r}{nearest(lacking[0], rows[0].cells)}; found {columns}")
    if 0 < len([column for column in BOX if column not in rows[0].cells]) < len(BOX):
        raise InputError(f"{path}: a box has all of {', '.join(BOX)}")
    wrong = [f"{row.where}: a box of {', '.join(row.cells[c] for c in BOX)}" for row in rows if not _box_fits(row)]
    if wrong:
        raise InputError(f"{path}: expected pixels, box_w and box_h above 0, or four empty cells:\n{first(wrong)}")
    twice = [index for index, count in Counter(row.index for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"{path}: the row label {twice[0]!r} stands twice; folds name rows by it")
    return path, rows


def _csv(path: Path) -> Iterator[Row]:
    """Read a CSV, whose first column without a name is pandas' index."""
    columns = header(path, ",", COLUMNS, "frame")
    numbered = lines(path, ",")
    next(numbered)
    for place, (line, cells) in enumerate(numbered):
        if len(cells) != len(columns):
            raise InputError(f"{path}:{line}: found {len(cells)} columns, expected {len(columns)}")
        row = dict(zip(columns, cells, strict=True))
        number = as_number(row.pop("", str(place)))
        yield Row(f"{path}:{line}", int(number) if number is not None and number.is_integer() else cells[0], path.parent, row)


def _records(path: Path) -> Iterator[Row]:
    frame = _json(path) if path.suffix == ".json" else read_pickle(path)
    if not isinstance(frame, Frame):
        raise InputError(f"{path}: found {type(frame).__name__}, expected a table (a pandas DataFrame)")
    names = {name: name.casefold() for name in frame.columns}
    for place, index in enumerate(frame.index):
        cells = {known: _text(frame.columns[name][place]) for name, known in names.items()}
        yield Row(f"{path}: row {index!r}", index, path.parent, cells)


def _json(path: Path) -> Frame:
    """Read a JSON as pandas writes it: {columns: {row: value}}."""
    form = '{"image": {"0": "a/1.jpg", ...}, ...}, as DataFrame.to_json() writes it'
    value = read_json(path, form)
    columns = {name: rows for name, rows in value.items() if isinstance(rows, dict)}
    if len(columns) < len(value) or not columns:
        raise InputError(f"{path}: expected {form}")
    labels = list(next(iter(columns.values())))
    if other := [name for name, rows in columns.items() if list(rows) != labels]:
        raise InputError(f"{path}: column {other[0]!r} has other rows than {next(iter(columns))!r}")
    index = [int(label) if label.isdecimal() else label for label in labels]
    return Frame({name: list(rows.values()) for name, rows in columns.items()}, index)


def read_folds(folder: Path) -> Iterator[tuple[int, Path, dict[str, list[Any]]]]:
    """Yield (number, file, {train, test}) of each fold, ascending; of two files with one number the JSON."""
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".json", path.name)):
        name = FOLD.fullmatch(path.stem)
        if name and path.is_file() and path.suffix in (".json", *PICKLES):
            files.setdefault(int(name[1]), path)
    for number, path in sorted(files.items()):
        form = "{train: [{indices, label}], test: [...]}"
        value = read_json(path, form) if path.suffix == ".json" else read_pickle(path)
        if not isinstance(value, dict) or not all(isinstance(value.get(part), list | tuple) for part in PARTS):
            raise InputError(f"{path}: found {str(value)[:40]}, expected {form}")
        yield number, path, {part: list(value[part]) for part in PARTS}


def _text(value: Any) -> str:
    """The text of a value as in a CSV; empty where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _box_fits(row: Row) -> bool:
    cells = [row.cells.get(column, "") for column in BOX]
    if not any(cells):
        return True
    x, y, width, height = (math.nan if (value := as_number(cell)) is None else value for cell in cells)
    return math.isfinite(x + y) and 0 < width < math.inf and 0 < height < math.inf
