"""Selects rows of a dataset by its index: by split, source, confidence, column values and fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from affect.shards.errors import InputError, first, nearest
from affect.shards.folds import FoldRule, fold_numbers
from affect.shards.index import Index
from affect.shards.schema import SPLITS

FOLD = "meta.fold"
Value = str | int | float


@dataclass(frozen=True)
class Fold:
    """One fold: its rows where `held_out`, else the rows of all others, of any split in `splits`, which are train and val.

    Folds are those of the column `meta.fold`, or of the rule. A row without a fold stays where its split puts it.
    """

    number: int
    held_out: bool
    splits: tuple[str, ...]
    rule: FoldRule | None = None


@dataclass(frozen=True)
class Selection:
    """The rows that meet all of these conditions; an empty one excludes nothing.

    confidence_min: rows below are left out. where: index column -> its values, one of which a row must have.
    """

    split: str
    sources: tuple[str, ...] = ()
    confidence_min: float = 0.0
    where: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    fold: Fold | None = None


def select(index: Index, wanted: Selection) -> np.ndarray:
    """Return (n,) sample numbers, ascending. Raises InputError naming the filter that leaves none."""
    keep = _of_split(index, wanted)
    if wanted.sources:
        keep &= equals(index, "source", wanted.sources)
        _some_left(index, wanted, keep, f"sources {', '.join(wanted.sources)}; it has: {', '.join(present(index, 'source'))}")
    if wanted.confidence_min > 0:
        keep &= index.column("confidence") >= np.float32(wanted.confidence_min)
        _some_left(index, wanted, keep, f"confidence_min {wanted.confidence_min}")
    for column, values in wanted.where.items():
        matches = equals(index, column, values)
        if not matches.any():
            raise InputError(f"{index.folder}: no row has {_either(column, values)}{_offer(index, column, values)}")
        keep &= matches
        _some_left(index, wanted, keep, _either(column, values))
    return np.flatnonzero(keep)


def equals(index: Index, column: str, values: tuple[Value, ...]) -> np.ndarray:
    """Return (N,) bool, where the column has one of the values. Texts are compared by their codes."""
    if index.is_text(column):
        codes, names = index.coded(column)
        wanted = {str(value) for value in values}
        return np.array([*(name in wanted for name in names), False])[codes]  # an empty one has the code -1
    for value in values:
        if isinstance(value, str):
            raise InputError(f"{index.folder}: column {column} holds numbers, not {value!r}")
    cells = index.column(column)
    return np.isin(cells, np.array(values, cells.dtype))


def present(index: Index, column: str, rows: np.ndarray | None = None) -> list[str]:
    """Return the texts of a column, sorted; of the given rows only, if there are any."""
    codes, names = index.coded(column)
    codes = codes if rows is None else codes[rows]
    used = np.bincount(codes + 1, minlength=len(names) + 1)[1:]
    return sorted(name for name, count in zip(names, used, strict=True) if count)


def _of_split(index: Index, wanted: Selection) -> np.ndarray:
    if wanted.fold is not None:
        return _of_fold(index, wanted.split, wanted.fold)
    if wanted.split not in index.info.counts:
        what = "has no samples" if wanted.split in SPLITS else f"is not one of {', '.join(SPLITS)}"
        raise InputError(f"{index.folder}: split {wanted.split!r} {what}; it has: {index.info.counts}")
    return equals(index, "split", (wanted.split,))


def _of_fold(index: Index, split: str, fold: Fold) -> np.ndarray:
    divided = equals(index, "split", fold.splits)
    inside, without = _by_rule(index, fold, divided) if fold.rule else _by_column(index, fold)
    divided &= ~without
    train, val = (without & equals(index, "split", (name,)) for name in (fold.splits[0], fold.splits[-1]))
    _refuse_shared(index, fold, divided & inside | val, divided & ~inside | train)
    return np.where(divided, inside == fold.held_out, without & equals(index, "split", (split,)))


def _by_column(index: Index, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: rows of the fold; rows of no fold."""
    if not index.has(FOLD):
        raise InputError(
            f"{index.folder}: data.fold is {fold.number}, but no row has a fold: there is no column {FOLD}. "
            "Make folds of groups, e.g. --set data.folds.count=5"
        )
    inside = equals(index, FOLD, (fold.number,))
    if not inside.any():
        raise InputError(f"{index.folder}: no row is of fold {fold.number}{_offer(index, FOLD, (fold.number,))}")
    return inside, index.coded(FOLD)[0] < 0 if index.is_text(FOLD) else np.isnan(index.column(FOLD))


def _by_rule(index: Index, fold: Fold, divided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert fold.rule
    numbers = fold_numbers(index, fold.rule, divided)
    if not (numbers == fold.number).any():
        has = ", ".join(map(str, np.unique(numbers[numbers >= 0]).tolist()))
        raise InputError(f"{index.folder}: data.fold: data.folds makes no fold {fold.number}; it makes: {has}")
    return numbers == fold.number, numbers < 0


def fold_list(index: Index, rule: FoldRule | None, splits: tuple[str, ...]) -> list[int]:
    """Return the numbers of the folds, ascending. Raises InputError where there are none, or they are not whole numbers."""
    divided = equals(index, "split", splits)
    if rule:
        numbers = fold_numbers(index, rule, divided)
        return np.unique(numbers[numbers >= 0]).tolist()
    cells = [] if not index.has(FOLD) else index.column(FOLD)[divided].tolist()
    distinct = {str(value) for value in cells if value is not None and value == value}
    try:
        whole = sorted({int(float(value)) for value in distinct if float(value).is_integer()})
    except ValueError:
        whole = []
    if len(whole) < 2 or len(whole) < len(distinct):
        raise InputError(
            f"{index.folder}: {FOLD} holds {', '.join(sorted(distinct)[:10]) or 'nothing'}; expected two whole numbers or more. "
            "Make folds of groups: --set data.folds.leave=2, or --set data.folds.count=5"
        )
    return whole


def _refuse_shared(index: Index, fold: Fold, held_out: np.ndarray, trained: np.ndarray) -> None:
    codes, names = index.coded("group")
    shared = sorted(names[code] for code in set(codes[held_out].tolist()) & set(codes[trained].tolist()) - {-1})
    if shared:
        by = f"data.folds ({fold.rule.file or fold.rule.by})" if fold.rule else FOLD
        raise InputError(
            f"{index.folder}: {len(shared)} groups both train and validate in fold {fold.number}:\n{first(shared)}\n"
            f"All rows of a group belong in one fold; mend {by}, or divide by groups: --set data.folds.count=5"
        )


def _some_left(index: Index, wanted: Selection, keep: np.ndarray, by: str) -> None:
    if not keep.any():
        of = f"fold {wanted.fold.number}'s {wanted.split} rows" if wanted.fold else f"split {wanted.split!r}"
        raise InputError(f"{index.folder}: no sample of {of} is left by {by}")


def _either(column: str, values: tuple[Value, ...]) -> str:
    return f"{column} = {' or '.join(map(str, values))}"


def _offer(index: Index, column: str, values: tuple[Value, ...]) -> str:
    """Name the values that the column has."""
    if index.is_text(column):
        names = present(index, column)
        return f"{nearest(str(values[0]), names)}; it has: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
    numbers = index.column(column)
    numbers = np.unique(numbers[~np.isnan(numbers)])
    return f"; it has: {', '.join(f'{value:g}' for value in numbers[:10])}{' ...' if len(numbers) > 10 else ''}"
