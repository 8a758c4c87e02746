"""Predictions of each clip by cross-validations of mice, for `engine/report/mouse_cohorts.py`. Axes: N clips, C classes.

Clips are known by their paths: a control may be trained on another packing of the same recordings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from affect.engine.crossval.fold_results import FoldResults, collect
from affect.engine.crossval.held_out import HeldOut, concat, predict
from affect.engine.crossval.run_folds import runs_in
from affect.engine.metrics.classification import softmax
from affect.engine.report import motion
from affect.engine.report.ordinal import Score, Trials
from affect.engine.runs.files import METRICS
from affect.engine.system.progress import Progress
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, first
from affect.shards.images import decode

LEVEL, STRESS, SCORE = "level", "stress", "score"
WINDOWED = {"accuracy": "accuracy", "macro_f1": "macro-F1", "nll": "NLL"}


@dataclass(frozen=True)
class Clips:
    """The clips that are judged, of one dataset: path, animal and level of each, (N,); sample (N,) int64.

    tested: they are of the split test, which no fold was trained on or chosen by; else each was held out by a fold.
    """

    dataset: Dataset
    path: list[str]
    sample: np.ndarray
    trials: Trials
    tested: bool = False

    def of(self, name: str) -> np.ndarray:
        """Return a column of the index, (N,)."""
        return self.dataset.column(name)[self.sample]


def clips_of(out: Path, high: float = 3) -> tuple[Clips, HeldOut]:
    """Return the held-out clips of a cross-validation that have a level, and their predictions."""
    results = collect(out)
    return _clips(out, results, _predictions(out, results, tested=False), high)


def clips_apart(out: Path, high: float = 3) -> tuple[Clips, HeldOut] | None:
    """Return the clips of the split test, and the mean prediction of all folds' models; None where there is no such split."""
    results = collect(out)
    if not results.dataset.info.counts.get("test"):
        return None
    return _clips(out, results, _predictions(out, results, tested=True), high, tested=True)


def _clips(out: Path, results: FoldResults, held_out: HeldOut, high: float, *, tested: bool = False) -> tuple[Clips, HeldOut]:
    dataset, level = results.dataset, stress_levels(results.dataset, high)
    keep = np.isfinite(level[held_out.sample])
    if not keep.any():
        raise InputError(f"{out}: none of its {len(held_out.sample)} clips has a level or is known to be of stress or not")
    held_out = _where(held_out, keep)
    paths = dataset.column("path")[held_out.sample].tolist()
    trials = Trials(level[held_out.sample], held_out.group.astype(str), high)
    return Clips(dataset, paths, held_out.sample, trials, tested), held_out


def stress_levels(dataset: Dataset, high: float) -> np.ndarray:
    """Return (rows,), NaN where unknown; in a dataset without levels `high` stands for stress, and 0 for none."""
    if any(output.name == "score" for output in dataset.info.layout.outputs):
        return dataset.targets("score")[:, 0].astype(np.float64)
    return high * dataset.targets(STRESS)[:, 1].astype(np.float64)


def _predictions(out: Path, results: FoldResults, *, tested: bool) -> HeldOut:
    """Return each fold's predictions of its held-out rows; tested: of the split test the mean over all folds' models."""
    strategy, held_out = next(iter(results.held_out.items()))
    if not tested:
        return held_out
    folds = list(results.test[strategy].values())
    if not folds:
        raise InputError(f"{out}: its dataset has no split test, the first one has; pack both from the same folders")
    return replace(folds[0], values={name: np.mean([fold.values[name] for fold in folds], axis=0) for name in folds[0].values})


def scores_of(clips: Clips, out: Path, name: str, order: str | None = None) -> tuple[Score, Score | None]:
    """Return (probability of stress, expected level or None) of each clip, NaN where that cross-validation has no prediction.

    A model of the level itself as a number gives (its prediction, None). order: of frames, in place of the one that the models
    were trained with.
    """
    results = collect(out)
    held_out = _predictions(out, results, tested=clips.tested)
    if order is not None:
        assert not clips.tested
        runs = next(iter(runs_in(out).values()))
        held_out = concat([
            predict(folder, fold, results.dataset, held_out.sample[held_out.fold == fold], order)
            for fold, folder in sorted(runs.items())
        ])  # fmt: skip
    place = {path: row for row, path in enumerate(results.dataset.column("path")[held_out.sample].tolist())}
    rows = np.array([place.get(path, -1) for path in clips.path])
    if (rows < 0).all():
        raise InputError(f"{out}: none of its clips is one of {clips.dataset.folder}; it has\n{first(list(place))}")

    def aligned(values: np.ndarray) -> np.ndarray:
        return np.where(rows < 0, np.nan, values[rows])

    outputs = {output.name: output for output in held_out.outputs}
    if STRESS not in outputs and SCORE in outputs:
        return Score(name, aligned(held_out.values[SCORE][:, 0].astype(np.float64))), None
    if STRESS not in outputs:
        raise InputError(f"{out}: its models have no output {STRESS!r} or {SCORE!r}, only {', '.join(outputs)}")
    stress = Score(name, aligned(softmax(held_out.values[STRESS])[:, 1].astype(np.float64)), in_levels=False)
    if LEVEL not in outputs:
        return stress, None
    level = softmax(held_out.values[LEVEL]) @ levels_of(results.dataset, outputs[LEVEL].names)
    return stress, Score(name, aligned(level))


def windows_of(out: Path) -> str:
    """Return the figures of single windows, in a sentence; empty where each clip is one window."""
    runs = next(iter(runs_in(out).values()))
    figures = [windows for folder in runs.values() if (windows := json.loads((folder / METRICS).read_text()).get("windows"))]
    if not figures:
        return ""
    means = ", ".join(f"{text} {np.mean([fold[name] for fold in figures]):.3f}" for name, text in WINDOWED.items())
    return f"Each window by itself, means of {len(figures)} folds: {means}. The prediction of a clip is the mean of its windows."


def levels_of(dataset: Dataset, names: tuple[str, ...]) -> np.ndarray:
    """Return (C,), the number of each class of levels, by the scores of the clips."""
    score, level = dataset.targets("score")[:, 0], dataset.targets(LEVEL)
    column = dict(zip(dataset.info.layout.output(LEVEL).names, level.T, strict=True))
    return np.array([np.nanmean(score[column[name] == 1]) for name in names])


def motion_of(clips: Clips) -> list[Score]:
    """Score how much moves in the stored frames; no score where the time of the stimulus is not known."""
    if not clips.dataset.has("meta.stimulus_s"):
        return []
    stimulus, scores = clips.of("meta.stimulus_s"), list[dict[str, float]]()
    with Progress("motion", len(clips.sample), "clips") as progress:
        for sample, at in zip(clips.sample.tolist(), stimulus.tolist(), strict=True):
            frames = (decode(data) for data in clips.dataset.frames(sample))
            scores.append(motion.motion_scores(frames, clips.dataset.times_s(sample), at))
            progress.advance(1)
    names = (*motion.BASELINES, motion.BEFORE)
    return [Score(name, np.array([one[name] for one in scores]), in_levels=False) for name in names]


def _where(held_out: HeldOut, keep: np.ndarray) -> HeldOut:
    values, targets = ({name: of[keep] for name, of in part.items()} for part in (held_out.values, held_out.targets))
    selected = replace(held_out, sample=held_out.sample[keep], fold=held_out.fold[keep], group=held_out.group[keep])
    return replace(selected, values=values, targets=targets)
