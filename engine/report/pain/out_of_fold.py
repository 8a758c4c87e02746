"""What models have said of clips that they were not trained on. Axes: N clips, S scalars, the last of them the total."""

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
class PainAnswers:
    """A clip a row, each once.

    sample (N,) int64; fold (N,) int, of which model said it, out of fold (-1: several models together); animal (N,) str;
    moment (N,) str, 'M0' to 'M4', '' unknown. names: the scalars in order, the last is 'total'.
    target, said: (N, S) float, NaN where not labelled. state: (N,) int label, -1 unknown. state_probs: (N, 3), NaN where
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
    said: np.ndarray
    state: np.ndarray
    state_probs: np.ndarray
    train_mean: np.ndarray
    train_moment_mean: np.ndarray

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)

    def __len__(self) -> int:
        return len(self.sample)

    def where(self, rows: np.ndarray) -> PainAnswers:
        """Of a mask (N,) or of row numbers, in their order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _columns()})

    def of(self, name: str) -> Scored:
        """The clips that are labelled for one scalar."""
        i, here = self.names.index(name), ~np.isnan(self.target[:, self.names.index(name)])
        null, by_moment = (means[here, i].astype(np.float64) for means in (self.train_mean, self.train_moment_mean))
        by_moment = np.where(np.isnan(by_moment), null, by_moment)
        true, said = self.target[here, i].astype(np.float64), self.said[here, i].astype(np.float64)
        return Scored(true, said, null, by_moment, self.animal[here], self.moment[here], self.fold[here])

    @property
    def total(self) -> Scored:
        return self.of(TOTAL)

    def save(self, path: Path) -> None:
        """As npz."""
        held = {name: getattr(self, name) for name in _columns()} | {"names": np.array(self.names)}
        held |= {name: np.asarray(held[name], str) for name in ("animal", "moment")}  # objects would be pickled
        with path.open("wb") as file:
            np.savez_compressed(file, **held)


@dataclass(frozen=True)
class Scored:
    """One scalar's labelled clips: true, said, and what the two naive baselines say; all (N,)."""

    true: np.ndarray
    said: np.ndarray
    train_mean: np.ndarray
    moment_mean: np.ndarray  # the training mean where the training rows have no clip of the moment
    animal: np.ndarray
    moment: np.ndarray
    fold: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    def where(self, rows: np.ndarray) -> Scored:
        return Scored(*(getattr(self, field.name)[rows] for field in fields(self)))


def load(path: Path) -> PainAnswers:
    """Of `PainAnswers.save`."""
    try:
        with np.load(path, allow_pickle=False) as held:
            columns: dict[str, Any] = {name: held[name] for name in _columns()}
            return PainAnswers(**columns, names=tuple(held["names"].tolist()))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as answers of clips ({error}); evaluate the folds anew") from error


def concat(parts: Sequence[PainAnswers]) -> PainAnswers:
    """The folds' answers one after another. Raises InputError where two say a clip: those are to be averaged, or one chosen."""
    if not parts:
        raise InputError("no answers to put together; expected those of a fold at least")
    names = parts[0].names
    for part in parts:
        if part.names != names:
            raise InputError(f"answers of different scalars: {', '.join(names)}; {', '.join(part.names)}; keep to one dataset")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _columns()}
    return PainAnswers(**columns, names=names)


def _columns() -> list[str]:
    return [field.name for field in fields(PainAnswers) if field.name != "names"]


def _check_shapes(answers: PainAnswers) -> None:
    rows, names = len(answers.sample), answers.names
    if not names or names[-1] != TOTAL or len(set(names)) < len(names):
        raise InputError(f"scalars {', '.join(names) or 'none'}: expected different names, the last {TOTAL!r}")
    wide = {"target", "said", "train_mean", "train_moment_mean"}
    for name in _columns():
        width = (len(names),) if name in wide else (len(STATES),) if name == "state_probs" else ()
        if getattr(answers, name).shape != (rows, *width):
            raise InputError(f"answers of {rows} clips: {name}: expected {(rows, *width)}, got {getattr(answers, name).shape}")


def _check_values(answers: PainAnswers) -> None:
    sample, count = np.unique(answers.sample, return_counts=True)
    if (count > 1).any():
        twice = answers.sample[np.isin(answers.sample, sample[count > 1])]
        folds = np.unique(answers.fold[np.isin(answers.sample, twice)]).tolist()
        raise InputError(
            f"{(count > 1).sum()} clips are answered more than once (folds {', '.join(map(str, folds))}): samples\n"
            f"{first(np.unique(twice).tolist())}\nexpected each once: average the models that share clips, or keep one of them"
        )
    if (nameless := np.asarray(answers.animal, str) == "").any():
        raise InputError(f"{nameless.sum()} clips have no animal; expected one each: folds and intervals go by animals")
    if np.isinf(answers.target).any():
        raise InputError(f"{np.isinf(answers.target).any(1).sum()} clips have an infinite label; NaN says not labelled")
    unsaid = (~np.isnan(answers.target) & ~np.isfinite(answers.said)).any(1)
    if unsaid.any():
        folds = np.unique(answers.fold[unsaid]).tolist()
        raise InputError(
            f"{unsaid.sum()} labelled clips have no finite answer (folds {', '.join(map(str, folds))}): "
            "the model has diverged; train it anew with a lower rate"
        )
    unknown = ~np.isin(answers.state, (UNKNOWN, *range(len(STATES))))
    if unknown.any():
        raise InputError(f"state {answers.state[unknown][0]}: expected -1 (unknown) to {len(STATES) - 1}: {', '.join(STATES)}")
