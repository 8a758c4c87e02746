"""Side signals: numbers that were measured beside a clip (heart rate, activity), from columns `meta.NAME` of the index.

One number a clip: what was measured frame by frame is averaged before it is packed. A column that stands for the label (a
rating, the strength of the stimulus) would be learned in the clip's place. Axes: N samples, R training rows, S signals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from affect.engine.system.log import say_once
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, nearest

META = "meta."


def signal(column: str) -> str:
    """The name of a column's signal outside the dataset: heart_rate of meta.heart_rate."""
    return column.removeprefix(META)


def side_values(dataset: Dataset, columns: Sequence[str]) -> np.ndarray:
    """(N, S) float32 as they were measured, NaN where missing; how many are missing is logged once.

    Raises: InputError naming the numeric columns, where one of these is none of them.
    """
    wrong = [f"  {column}: {reason}" for column in columns if (reason := _unfit(dataset, column))]
    if wrong:
        there = ", ".join(_numeric(dataset)) or "none; numbers that stand beside a clip's name are packed as such columns"
        raise InputError(f"data.side: {dataset.folder}:\n" + "\n".join(wrong) + f"\nnumeric columns: {there}")
    values = np.stack([dataset.column(column).astype(np.float32) for column in columns], 1)
    values[~np.isfinite(values)] = np.nan
    missing = np.isnan(values).sum(0)
    if missing.any():
        counts = ", ".join(f"{column} {count:,}" for column, count in zip(columns, missing.tolist(), strict=True) if count)
        say_once(
            f"data.side: of {len(values):,} clips of {dataset.folder} some have no value, and the training rows' mean stands "
            f"there: {counts}"
        )
    return values


def side_scale(dataset: Dataset, columns: Sequence[str], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, (S,) float32 each, of the training rows' values, (R, S); missing ones are left out.

    Raises: InputError naming the columns without a value, or with the same one throughout.
    """
    wrong, scales = [], []
    for column, signal_values in zip(columns, values.astype(np.float64).T, strict=True):
        known = signal_values[np.isfinite(signal_values)]
        if len(known) and np.ptp(known):
            scales.append((known.mean(), known.std()))
        else:
            wrong.append(f"  {column}: {f'always {known[0]:g}' if len(known) else 'no value'}")
    if wrong:
        raise InputError(
            f"data.side: {dataset.folder}: in {len(values):,} training rows nothing to learn from:\n"
            + "\n".join(wrong)
            + f"\nleave such columns out; numeric columns: {', '.join(_numeric(dataset))}"
        )
    mean, deviation = np.array(scales, np.float32).T
    return mean, deviation


def _unfit(dataset: Dataset, column: str) -> str:
    """Why a column is no side signal; empty where it is one."""
    if not dataset.has(column):
        return f"no such column{nearest(column, _numeric(dataset))}"
    if not column.startswith(META):
        return f"not one of {META}*: a label, or what the index itself needs"
    return "text, not numbers" if dataset.is_text(column) else ""


def _numeric(dataset: Dataset) -> list[str]:
    return [column for column in dataset.names if column.startswith(META) and not dataset.is_text(column)]
