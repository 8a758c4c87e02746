"""Predictions of clips that the models were not trained on. Axes: N clips, S scalars, the last of them the total."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.metrics.regression import TOTAL
from affect.shards.errors import InputError, first

STATES = ("no_pain", "acute", "residual")  # of M0 and M1; of M2; of M3 and M4
NO_PAIN, ACUTE = 0, 1
ACUTE_MOMENT = "M2"
UNKNOWN = -1


@dataclass(frozen=True)
class PainPredictions:
    """A clip a row, each once.

    sample (N,) int64; fold (N,) int, whose model predicted it, out of fold (-1: several models together); animal (N,) str;
    moment (N,) str, 'M0' to 'M4', '' unknown. names: the scalars in order, the last is 'total'.
    target, predicted: (N, S) float, NaN where not labelled. state: (N,) int label, -1 unknown. state_probs: (N, 3), NaN where
    there is no head.
    train_mean: (N, S) the mean of the training rows of that fold (the null model); train_moment_mean: (N, S) of those of the
    clip's moment, NaN where there are none.
    """

    sample: np.ndarray
    fold: np.ndarray
    animal: np.ndarray
    moment: np.ndarray
    names: tuple[str, ...]
    target: np.ndarray
    predicted: np.ndarray
    state: np.ndarray
    state_probs: np.ndarray
    train_mean: np.ndarray
    train_moment_mean: np.ndarray

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)

    def __len__(self) -> int:
        return len(self.sample)

    def where(self, rows: np.ndarray) -> PainPredictions:
        """Return the rows of a mask (N,) or of row numbers, in their order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in KEYS})

    def of(self, name: str) -> Scored:
        """The clips that are labelled for one scalar."""
        i, here = self.names.index(name), ~np.isnan(self.target[:, self.names.index(name)])
        null, by_moment = (means[here, i].astype(np.float64) for means in (self.train_mean, self.train_moment_mean))
        by_moment = np.where(np.isnan(by_moment), null, by_moment)
        true, predicted = self.target[here, i].astype(np.float64), self.predicted[here, i].astype(np.float64)
        return Scored(true, predicted, null, by_moment, self.animal[here], self.moment[here], self.fold[here])

    @property
    def total(self) -> Scored:
        return self.of(TOTAL)

    def save(self, path: Path) -> None:
        """Write an npz."""
        columns = {key: getattr(self, name) for name, key in KEYS.items()} | {"names": np.array(self.names)}
        columns |= {name: np.asarray(columns[name], str) for name in ("animal", "moment")}  # objects would be pickled
        with path.open("wb") as file:
            np.savez_compressed(file, **columns)


@dataclass(frozen=True)
class Scored:
    """One scalar's labelled clips: truth, prediction, and the predictions of the two naive baselines; all (N,)."""

    true: np.ndarray
    predicted: np.ndarray
    train_mean: np.ndarray
    moment_mean: np.ndarray  # the training mean where the training rows have no clip of the moment
    animal: np.ndarray
    moment: np.ndarray
    fold: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    def where(self, rows: np.ndarray) -> Scored:
        return Scored(*(getattr(self, field.name)[rows] for field in fields(self)))


def load(path: Path) -> PainPredictions:
    """Read what `PainPredictions.save` wrote."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns: dict[str, Any] = {name: file[key] for name, key in KEYS.items()}
            return PainPredictions(**columns, names=tuple(file["names"].tolist()))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as predictions of clips ({error}); evaluate the folds anew") from error


def concat(parts: Sequence[PainPredictions]) -> PainPredictions:
    """Put the folds' predictions one after another. Raises InputError where two have the same clip: average them, or keep one."""
    if not parts:
        raise InputError("no predictions to put together; expected those of a fold at least")
    names = parts[0].names
    for part in parts:
        if part.names != names:
            raise InputError(
                f"predictions of different scalars: {', '.join(names)}; {', '.join(part.names)}; keep to one dataset"
            )
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in KEYS}
    return PainPredictions(**columns, names=names)


KEYS = {  # column -> its key in the file
    field.name: {"predicted": "said"}.get(field.name, field.name) for field in fields(PainPredictions) if field.name != "names"
}


def _check_shapes(predictions: PainPredictions) -> None:
    rows, names = len(predictions.sample), predictions.names
    if not names or names[-1] != TOTAL or len(set(names)) < len(names):
        raise InputError(f"scalars {', '.join(names) or 'none'}: expected different names, the last {TOTAL!r}")
    wide = {"target", "predicted", "train_mean", "train_moment_mean"}
    for name in KEYS:
        width = (len(names),) if name in wide else (len(STATES),) if name == "state_probs" else ()
        if getattr(predictions, name).shape != (rows, *width):
            raise InputError(
                f"predictions of {rows} clips: {name}: expected {(rows, *width)}, got {getattr(predictions, name).shape}"
            )


def _check_values(predictions: PainPredictions) -> None:
    sample, count = np.unique(predictions.sample, return_counts=True)
    if (count > 1).any():
        twice = predictions.sample[np.isin(predictions.sample, sample[count > 1])]
        folds = np.unique(predictions.fold[np.isin(predictions.sample, twice)]).tolist()
        raise InputError(
            f"{(count > 1).sum()} clips are predicted more than once (folds {', '.join(map(str, folds))}): samples\n"
            f"{first(np.unique(twice).tolist())}\nexpected each once: average the models that share clips, or keep one of them"
        )
    if (nameless := np.asarray(predictions.animal, str) == "").any():
        raise InputError(f"{nameless.sum()} clips have no animal; expected one each: folds and intervals go by animals")
    if np.isinf(predictions.target).any():
        raise InputError(f"{np.isinf(predictions.target).any(1).sum()} clips have an infinite label; NaN says not labelled")
    missing = (~np.isnan(predictions.target) & ~np.isfinite(predictions.predicted)).any(1)
    if missing.any():
        folds = np.unique(predictions.fold[missing]).tolist()
        raise InputError(
            f"{missing.sum()} labelled clips have no finite prediction (folds {', '.join(map(str, folds))}): "
            "the model has diverged; train it anew with a lower rate"
        )
    unknown = ~np.isin(predictions.state, (UNKNOWN, *range(len(STATES))))
    if unknown.any():
        raise InputError(
            f"state {predictions.state[unknown][0]}: expected -1 (unknown) to {len(STATES) - 1}: {', '.join(STATES)}"
        )
