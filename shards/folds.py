"""Divides samples into folds: whole groups, evenly or as a file lists them. Axes: N samples, G groups, L levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affect.shards.errors import InputError, first, nearest
from affect.shards.index import Index
from affect.shards.sources.fold_files import Folds

MOST_LEVELS = 20  # of a column of numbers; one with more is cut into QUARTERS of its rows
QUARTERS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class FoldRule:
    """How groups become folds; exactly one of `count`, `leave` and `file` is set.

    by: an index column; rows with the same value stay together. count: number of folds. leave: groups that validate in each fold,
    fewer in some where they do not divide evenly. stratify: an index column or an output of classes, of which every fold gets its
    share. file: a JSON {test_animals, cv_folds}, as in the reference recipe (docs/recipes/cattle_pain.md).
    """

    by: str = "group"
    count: int | None = None
    leave: int | None = None
    stratify: str = ""
    file: str = ""


def fold_numbers(index: Index, rule: FoldRule, divided: np.ndarray) -> np.ndarray:
    """Return (N,) int64, the fold in which each sample validates, -1 for none; divided: (N,) bool, the rows that have a fold.

    The result depends on these rows and the rule alone, not on other filters. Raises InputError naming what cannot be divided.
    """
    codes, names = _coded(index, rule.by)
    rows = np.flatnonzero(divided)
    if lacking := int((codes[rows] < 0).sum()):
        raise InputError(
            f"{index.folder}: data.folds: {lacking:,} of {len(rows):,} rows have no {rule.by}; folds are of whole ones"
        )
    of_group = np.full(len(names), -1)
    here, place = np.unique(codes[rows], return_inverse=True)
    groups = [names[code] for code in here.tolist()]
    if rule.file:
        of_group[here] = _from_file(index, rule, groups)
    else:
        level = _levels(index, rule.stratify)[rows] if rule.stratify else np.zeros(len(rows), np.int64)
        counts = np.zeros((len(here), level.max(initial=0) + 1))
        np.add.at(counts, (place, level), 1)
        of_group[here] = assigned(counts, groups, *_sizes(index, rule, len(here)))
    numbers = np.full(len(codes), -1, np.int64)
    numbers[rows] = of_group[codes[rows]]
    return numbers


def assigned(counts: np.ndarray, names: list[str], folds: int, most: int) -> np.ndarray:
    """Return (G,) the fold of each group. Groups are placed one by one, the most one-sided and largest first, each in the fold
    that leaves the levels spread most evenly.

    counts: (G, L) rows of a level in a group. names: (G,), break ties. most: groups in a fold.
    Source: scikit-learn's StratifiedGroupKFold, with a limit on groups and without randomness.
    """
    share = counts / np.maximum(counts.sum(0), 1)  # of each level's rows
    filled, sizes, of_group = np.zeros((folds, counts.shape[1])), np.zeros(folds, np.int64), np.full(len(counts), -1)
    order = sorted(range(len(counts)), key=lambda g: (-counts[g].std(), -counts[g].sum(), names[g]))
    for group in order:
        uneven = np.array([_uneven(filled, fold, share[group]) for fold in range(folds)])
        uneven[sizes >= most] = np.inf
        best = np.flatnonzero(uneven <= uneven.min() + 1e-12)
        fold = best[np.lexsort((best, filled[best].sum(1), sizes[best]))[0]]
        of_group[group], filled[fold], sizes[fold] = fold, filled[fold] + share[group], sizes[fold] + 1
    return of_group


def _uneven(filled: np.ndarray, fold: int, share: np.ndarray) -> float:
    """The mean over levels of the deviation between folds, if the fold took a group's shares."""
    tried = filled.copy()
    tried[fold] += share
    return float(tried.std(0).mean())


def _sizes(index: Index, rule: FoldRule, groups: int) -> tuple[int, int]:
    """(number of folds, groups that the largest may have)."""
    folds = rule.count if rule.count else -(-groups // (rule.leave or 1))
    if folds < 2 or folds > groups:
        option = f"count: {rule.count}" if rule.count else f"leave: {rule.leave}"
        raise InputError(
            f"{index.folder}: data.folds: {option} makes {folds} folds of {groups} values of {rule.by}; "
            f"expected 2 to {groups} folds"
        )
    return folds, rule.leave or groups


def _from_file(index: Index, rule: FoldRule, names: list[str]) -> np.ndarray:
    """(G,) the fold of each group in the file; -1 for a group that trains in every fold."""
    folds = Folds.read(Path(rule.file))
    folds.check(set(names), index.folder)
    if tested := sorted(folds.test & set(names)):
        raise InputError(
            f"{rule.file}: {len(tested)} of its test_animals have rows in {index.folder} that are trained on:\n{first(tested)}"
            "\nPack them in the split test, or take them out of test_animals"
        )
    return np.array([folds.fold_of.get(name, -1) for name in names])


def _levels(index: Index, column: str) -> np.ndarray:
    """(N,) int64 from 1: the classes of an output, the texts or numbers of a column; 0 where there is none."""
    outputs = {output.name: output for output in index.info.layout.outputs}
    if column in outputs:
        if outputs[column].kind != "classes":
            columns = ", ".join(outputs[column].columns[:3])
            raise InputError(f"data.folds.stratify: {column} is {outputs[column].kind}, not classes; name a column: {columns}")
        target = index.targets(column)
        return np.where(np.isnan(target).any(1), 0, 1 + np.nan_to_num(target).argmax(1))
    if not index.has(column):
        raise InputError(
            f"data.folds.stratify: {index.folder} has no column {column!r}{nearest(column, [*index.names, *outputs])}"
        )
    if index.is_text(column):
        return index.coded(column)[0].astype(np.int64) + 1
    values = index.column(column).astype(np.float64)
    known = values[~np.isnan(values)]
    edges = np.unique(known) if len(np.unique(known)) <= MOST_LEVELS else np.quantile(known, QUARTERS)
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(edges, values, side="right"))


def _coded(index: Index, column: str) -> tuple[np.ndarray, list[str]]:
    """(N,) codes, -1 where empty, and what they stand for."""
    if not index.has(column):
        raise InputError(f"data.folds.by: {index.folder} has no column {column!r}{nearest(column, index.names)}")
    if index.is_text(column):
        return index.coded(column)
    values = index.column(column).astype(np.float64)
    names, codes = np.unique(values[~np.isnan(values)], return_inverse=True)
    all_codes = np.full(len(values), -1)
    all_codes[~np.isnan(values)] = codes
    return all_codes, [f"{name:g}" for name in names.tolist()]
