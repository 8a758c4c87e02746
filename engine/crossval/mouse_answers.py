"""What cross-validations of mice have said of each clip, for `engine/report/mouse.py`. Axes: N clips, C classes.

Clips are known by their paths: a control may be trained on another packing of the same recordings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from affect.engine.calibrate import read_calibration
from affect.engine.crossval.folds import runs_in
from affect.engine.crossval.held_out import HeldOut, concat
from affect.engine.crossval.report import collect
from affect.engine.data.loader import eval_loader
from affect.engine.device import choose_device
from affect.engine.evaluation import predictions
from affect.engine.evaluation.subject import in_torch, trained_model
from affect.engine.metrics import softmax
from affect.engine.progress import Progress
from affect.engine.report import motion
from affect.engine.report.ordinal import Score, Trials
from affect.shards.errors import InputError, first
from affect.shards.images import decode
from affect.shards.read import Dataset

LEVEL, STRESS, SCORE = "level", "stress", "score"


@dataclass(frozen=True)
class Clips:
    """The clips that are judged, of one dataset: path, animal and level of each, (N,); sample (N,) int64."""

    dataset: Dataset
    path: list[str]
    sample: np.ndarray
    trials: Trials

    def of(self, name: str) -> np.ndarray:
        """(N,) a column of the index."""
        return self.dataset.column(name)[self.sample]


def clips_of(out: Path, high: float = 3) -> tuple[Clips, HeldOut]:
    """The clips that the folds of a cross-validation held out and that have a level, and what was said of them."""
    found = collect(out)
    dataset, held = found.dataset, next(iter(found.held.values()))
    score = dataset.targets("score")[:, 0].astype(np.float64)
    keep = np.isfinite(score[held.sample])
    if not keep.any():
        raise InputError(f"{out}: none of its {len(held.sample)} clips has a level; pack trials: affect pack mouse")
    held = _where(held, keep)
    paths = dataset.column("path")[held.sample].tolist()
    return Clips(dataset, paths, held.sample, Trials(score[held.sample], held.group.astype(str), high)), held


def scores_of(clips: Clips, out: Path, name: str, order: str | None = None) -> tuple[Score, Score | None]:
    """(probability of stress, expected level or None) of each clip, NaN where it was not held out there.

    Of a model of the level itself as a number: (what it says, None). order: of frames, in place of the one that the models were
    trained with.
    """
    found = collect(out)
    held = next(iter(found.held.values()))
    if order is not None:
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


def levels_of(dataset: Dataset, names: tuple[str, ...]) -> np.ndarray:
    """(C,) the number of each class of levels, by the clips' own scores."""
    score, level = dataset.targets("score")[:, 0], dataset.targets(LEVEL)
    column = dict(zip(dataset.info.layout.output(LEVEL).names, level.T, strict=True))
    return np.array([np.nanmean(score[column[name] == 1]) for name in names])


def motion_of(clips: Clips) -> list[Score]:
    """The plain scores of how much moves, of the stored frames."""
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
    loader = eval_loader(dataset, held.sample[here], run.preprocess, (), device, clip=clip, kind=run.data.loader)
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
