"""What cross-validations of mice have said of each clip, for `engine/report/mouse_cohorts.py`. Axes: N clips, C classes.

Clips are known by their paths: a control may be trained on another packing of the same recordings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from affect.engine.calibration.calibration import read_calibration
from affect.engine.crossval.fold_results import FoldResults, collect
from affect.engine.crossval.held_out import HeldOut, concat
from affect.engine.crossval.run_folds import runs_in
from affect.engine.data.build import eval_loader
from affect.engine.evaluation import predictions
from affect.engine.evaluation.evaluated_model import in_torch
from affect.engine.metrics.classification import softmax
from affect.engine.report import motion
from affect.engine.report.ordinal import Score, Trials
from affect.engine.runs.files import METRICS
from affect.engine.runs.trained import trained_model
from affect.engine.system.device import choose_device
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
        """(N,) a column of the index."""
        return self.dataset.column(name)[self.sample]


def clips_of(out: Path, high: float = 3) -> tuple[Clips, HeldOut]:
    """The clips that the folds of a cross-validation held out and that have a level, and what was said of them."""
    found = collect(out)
    return _clips(out, found, _answers(out, found, tested=False), high)


def clips_apart(out: Path, high: float = 3) -> tuple[Clips, HeldOut] | None:
    """The same of the split test, of which every fold's model says something: the mean; None where there is no such split."""
    found = collect(out)
    if not found.dataset.info.counts.get("test"):
        return None
    return _clips(out, found, _answers(out, found, tested=True), high, tested=True)


def _clips(out: Path, found: FoldResults, held: HeldOut, high: float, *, tested: bool = False) -> tuple[Clips, HeldOut]:
    dataset, level = found.dataset, _levels(found.dataset, high)
    keep = np.isfinite(level[held.sample])
    if not keep.any():
        raise InputError(f"{out}: none of its {len(held.sample)} clips has a level or is known to be of stress or not")
    held = _where(held, keep)
    paths = dataset.column("path")[held.sample].tolist()
    return Clips(dataset, paths, held.sample, Trials(level[held.sample], held.group.astype(str), high), tested), held


def _levels(dataset: Dataset, high: float) -> np.ndarray:
    """(rows,) NaN where unknown; in a dataset without levels `high` stands for stress, and 0 for none."""
    if any(output.name == "score" for output in dataset.info.layout.outputs):
        return dataset.targets("score")[:, 0].astype(np.float64)
    return high * dataset.targets(STRESS)[:, 1].astype(np.float64)


def _answers(out: Path, found: FoldResults, *, tested: bool) -> HeldOut:
    """What each fold says of its own rows; tested: of the split test the mean of what all folds' models say."""
    strategy, held = next(iter(found.held.items()))
    if not tested:
        return held
    folds = list(found.test[strategy].values())
    if not folds:
        raise InputError(f"{out}: its dataset has no split test, the first one has; pack both from the same folders")
    return replace(folds[0], values={name: np.mean([fold.values[name] for fold in folds], axis=0) for name in folds[0].values})


def scores_of(clips: Clips, out: Path, name: str, order: str | None = None) -> tuple[Score, Score | None]:
    """(probability of stress, expected level or None) of each clip, NaN where nothing was said of it there.

    Of a model of the level itself as a number: (what it says, None). order: of frames, in place of the one that the models were
    trained with.
    """
    found = collect(out)
    held = _answers(out, found, tested=clips.tested)
    if order is not None:
        assert not clips.tested
        runs = next(iter(runs_in(out).values()))
        held = concat([_reordered(folder, fold, found.dataset, held, order) for fold, folder in sorted(runs.items())])
    place = {path: row for row, path in enumerate(found.dataset.column("path")[held.sample].tolist())}
    rows = np.array([place.get(path, -1) for path in clips.path])
    if (rows < 0).all():
        raise InputError(f"{out}: none of its clips is one of {clips.dataset.folder}; it has\n{first(list(place))}")

    def aligned(values: np.ndarray) -> np.ndarray:
        return np.where(rows < 0, np.nan, values[rows])

    outputs = {output.name: output for output in held.outputs}
    if STRESS not in outputs and SCORE in outputs:
        return Score(name, aligned(held.values[SCORE][:, 0].astype(np.float64))), None
    if STRESS not in outputs:
        raise InputError(f"{out}: its models have no output {STRESS!r} or {SCORE!r}, only {', '.join(outputs)}")
    stress = Score(name, aligned(softmax(held.values[STRESS])[:, 1].astype(np.float64)), in_levels=False)
    if LEVEL not in outputs:
        return stress, None
    level = softmax(held.values[LEVEL]) @ levels_of(found.dataset, outputs[LEVEL].names)
    return stress, Score(name, aligned(level))


def windows_of(out: Path) -> str:
    """What windows say one by one, in a sentence; empty where each clip is one window."""
    runs = next(iter(runs_in(out).values()))
    found = [json.loads((folder / METRICS).read_text()).get("windows") for folder in runs.values()]
    said = [figures for figures in found if figures]
    if not said:
        return ""
    means = ", ".join(f"{text} {np.mean([of[name] for of in said]):.3f}" for name, text in WINDOWED.items())
    return f"Each window by itself, means of {len(said)} folds: {means}. What is said of a clip is the mean of its windows."


def levels_of(dataset: Dataset, names: tuple[str, ...]) -> np.ndarray:
    """(C,) the number of each class of levels, by the clips' own scores."""
    score, level = dataset.targets("score")[:, 0], dataset.targets(LEVEL)
    column = dict(zip(dataset.info.layout.output(LEVEL).names, level.T, strict=True))
    return np.array([np.nanmean(score[column[name] == 1]) for name in names])


def motion_of(clips: Clips) -> list[Score]:
    """The plain scores of how much moves, of the stored frames; none where it is not known when the stimulus was."""
    if not clips.dataset.has("meta.stimulus_s"):
        return []
    stimulus, found = clips.of("meta.stimulus_s"), list[dict[str, float]]()
    with Progress("motion", len(clips.sample), "clips") as progress:
        for sample, at in zip(clips.sample.tolist(), stimulus.tolist(), strict=True):
            frames = (decode(data) for data in clips.dataset.frames(sample))
            found.append(motion.motion_scores(frames, clips.dataset.times_s(sample), at))
            progress.advance(1)
    names = (*motion.BASELINES, motion.BEFORE)
    return [Score(name, np.array([one[name] for one in found]), in_levels=False) for name in names]


def _reordered(folder: Path, fold: int, dataset: Dataset, held: HeldOut, order: str) -> HeldOut:
    """What the fold's model says of its own rows when it sees their frames in another order."""
    run, model, layout = trained_model(folder)
    here, device = held.fold == fold, choose_device(run.train.device)
    assert run.data.clip is not None
    clip = run.data.clip.model_copy(update={"order": order})
    loader = eval_loader(
        dataset, held.sample[here], run.preprocess, (), device, clip=clip, kind=run.data.loader, side=run.data.side
    )
    values = predictions.collect(in_torch(model.to(device)), loader)
    if loader.windows:
        _, values = predictions.pooled(loader.windows.sample, values)
    if layout.first_classes:
        name = layout.first_classes.name
        values[name] = read_calibration(folder).apply(values[name])
    return replace(_where(held, here), values=values)


def _where(held: HeldOut, keep: np.ndarray) -> HeldOut:
    values, targets = ({name: of[keep] for name, of in part.items()} for part in (held.values, held.targets))
    kept = replace(held, sample=held.sample[keep], fold=held.fold[keep], group=held.group[keep])
    return replace(kept, values=values, targets=targets)
