"""Held-out rows of folds as the pain report reads them. Axes: N clips, S scalars, the last of them the total."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from affect.engine.crossval.held_out import HeldOut
from affect.engine.metrics.classification import softmax
from affect.engine.metrics.regression import TOTAL
from affect.engine.report.pain.out_of_fold import STATES, UNKNOWN, PainPredictions
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.schema import Output

PAIN, STATE, MOMENT = "pain", "state", "meta.moment"


def is_pain(outputs: tuple[Output, ...]) -> bool:
    """Whether the outputs are those of a pain model: scalars with a total."""
    return any(output.name == PAIN and output.kind == "scalars" and TOTAL in output.names for output in outputs)


def pain_predictions(held_out: HeldOut, dataset: Dataset, train: Mapping[int, np.ndarray]) -> PainPredictions:
    """Convert held-out rows. train: fold -> its training rows, for the naive baselines."""
    output = next(output for output in held_out.outputs if output.name == PAIN)
    order = [i for i, name in enumerate(output.names) if name != TOTAL] + [output.names.index(TOTAL)]
    if (held_out.group == "").any():
        raise InputError(
            f"{dataset.folder}: {int((held_out.group == '').sum())} clips have no group, which is to be their animal"
        )
    moment = _moments(dataset)
    targets = dataset.targets(PAIN)[:, order]
    mean, by_moment = _naive(targets, moment, train, held_out.fold, moment[held_out.sample])
    state, probs = _states(held_out)
    return PainPredictions(
        held_out.sample, held_out.fold, held_out.group, moment[held_out.sample], tuple(output.names[i] for i in order),
        held_out.targets[PAIN][:, order].astype(np.float64), held_out.values[PAIN][:, order].astype(np.float64),
        state, probs, mean, by_moment,
    )  # fmt: skip


def _moments(dataset: Dataset) -> np.ndarray:
    """(samples,) str, '' where it is not known."""
    if not dataset.has(MOMENT):
        return np.full(dataset.info.num_samples, "")
    codes, names = dataset.coded(MOMENT)
    return np.array([*names, ""], dtype=str)[codes]


def _naive(
    targets: np.ndarray, moments: np.ndarray, train: Mapping[int, np.ndarray], fold: np.ndarray, moment: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, S) each: the mean of the fold's training rows, and of those of the same moment, NaN where there are none."""
    mean, by_moment = (np.full((len(fold), targets.shape[1]), np.nan) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of no label is NaN
        for number, rows in train.items():
            here = fold == number
            mean[here] = np.nanmean(targets[rows], axis=0)
            for name in np.unique(moment[here]).tolist():
                rows_of_moment = rows[moments[rows] == name]
                if name and len(rows_of_moment):
                    by_moment[here & (moment == name)] = np.nanmean(targets[rows_of_moment], axis=0)
    return mean, by_moment


def _states(held_out: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """(N,) label, -1 unknown; (N, 3) probabilities, NaN without such an output."""
    output = next((one for one in held_out.outputs if one.name == STATE and set(one.names) == set(STATES)), None)
    if output is None:
        return np.full(len(held_out.sample), UNKNOWN), np.full((len(held_out.sample), len(STATES)), np.nan)
    order = [output.names.index(name) for name in STATES]
    target = held_out.targets[STATE][:, order]
    label = np.where(np.isnan(target).any(1), UNKNOWN, np.nan_to_num(target).argmax(1))
    return label, softmax(held_out.values[STATE])[:, order].astype(np.float64)
