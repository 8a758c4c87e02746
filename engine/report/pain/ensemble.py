"""Several models as one: the mean of folds, and a general model with a specialist for acute pain. Axes: N clips, S scalars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from affect.engine.report.pain.out_of_fold import ACUTE, ACUTE_MOMENT, PainPredictions
from affect.shards.errors import InputError, first

ORACLE = "oracle, uses the true moment"
TOGETHER = -1  # the fold of a prediction that several models made together


def gated(general: np.ndarray, specialist: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(1 - p) general + p specialist, (N, S). p: (N,) probability of acute pain, in [0, 1]."""
    if p.shape != general.shape[:1] or not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"gate: expected ({len(general)},) probabilities in [0, 1], got {p.shape}, some outside or NaN")
    p = p[:, None]
    return np.where(p == 0, general, np.where(p == 1, specialist, (1 - p) * general + p * specialist))


def mean_of(members: Sequence[PainPredictions]) -> PainPredictions:
    """Return the members' mean prediction of the clips of the first, and the mean of their training means.

    Meant for the folds of one cross-validation on test animals, which none of them was trained on. fold: -1 where they differ.
    """
    if not members:
        raise InputError("no models to average; expected at least one")
    members = [aligned(member, members[0]) for member in members]
    means = {
        name: np.mean([getattr(member, name) for member in members], axis=0)
        for name in ("predicted", "state_probs", "train_mean", "train_moment_mean")
    }
    same = np.all([member.fold == members[0].fold for member in members], axis=0)
    return replace(members[0], **means, fold=np.where(same, members[0].fold, TOGETHER))


def with_specialist(general: PainPredictions, specialist: PainPredictions) -> PainPredictions:
    """Mix both models clip by clip, by the general model's own probability of acute pain."""
    p = general.state_probs[:, ACUTE].astype(np.float64)
    if np.isnan(p).any():
        raise InputError(f"the general model predicts no state of {np.isnan(p).sum()} clips: it needs a state head to gate with")
    return replace(general, predicted=gated(general.predicted, aligned(specialist, general).predicted, p))


def with_true_moment(general: PainPredictions, specialist: PainPredictions) -> PainPredictions:
    """Mix both models by the true moment, a gate that is never wrong; to be printed as ORACLE, never as a result."""
    p = (general.moment == ACUTE_MOMENT).astype(np.float64)
    return replace(general, predicted=gated(general.predicted, aligned(specialist, general).predicted, p))


def specialist_rows(general: PainPredictions, specialist: PainPredictions) -> dict[str, PainPredictions]:
    """Return the general model alone, with the specialist, and with the oracle's gate: names and predictions for `compare`."""
    both = "general + specialist"
    return {
        "general": general,
        both: with_specialist(general, specialist),
        f"{both} ({ORACLE})": with_true_moment(general, specialist),
    }


def aligned(predictions: PainPredictions, like: PainPredictions) -> PainPredictions:
    """Return the rows of `like`, matched by sample. Raises InputError where one is missing or is labelled otherwise."""
    place = {sample: row for row, sample in enumerate(predictions.sample.tolist())}
    missing = [sample for sample in like.sample.tolist() if sample not in place]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(like)} clips are predicted by one model alone: samples\n{first(missing)}\n"
            "evaluate both on the same"
        )
    matched = predictions.where(np.array([place[sample] for sample in like.sample.tolist()], np.int64))
    if matched.names != like.names or not np.array_equal(matched.target, like.target, equal_nan=True):
        raise InputError("the same samples have other labels: the models were evaluated on different datasets")
    return matched
