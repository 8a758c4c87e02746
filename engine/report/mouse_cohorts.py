"""Stress of mice from clips: models beside motion and beside controls, which show other causes of a prediction.

Axes: N trials. Each is of one animal; all scores are of trials that were held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from affect.engine.metrics.classification import reliability
from affect.engine.report import motion
from affect.engine.report.ordinal import (
    Figures,
    Score,
    Trials,
    auc,
    interval,
    ordinal_figures,
    ordinal_report,
    ordinal_table,
    per_animal_table,
)  # fmt: skip
from affect.engine.report.pain.resample import RESAMPLES, Interval
from affect.engine.report.pain.texts import ranged, text
from affect.engine.report.render import NONE, Table, markdown
from affect.shards.errors import InputError, nearest

MODEL, SET = "temporal model", "set model"
SHUFFLED, AT_TEST, SINGLE = "retrained on shuffled frames", "shuffled at test alone", "single frames"
BEFORE, BACKGROUND, POSITION = "retrained on frames before the stimulus", "retrained on the background", "session position alone"
CONTROLS = (BEFORE, motion.BEFORE, BACKGROUND, POSITION)  # what they show has another cause than the stimulus
SCORES = (MODEL, SET, *motion.BASELINES, SHUFFLED, AT_TEST, SINGLE)
LEVEL_FIGURES = ("spearman", "mae", "p")  # how the names of figures of levels begin
LISTED = 8  # animals: of fewer each is listed
CHANCE = 0.5
CLAIMS = {  # of the reference recipe (docs/recipes/mouse.md), of accuracy; it does not state how they were measured
    "baseline": "about 50-60 %", "ldl": "+20-30 %", "temporal": "+15-25 %", "both": "+35-55 %",
}  # fmt: skip
METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "ece": "ECE", "nll": "NLL", "brier": "Brier"}


def mouse_report(
    trials: Trials, scores: Sequence[Score], levels: Sequence[Score] = (), resamples: int = RESAMPLES
) -> tuple[str, dict[str, Any]]:
    """Return the text and the figures: scores and controls in one table, by name out of SCORES and CONTROLS; MODEL is among them.

    Then what follows from it: whether the model beats the best of motion, whether it needs order, which control shows something.
    levels: predictions of the level itself, under the same names; Spearman's r and MAE are then of these.
    """
    named = {score.name: score for score in scores}
    known = (*SCORES, *CONTROLS)
    if unknown := [name for name in named if name not in known]:
        raise InputError(f"score {unknown[0]!r}{nearest(unknown[0], known)}; there are: {', '.join(known)}")
    if MODEL not in named:
        raise InputError(f"no score {MODEL!r}, only {', '.join(named) or 'none'}; the others are compared with it")
    ordered = [[named[name] for name in names if name in named] for names in (SCORES, CONTROLS)]
    figures = ordinal_report(trials, *ordered)
    for score in levels:
        _of_levels(figures[score.name], ordinal_figures(trials, score, resamples))
    lowest = {name: _lowest_pair(trials, named[name], resamples) if name in named else (None, None) for name in figures}
    differences = [difference(trials, named[MODEL], other, resamples) for name, other in named.items() if name != MODEL]
    lines = ["## Stress and its level, of animals held out", "", markdown(_table(trials, figures, lowest))]
    if len(np.unique(trials.animal)) < LISTED:
        lines += ["## Each animal", "", markdown(per_animal_table(figures))]
    lines += ["## What follows", "", *verdicts(figures, {each["from"]: each for each in differences}), ""]
    if missing := [name for name in known if name not in named]:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    return "\n".join(lines), {"scores": figures, "lowest": lowest, "model_minus": differences}


def _of_levels(figures: Figures, differences: Figures) -> None:
    """Add to the figures of a score those of its model's predicted level."""
    figures |= {key: value for key, value in differences.items() if key.startswith(LEVEL_FIGURES) and key != "per_animal"} | {
        "in_levels": True
    }
    for animal, of in differences["per_animal"].items():
        figures["per_animal"][animal] |= {key: value for key, value in of.items() if key.startswith(LEVEL_FIGURES)}


def _lowest_pair(trials: Trials, score: Score, resamples: int) -> tuple[float | None, Interval | None]:
    """AUC of the lowest level above 0 against 0: what hardly anyone sees."""
    levels = np.unique(trials.level[trials.level > 0])
    keep = np.isin(trials.level, [0, levels[0]]) & np.isfinite(score.values) if len(levels) else np.zeros(len(trials.level), bool)
    values, holds, animal = score.values[keep], trials.level[keep] > 0, trials.animal[keep]
    one = float(auc(np.ones((1, len(values))), values, holds)[0])
    if not np.isfinite(one):
        return None, None
    return one, interval(animal, "trials", lambda count: auc(count, values, holds), resamples)


def _table(trials: Trials, figures: Mapping[str, Figures], lowest: Mapping[str, tuple[float | None, Interval | None]]) -> Table:
    table = ordinal_table(dict(figures), trials.high)
    levels = np.unique(trials.level[trials.level > 0])
    cells = [[*row, ranged(*lowest[name])] for row, name in zip(table.cells, figures, strict=True)]
    caption = [line.replace("was before the stimulus", "the stimulus cannot have caused") for line in table.caption]
    header = [*table.header, f"AUC, {levels[0] if len(levels) else 1:g} against 0"]
    return replace(table, header=header, cells=cells, caption=caption)


def difference(trials: Trials, model: Score, other: Score, resamples: int = RESAMPLES) -> dict[str, Any]:
    """{from, auc, interval}: AUC of the model less that of another score, of trials that both have, drawn within animals."""
    keep = ((trials.level == 0) | (trials.level >= trials.high)) & np.isfinite(model.values) & np.isfinite(other.values)
    holds, animal, a, b = trials.level[keep] > 0, trials.animal[keep], model.values[keep], other.values[keep]

    def less(count: np.ndarray) -> np.ndarray:
        return auc(count, a, holds) - auc(count, b, holds)

    one = float(less(np.ones((1, len(holds))))[0])
    return {"from": other.name, "auc": one if np.isfinite(one) else None, "interval": interval(animal, "trials", less, resamples)}


def verdicts(figures: Mapping[str, Figures], minus: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence each, with its figures."""
    lines = []
    measured = [name for name in motion.BASELINES if name in figures and figures[name]["auc"] is not None]
    if measured:
        best = max(measured, key=lambda name: figures[name]["auc"])
        lines.append(f"- Motion: {_against(minus[best], f'the best of motion, {best}')}")
    for name, better in ((SHUFFLED, "It uses the order of frames."), (SET, "The temporal head adds to the mean of frames.")):
        if name in minus:
            more = better if _above(minus[name]["interval"], 0) else f"Not shown: {better[0].lower()}{better[1:]}"
            lines.append(f"- Order: {_against(minus[name], name)} {more}")
    if AT_TEST in minus:
        more = "That punishes any model with positions: it does not show what order is worth."
        lines.append(f"- Shuffling: {_against(minus[AT_TEST], f'itself, {AT_TEST}')} {more}")
    for name in CONTROLS:
        if name in figures and (area := figures[name]["auc"]) is not None:
            apart = _above(figures[name]["auc_trials"], CHANCE) or _below(figures[name]["auc_trials"], CHANCE)
            tells = "tells stress from none: the scores above may owe to it" if apart else "is not shown to tell anything"
            lines.append(f"- Control: {name} {tells} (AUC {ranged(area, figures[name]['auc_trials'])}).")
    return lines or ["- Nothing to compare the model with was measured."]


def _against(minus: Mapping[str, Any], other: str) -> str:
    verb = "is better than" if _above(minus["interval"], 0) else "is not shown to be better than"
    return f"the model {verb} {other} (AUC {ranged(minus['auc'], minus['interval'], sign=True)})."


def _above(bounds: Interval | None, value: float) -> bool:
    return bounds is not None and bounds[0] > value


def _below(bounds: Interval | None, value: float) -> bool:
    return bounds is not None and bounds[1] < value


def session_position_alone(trials: Trials, position: np.ndarray) -> Score:
    """Return POSITION: stress predicted from the place in the session, by a logistic regression on the other animals' trials.

    position: (N,) of each trial, NaN unknown. Trials between 0 and `high` train nothing, and are scored.
    """
    from sklearn.linear_model import LogisticRegression

    values, known = np.full(len(position), np.nan), np.isfinite(position)
    pair = ((trials.level == 0) | (trials.level >= trials.high)) & known
    for name in np.unique(trials.animal):
        here, others = (trials.animal == name) & known, (trials.animal != name) & pair
        holds = trials.level[others] > 0
        if here.any() and 0 < holds.sum() < len(holds):
            scale = max(float(np.std(position[others])), 1e-9)
            fitted = LogisticRegression().fit(position[others, None] / scale, holds)
            values[here] = fitted.predict_proba(position[here, None] / scale)[:, 1]
    return Score(POSITION, values, in_levels=False)


def stress_table(logits: np.ndarray, target: np.ndarray, names: tuple[str, str], groups: Mapping[str, np.ndarray]) -> Table:
    """Accuracy, AUC, F1 and calibration of all labelled trials, and of those of each fold, animal, cohort, sex.

    logits, target: (N, 2), of which the second is stress; NaN targets are not labelled. groups: what it is -> (N,) its value.
    """
    known = ~np.isnan(target).any(1)
    lines, breaks = [_stress_line("all", logits[known], target[known], names)], dict[int, str]()
    for what, group in groups.items():
        breaks[len(lines)] = f"by {what}"
        for value in np.unique(group[known]).tolist():
            here = known & (group == value)
            lines.append(_stress_line(str(value), logits[here], target[here], names))
    return Table(["", "trials", "AUC", *METRICS.values()], lines, set(), ["Over the classes that occur."], breaks)


def _stress_line(name: str, logits: np.ndarray, target: np.ndarray, names: tuple[str, str]) -> list[str]:
    figures = reliability(logits, target, names, present_only=True) if len(logits) else {}
    once = np.ones((1, len(logits)))
    area = float(auc(once, (logits[:, 1] - logits[:, 0]).astype(np.float64), target[:, 1] > target[:, 0])[0])
    return [name, f"{len(logits):,}", text(area), *(text(figures.get(key)) for key in METRICS)]


def cohort_table(trials: Trials, scores: Sequence[Score], what: str, group: np.ndarray, resamples: int = RESAMPLES) -> Table:
    """AUC of each score in each cohort (or sex): a shortcut tells in the cohort that was trained on, and in no other.

    group: (N,) what each trial is of.
    """
    values = list(dict.fromkeys(group.tolist()))
    cells = [[score.name, *(_area(*_pair(trials, score, group == value), resamples) for value in values)] for score in scores]
    header = [f"AUC, {trials.high:g} and more against 0", *(f"{what} {value}" for value in values)]
    return Table(header, cells, set(), ["In brackets: 95 % over draws of trials within animals."])


def fall(
    trials: Trials, model: Score, home: np.ndarray, there: np.ndarray, cohort: str, resamples: int = RESAMPLES
) -> str:  # fmt: skip
    """Say whether the model reads a cohort worse than its own, in a sentence with figures. home, there: (N,) bool."""
    sides = [_pair(trials, model, of) for of in (home, there)]
    values, holds, animal = (np.concatenate(column) for column in zip(*sides, strict=True))
    first = np.arange(len(values)) < len(sides[0][0])

    def less(count: np.ndarray) -> np.ndarray:
        here, other = (auc(count[:, of], values[of], holds[of]) for of in (first, ~first))
        return here - other

    lost = float(less(np.ones((1, len(values))))[0])
    if not np.isfinite(lost):
        return f"- Cohort {cohort}: stress or none of it is missing; nothing is known of what holds there."
    bounds, (here, other) = interval(animal, "trials", less, resamples), (_area(*side, resamples) for side in sides)
    falls = _above(bounds, 0)
    why = " Part of what it learned does not hold outside its cohort: see which control tells at home alone." if falls else ""
    verb = "tells less there" if falls else "is not shown to tell less there"
    return f"- Cohort {cohort}: the model {verb}, AUC {other}, at home {here}, less by {ranged(lost, bounds)}.{why}"


def _pair(trials: Trials, score: Score, of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, whether it is stress, animal) of the high levels and of 0 among the trials `of`, (N,) bool."""
    keep = of & ((trials.level == 0) | (trials.level >= trials.high)) & np.isfinite(score.values)
    return score.values[keep], trials.level[keep] > 0, trials.animal[keep]


def _area(values: np.ndarray, holds: np.ndarray, animal: np.ndarray, resamples: int) -> str:
    one = float(auc(np.ones((1, len(values))), values, holds)[0])
    if not np.isfinite(one):
        return NONE
    return ranged(one, interval(animal, "trials", lambda count: auc(count, values, holds), resamples))


def two_by_two(trials: Trials, stress: Mapping[str, np.ndarray], resamples: int = RESAMPLES) -> Table:
    """The points of CLAIMS beside them. stress: point -> (N,) the probability of stress, of trials held out."""
    if unknown := sorted(set(stress) - set(CLAIMS)):
        raise InputError(f"point {unknown[0]!r}{nearest(unknown[0], CLAIMS)}; there are: {', '.join(CLAIMS)}")
    keep = (trials.level == 0) | (trials.level >= trials.high)
    keep &= np.all([np.isfinite(values) for values in stress.values()], axis=0)
    holds, animal = trials.level[keep] > 0, trials.animal[keep]
    right = {point: ((values[keep] >= CHANCE) == holds).astype(np.float64) for point, values in stress.items()}
    cells = []
    for point in (name for name in CLAIMS if name in stress):
        hits = right[point]
        accuracy = ranged(100 * float(hits.mean()), _percent(hits, animal, resamples), 1)
        more = NONE
        if point != "baseline" and "baseline" in right:
            gain = hits - right["baseline"]
            more = ranged(100 * float(gain.mean()), _percent(gain, animal, resamples), 1, sign=True)
        cells.append([point, accuracy, more, CLAIMS[point], _area(stress[point][keep], holds, animal, resamples)])
    header = ["point", "accuracy, %", "over the baseline, points", "claimed by the reference recipe, unverified", "AUC"]
    return Table(header, cells, set(), ["In brackets: 95 % over draws of trials within animals; gains are of the same trials."])


def _percent(values: np.ndarray, animal: np.ndarray, resamples: int) -> Interval | None:
    return interval(animal, "trials", lambda count: 100 * (count @ values) / count.sum(1), resamples)
