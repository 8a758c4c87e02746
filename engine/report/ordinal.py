"""Scores of ordered levels, such as those of a stimulus: how well they rank, by how much they miss, and whether that is chance.

Axes: N trials, V different values, R resamples. Trials of one animal are alike: one interval draws trials within animals, and
holds for these animals; the other draws animals, and stands for others of their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from affect.engine.report.pain.resample import RESAMPLES, Interval, caution, percentiles
from affect.engine.report.pain.texts import ranged, text
from affect.engine.report.render import NONE, Table
from affect.shards.errors import InputError

Figures = dict[str, Any]
Draw = Literal["trials", "animals"]
OTHERS_MEAN = "mean of the other animals"
AT_ONCE = 100  # resamples: (AT_ONCE, N) numbers are in memory


@dataclass(frozen=True)
class Score:
    """A score of trials, by a model or a baseline. values: (N,).

    in_levels: in the units of the levels; else a rising curve leads to them, fitted on the other animals, and MAE is of that.
    """

    name: str
    values: np.ndarray
    in_levels: bool = True


@dataclass(frozen=True)
class Trials:
    """The trials and their stimulus. level: (N,) ordered numbers, 0 for no stimulus. animal: (N,).

    high: the level from which a trial is compared with those of 0.
    """

    level: np.ndarray
    animal: np.ndarray
    high: float = 3

    def __post_init__(self) -> None:
        if self.level.shape != self.animal.shape or self.level.ndim != 1 or not len(self.level):
            raise InputError(f"levels {self.level.shape}, animals {self.animal.shape}: expected (N,) of each, N at least 1")
        if not np.isfinite(self.level).all():
            raise InputError(f"{(~np.isfinite(self.level)).sum()} trials have no level; leave them out")


def ordinal_figures(trials: Trials, score: Score, resamples: int = RESAMPLES, seed: int = 0) -> Figures:
    """Spearman's r, MAE and the AUC of high levels against 0 with intervals; p of the r; the same of each animal.

    A trial without a finite value is left out, and counted in `left_out`.
    """
    if score.values.shape != trials.level.shape:
        raise InputError(f"{score.name}: values {score.values.shape}, trials {trials.level.shape}; expected one each")
    known = np.isfinite(score.values)
    level, animal, values = (
        column[known] for column in (trials.level.astype(np.float64), trials.animal, score.values.astype(np.float64))
    )
    mistakes = np.abs((values if score.in_levels else in_levels(values, level, animal)) - level)
    pair = (level == 0) | (level >= trials.high)
    holds = level[pair] > 0
    figures = _figures(values, level, mistakes, trials.high)
    figures |= {"left_out": int((~known).sum()), "animals": len(np.unique(animal))}
    for draw in ("trials", "animals"):
        figures[f"spearman_{draw}"] = interval(animal, draw, lambda count: spearman(count, values, level), resamples, seed)
        figures[f"mae_{draw}"] = interval(animal, draw, lambda count: count @ mistakes / count.sum(1), resamples, seed)
    figures["auc_trials"] = interval(animal[pair], "trials", lambda count: auc(count, values[pair], holds), resamples, seed)
    herd = {str(name): animal == name for name in np.unique(trials.animal).tolist()}
    figures["per_animal"] = {
        name: _figures(values[here], level[here], mistakes[here], trials.high) for name, here in herd.items()
    }
    return figures | {"p": permutation_p(values, level, animal, resamples, seed)}


def _figures(values: np.ndarray, level: np.ndarray, mistakes: np.ndarray, high: float) -> Figures:
    pair = (level == 0) | (level >= high)
    return {
        "trials": len(level),
        "spearman": _one(spearman(np.ones((1, len(level))), values, level)),
        "mae": _mean(mistakes),
        "auc": _one(auc(np.ones((1, pair.sum())), values[pair], level[pair] > 0)),
    }


def spearman(count: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(R,) r of the ranks, ties in the middle of theirs, NaN where either is constant. count: (R, N) times a trial is drawn."""
    if not len(a):
        return np.full(len(count), np.nan)
    total = count.sum(1, keepdims=True)
    ranks = [_ranks(count, values) for values in (a, b)]
    x, y = (rank - (count * rank).sum(1, keepdims=True) / total for rank in ranks)
    both, squares = (count * x * y).sum(1), (count * x * x).sum(1) * (count * y * y).sum(1)
    small = 1e-9 * total[:, 0] ** 2  # ranks are halves: what is not zero is far above
    return np.where(squares > small, both / np.sqrt(np.maximum(squares, small)), np.nan)


def _ranks(count: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(R, N) the middle rank of each trial's value among those drawn."""
    same = _by_value(count, values)
    return (np.cumsum(same, 1) - (same - 1) / 2)[:, np.unique(values, return_inverse=True)[1]]


def _by_value(count: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(R, V) how often each value is drawn, the lowest first."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)  # NaN differs from every value
    return np.add.reduceat(count[:, order], starts, axis=1)


def auc(count: np.ndarray, values: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """(R,) the chance that a trial that holds has more than one that does not, ties counting half; NaN without one of both.

    Source: Hanley and McNeil, Radiology 1982.
    """
    if not len(values):
        return np.full(len(count), np.nan)
    high, low = _by_value(count * holds, values), _by_value(count * ~holds, values)  # (R, V)
    pairs = high.sum(1) * low.sum(1)
    above = (high * (np.cumsum(low, 1) - low / 2)).sum(1)
    return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)


def interval(
    animal: np.ndarray, draw: Draw, figure: Callable[[np.ndarray], np.ndarray], resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """95 %, percentiles of figure(count (R, N)), of trials drawn within each animal, or of animals; None of one animal."""
    herd, place = np.unique(animal, return_inverse=True)
    if not len(animal) or (draw == "animals" and len(herd) < 2):
        return None
    random, figures = np.random.default_rng(seed), []
    for done in range(0, resamples, AT_ONCE):
        size = min(AT_ONCE, resamples - done)
        if draw == "animals":
            count = random.multinomial(len(herd), np.full(len(herd), 1 / len(herd)), size=size)[:, place]
        else:
            count = np.empty((size, len(animal)), np.int64)
            for i in range(len(herd)):
                here = place == i
                count[:, here] = random.multinomial(here.sum(), np.full(here.sum(), 1 / here.sum()), size=size)
        figures.append(figure(count.astype(np.float64)))
    return percentiles(np.concatenate(figures))


def permutation_p(
    values: np.ndarray, level: np.ndarray, animal: np.ndarray, shuffles: int = RESAMPLES, seed: int = 0
) -> float | None:
    """Return the two-sided p of Spearman's r, with levels shuffled within animals: animals that differ in both prove nothing.

    None where r is none. Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 2010: the observed one counts, p is never 0.
    """
    once = np.ones((1, len(level)))
    seen = _one(spearman(once, values, level))
    if seen is None:
        return None
    random, groups = np.random.default_rng(seed), [np.flatnonzero(animal == name) for name in np.unique(animal)]
    x, y = (_ranks(once, column)[0] for column in (values, level))
    x, y = x - x.mean(), y - y.mean()
    drawn = np.tile(y, (shuffles, 1))
    for rows in groups:
        drawn[:, rows] = random.permuted(drawn[:, rows], axis=1)
    null, slack = drawn @ x / np.sqrt((x @ x) * (y @ y)), 1e-9
    fewer = min((null >= seen - slack).sum(), (null <= seen + slack).sum())
    return min(1.0, 2 * (int(fewer) + 1) / (shuffles + 1))


def in_levels(values: np.ndarray, level: np.ndarray, animal: np.ndarray) -> np.ndarray:
    """(N,) of each animal by a rising curve that was fitted on the others (isotonic regression); flat, it is their mean level.

    With one animal the mean level of its trials.
    """
    from sklearn.isotonic import IsotonicRegression

    figures = np.full(len(values), level.mean() if len(level) else np.nan)
    for name in np.unique(animal):
        here = animal == name
        if not here.all():
            curve = IsotonicRegression(out_of_bounds="clip").fit(values[~here], level[~here])
            figures[here] = curve.predict(values[here])
    return figures


def others_mean(trials: Trials) -> Score:
    """The naive baseline: of each trial the mean level of the other animals' trials; of a single animal that of its trials."""
    return Score(OTHERS_MEAN, in_levels(np.zeros(len(trials.level)), trials.level.astype(np.float64), trials.animal))


def ordinal_report(trials: Trials, scores: Sequence[Score], controls: Sequence[Score] = ()) -> dict[str, Figures]:
    """Name -> figures of the scores, of the naive baseline, and of the controls, which should show nothing: last, and marked."""
    every = [*scores, others_mean(trials), *controls]
    names = [score.name for score in every]
    if len(set(names)) < len(names):
        raise InputError(f"scores {', '.join(names)}: two have one name; name them apart")
    controlled = {score.name for score in controls}
    return {
        score.name: ordinal_figures(trials, score) | {"control": score.name in controlled, "in_levels": score.in_levels}
        for score in every
    }


def ordinal_table(figures: dict[str, Figures], high: float = 3) -> Table:
    """Scores side by side; of `ordinal_report`."""
    header = ["score", "trials", "Spearman", "over animals", "p", "MAE", f"AUC, {high:g} and more against 0"]
    cells = [
        [
            name + " (control)" * each["control"], f"{each['trials']:,}", ranged(each["spearman"], each["spearman_trials"]),
            _only(each["spearman_animals"]), NONE if each["p"] is None else f"{each['p']:.3g}",
            ranged(each["mae"], each["mae_trials"]) + "*" * (not each["in_levels"]), ranged(each["auc"], each["auc_trials"]),
        ]
        for name, each in figures.items()
    ]  # fmt: skip
    left_out = sum(each["left_out"] for each in figures.values())
    caption = [
        "In brackets: 95 % over draws of trials within animals, and of animals. p: two-sided, levels shuffled within animals.",
        *(["\\*: levels by a rising curve that was fitted on the other animals."] if any("*" in row[5] for row in cells) else []),
        *(["control: of what was before the stimulus. What it shows of the level is confounded, not caused."]
          if any(each["control"] for each in figures.values()) else []),
        *([f"{left_out} values are not finite and are left out."] if left_out else []),
        *filter(None, [caution(max((each["animals"] for each in figures.values()), default=0))]),
    ]  # fmt: skip
    return Table(header, cells, set(), caption)


def per_animal_table(figures: dict[str, Figures]) -> Table:
    """Below each score a row an animal."""
    cells: list[list[str]] = []
    breaks = {}
    for name, each in figures.items():
        breaks[len(cells)] = name
        for animal, here in each["per_animal"].items():
            cells.append([animal, f"{here['trials']:,}", *(text(here[key]) for key in ("spearman", "mae", "auc"))])
    return Table(["animal", "trials", "Spearman", "MAE", "AUC"], cells, set(), ["Of the trials of one animal alone."], breaks)


def _only(bounds: Interval | None) -> str:
    return NONE if bounds is None else "[{:.3f}, {:.3f}]".format(*bounds)


def _one(values: np.ndarray) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
