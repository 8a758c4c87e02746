"""Reads CSV tables: columns by their aliases, numbered lines, messages on cells."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from affect.shards.errors import InputError, nearest

PATHS = ("image_path", "path", "img", "file", "filepath", "filename")  # of each group, the first that is there is read
NAMES = ("label_name", "class_name", "label_str")
LABELS = ("label", "label_id", "cls", "class", "target", "y")  # names or ids
BOX = ("bbox_top", "bbox_left", "bbox_bottom", "bbox_right")
DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}


@dataclass
class Row:
    """A line of a CSV: its cells by column, and what is wrong with them."""

    table: Table
    line: int
    cells: dict[str, str]
    wrong: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"{self.table.path}:{self.line}"

    def number(self, column: str, fits: Callable[[float], bool], expected: str) -> float:
        """Return the number in a column; 1 where there is no such column."""
        if column not in self.cells:
            return 1.0
        value = as_number(self.cells[column])
        if value is None or not fits(value):
            self.wrong.append(f"{column}: found {self.cells[column]!r}, expected {expected}")
        return value if value is not None else math.nan


@dataclass(frozen=True)
class Table:
    """A CSV with the columns of picture and label."""

    path: Path
    delimiter: str
    columns: tuple[str, ...]  # in small letters
    image: str
    label: str | None
    name: str | None

    @classmethod
    def open(cls, path: Path, delimiter: str) -> Table:
        columns = header(path, delimiter, (PATHS[0], LABELS[0]), "picture")
        image, label, name = (next((c for c in group if c in columns), None) for group in (PATHS, LABELS, NAMES))
        if image is None:
            raise InputError(_no_column(path, columns, "path of the picture", PATHS))
        if label is None and name is None:
            raise InputError(_no_column(path, columns, "label", LABELS + NAMES))
        lacking = [column for column in BOX if column not in columns]
        if 0 < len(lacking) < len(BOX):
            raise InputError(f"{path}: no column {lacking[0]!r}; a box has all of {', '.join(BOX)}")
        return cls(path, delimiter, columns, image, label, name)

    def rows(self) -> Iterator[Row]:
        numbered = lines(self.path, self.delimiter)
        next(numbered)
        for line, cells in numbered:
            row = Row(self, line, dict(zip(self.columns, cells, strict=False)))
            if len(cells) != len(self.columns):
                row.wrong.append(f"found {len(cells)} columns, expected {len(self.columns)}")
            elif tuple(cell.casefold() for cell in cells) == self.columns:
                row.wrong.append("found the header again, expected a row")
            yield row


def header(path: Path, delimiter: str, example: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Return the columns, in small letters, each once. example, what: for messages. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV with a header, {','.join(example)},...")
    if len(delimiter) != 1:
        raise InputError(f"--delimiter {delimiter!r}: expected one character, or tab")
    _, cells = next(lines(path, delimiter), (0, []))
    columns = tuple(column.casefold() for column in cells)
    if not columns:
        raise InputError(f"{path}: empty; expected a header, {','.join(example)},..., and a row a {what}")
    for other, spelled in DELIMITERS.items():
        if len(columns) == 1 and other != delimiter and other in columns[0]:
            asked = DELIMITERS.get(delimiter, repr(delimiter))
            raise InputError(f"{path}: found {spelled} between the columns, expected {asked}; pass --delimiter {spelled}")
    twice = [column for column, count in Counter(columns).items() if count > 1 and column]
    if twice:
        raise InputError(f"{path}: the column {twice[0]!r} stands in the header twice; expected each once")
    return columns


def lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells, without the spaces around them, of lines that are not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            try:
                for cells in reader:
                    if any(cell.strip() for cell in cells):
                        yield reader.line_num, [cell.strip() for cell in cells]
            except csv.Error as error:
                raise InputError(f"{path}:{reader.line_num}: not a CSV: {error}") from error
            except UnicodeDecodeError as error:
                where = f"{path}: at or after line {reader.line_num + 1}"
                raise InputError(f"{where}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}") from error


def _no_column(path: Path, columns: tuple[str, ...], what: str, known: tuple[str, ...]) -> str:
    close = next((f" ({column!r}{guess})" for column in columns if (guess := nearest(column, known))), "")
    return f"{path}: no column with the {what}{close}; found {', '.join(columns)}; expected one of {', '.join(known)}"


def as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
