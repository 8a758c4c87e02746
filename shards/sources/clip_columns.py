"""Columns of a CSV of clips, found by their names, and values of their cells."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from affect.shards.errors import InputError, nearest
from affect.shards.sample import Box
from affect.shards.schema import Output
from affect.shards.sources.frames import META
from affect.shards.sources.table import Row, as_number

CLIPS = ("clip", "path", "video", "file", "filename")  # of each group, the first that is there is read
GROUPS = ("group", "animal", "subject", "patient", "person")
LABELS = ("label", "label_name", "class_name", "label_str")
BOX = ("box_x", "box_y", "box_w", "box_h")
KNOWN = ("split", "source", "weight", "confidence", *BOX)
EXACT = 2**24  # whole numbers up to here are the same as float32


@dataclass(frozen=True)
class Columns:
    """The names of a CSV's columns by their use."""

    clip: str
    group: str | None
    label: str | None
    box: bool
    targets: dict[str, str]  # column -> target column
    meta: tuple[str, ...]

    @classmethod
    def of(
        cls, path: Path, columns: tuple[str, ...], targets: dict[str, str], clip: str | None, group: str | None, label: str | None
    ) -> Columns:
        """clip, group, label: the column's name where it is none of CLIPS, GROUPS, LABELS. Raises InputError."""
        for option, named in (("--clip-column", clip), ("--group-column", group), ("--label-column", label)):
            _there(path, columns, option, named)
        for column in targets:
            _there(path, columns, "--column", column)
        free = [column for column in columns if column not in targets]
        clip, group, label = (
            named.casefold() if named else next((column for column in names if column in free), None)
            for named, names in ((clip, CLIPS), (group, GROUPS), (label, LABELS))
        )
        if clip is None:
            raise InputError(
                f"{path}: no column with the path of the clip; found {', '.join(columns)}; expected one of {', '.join(CLIPS)}, "
                "or name it: --clip-column NAME"
            )
        if not targets and label is None:
            raise InputError(
                f"{path}: no column {LABELS[0]!r} and no --column, so there is no target; found {', '.join(columns)}; a number "
                "becomes one by --column NAME=OUTPUT, names by --label-column NAME"
            )
        lacking = [column for column in BOX if column not in columns]
        if 0 < len(lacking) < len(BOX):
            raise InputError(f"{path}: no column {lacking[0]!r}; a box has all of {', '.join(BOX)}")
        meta = tuple(column for column in free if column and column not in (clip, group, label, *KNOWN))
        taken = [column for column in meta if column in META]
        if taken:
            raise InputError(
                f"{path}: the column {taken[0]!r} has a name that is reserved for what is recorded of each clip; rename it"
            )
        return cls(clip, group, label, not lacking, targets, meta)


def _there(path: Path, columns: tuple[str, ...], option: str, named: str | None) -> None:
    if named and named.casefold() not in columns:
        raise InputError(
            f"{path}: {option} {named}: no such column{nearest(named.casefold(), columns)}; found {', '.join(columns)}"
        )


def target_column(column: str, name: str) -> str:
    """Return the target column of --column COLUMN=NAME. Raises InputError."""
    output, dot, scalar = name.partition(".")
    if not re.fullmatch(r"[\w-]+", output) or (dot and not scalar):
        raise InputError(f"--column {column}={name}: expected COLUMN=OUTPUT or COLUMN=OUTPUT.NAME")
    return name if dot else f"{output}.{output}"


def scalar_outputs(targets: Iterable[str]) -> list[Output]:
    """Group target columns by output. Raises InputError where two are equal."""
    names: dict[str, list[str]] = {}
    for target in targets:
        output, _, name = target.partition(".")
        if name in names.setdefault(output, []):
            raise InputError(f"--column: two columns for {target}; expected one each")
        names[output].append(name)
    return [Output(output, "scalars", tuple(scalars)) for output, scalars in names.items()]


def column_pairs(columns: list[str]) -> dict[str, str]:
    """Parse `COLUMN=OUTPUT` of --column into {column: output}."""
    pairs = [text.partition("=")[::2] for text in columns]
    for text, (column, output) in zip(columns, pairs, strict=True):
        if not column or not output:
            raise InputError(f"--column {text}: expected COLUMN=OUTPUT or COLUMN=OUTPUT.NAME, such as intensity=score")
    return dict(pairs)


def numbers_of(row: Row, targets: Mapping[str, str]) -> dict[str, float]:
    """Return {target column: number}, NaN for an empty cell; what is no number is added to `row.wrong`."""
    values: dict[str, float] = {}
    for column, target in targets.items():
        value = as_number(row.cells[column]) if row.cells[column] else math.nan
        if value is None or math.isinf(value):
            row.wrong.append(f"{column}: found {row.cells[column]!r}, expected a number, or nothing where it is not labelled")
        else:
            values[target] = value
    return values


def box_of(row: Row) -> Box | None:
    """Return top, left, bottom, right; None where the cells are empty. A bad box is added to `row.wrong`."""
    cells = [row.cells[column] for column in BOX]
    if not any(cells):
        return None
    x, y, width, height = (math.nan if (number := as_number(cell)) is None else number for cell in cells)
    if not (math.isfinite(x + y) and 0 < width < math.inf and 0 < height < math.inf):
        values = ", ".join(f"{column} {cell!r}" for column, cell in zip(BOX, cells, strict=True))
        row.wrong.append(f"found {values}; expected pixels, box_w and box_h above 0")
    return y, x, y + height, x + width


def is_number(text: str) -> bool:
    """Whether float32 can represent the cell; digits with a leading zero, like 007, are a name."""
    value = as_number(text)
    if value is None or math.isinf(value) or re.match(r"-?0\d", text):
        return False
    return abs(value) <= EXACT or not value.is_integer()


def meta_value(text: str, kind: type) -> str | float:
    return float(text) if kind is float else text
