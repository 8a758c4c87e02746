"""Whether two runs differ by more than chance on the rows that both were scored on: McNemar's test of each pair, and the
difference of their macro-F1 with its interval.

Source: McNemar, Psychometrika 1947; the exact two-sided form, a fair coin for each row that only one of them has right.
The interval is the 95 % percentile one of a paired bootstrap over rows (Efron, Annals of Statistics 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np

from affect.engine.report.render import Table
from affect.engine.runs.files import EVALUATED, PREDICTIONS


@dataclass(frozen=True)
class ClassPredictions:
    """A run's predictions of some rows: label, predicted (N,) class numbers; names of the classes."""

    name: str
    label: np.ndarray
    predicted: np.ndarray
    names: tuple[str, ...]

    def same_rows(self, other: ClassPredictions) -> bool:
        """Return whether the labels of both are the same, row by row."""
        return self.names == other.names and np.array_equal(self.label, other.label)


def write_predictions(folder: Path, label: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> None:
    np.savez_compressed(
        folder / PREDICTIONS, label=label.astype(np.int16), predicted=predicted.astype(np.int16), names=np.array(names)
    )


def read_predictions(folder: Path) -> ClassPredictions | None:
    """Read the predictions of an evaluated run; None where there are none."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        return ClassPredictions(_name(folder.resolve()), file["label"], file["predicted"], tuple(file["names"].tolist()))


def _name(folder: Path) -> str:
    """Return the name of the run that was evaluated, where the folder is RUN/evaluated/SET."""
    return folder.parent.parent.name if folder.parent.name == EVALUATED else folder.name


def p_value(only_a: int, only_b: int) -> float:
    """The chance of a split as uneven as this, or more so, if each of these rows could go either way."""
    count, few = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(count, k) for k in range(few + 1))
    return min(1.0, 2 * tail / 2**count)  # whole numbers up to the division: no rounding, however many rows


def macro_f1_gap(a: ClassPredictions, b: ClassPredictions, resamples: int = 2000) -> tuple[float, float, float]:
    """Return macro-F1 of b minus that of a, over all classes: of the rows, and the bounds of its interval.

    Rows of the same label and predictions are alike, so that resampled rows are a multinomial draw of their counts.
    """
    kinds, count = np.unique(np.stack([a.label, a.predicted, b.predicted]), axis=1, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(count.sum(), count / count.sum(), size=resamples)
    drawn = np.concatenate([count[None], drawn])  # the rows themselves first

    def macro_f1(predicted: np.ndarray) -> np.ndarray:
        def summed(where: np.ndarray) -> np.ndarray:
            return drawn @ where.T.astype(np.float64)

        classes = np.arange(len(a.names))[:, None]
        chosen, true = predicted == classes, kinds[0] == classes  # (C, kinds)
        return (2 * summed(chosen & true) / np.maximum(summed(chosen) + summed(true), 1)).mean(1)

    gap = macro_f1(kinds[2]) - macro_f1(kinds[1])
    low, high = np.percentile(gap[1:], (2.5, 97.5)).tolist()
    return float(gap[0]), low, high


def mcnemar_table(folders: Sequence[Path]) -> Table | None:
    """A row for each pair that was scored on the same rows; None where there is none."""
    runs = [predictions for folder in folders if (predictions := read_predictions(folder)) is not None]
    cells = []
    for a, b in combinations(runs, 2):
        if not a.same_rows(b):
            continue
        right_a, right_b = a.predicted == a.label, b.predicted == b.label
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        gap = 100 * (right_b.mean() - right_a.mean())
        cells.append(
            [
                f"{a.name}, {b.name}",
                f"{len(a.label):,}",
                f"{only_a:,}",
                f"{only_b:,}",
                f"{gap:+.2f}",
                f"{p_value(only_a, only_b):.3g}",
                "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in macro_f1_gap(a, b))),
            ]
        )
    header = [
        "runs",
        "rows",
        "only the first right",
        "only the second",
        "second - first, points",
        "p",
        "macro-F1, points",
    ]
    caption = [
        "McNemar's exact test, two-sided, of the labels (the largest probability); p is of each pair alone. Macro-F1: second "
        "minus first, 95 % in brackets."
    ]
    return Table(header, cells, set(), caption) if cells else None
