"""Draws cattle faces in motion, with scores, in the files that `affect pack pain` reads.

Each of seven features, 0 to 2, moves an eye, a brow, a cheek, an ear, the lips or the nostrils. A clip shows latent values; its
labels are the scores of a simulated rater: with an error, in whole numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from affect.shards.errors import InputError, check_new_folder
from affect.shards.sources.pain import FEATURES, MOST, NRS, STATES, TOTAL, VAS
from affect.shards.synthetic.drawing import FPS, Pen, write_jpegs, write_mp4

LABELS, SPLITS, TRUTH = "sequence_label_mapping_v2.json", "train_val_test_splits_v2.json", "truth.json"
MOMENT_MEANS = dict(zip(STATES, (0.35, 0.45, 1.15, 0.75, 0.55), strict=True))  # of a feature
BASELINE, CLIP, RATER = 0.15, 0.35, 0.30  # standard deviations: animals, a feature of a clip, a rater
SWAY = 0.15  # of a feature over the frames of a clip, its mean taken out
FOLDS = 9
COATS = ((38, 52, 84), (30, 30, 34), (150, 160, 170), (60, 96, 140), (92, 104, 112))  # BGR


@dataclass(frozen=True)
class Cattle:
    """The files that were written, and R2 of two predictions of the noisy totals, over all clips.

    oracle_r2: predicts the mean total that a rater gives to the latent values, which no model can beat.
    moment_r2: predicts the mean total of each moment.
    """

    labels: Path
    splits: Path
    oracle_r2: float
    moment_r2: float


@dataclass(frozen=True)
class Animal:
    """An animal: coat (BGR), proportions (1: mean), features at rest."""

    coat: tuple[int, int, int]
    blaze: float  # width of the pale stripe
    proportions: np.ndarray  # (4,) head width, head length, eye distance, ear length
    baseline: float


def write_cattle(
    folder: Path,
    animals: int = 20,
    clips: int = 386,
    size: int = 112,
    frames: int = 32,
    seed: int = 1337,
    form: Literal["jpg", "mp4"] = "jpg",
    advance: Callable[[int], None] = lambda count: None,
) -> Cattle:
    """`clips` of `animals` at five moments, as folders of JPEGs or as mp4, with the two JSONs and the latent values.

    The clips go through the animals first and the moments then: from 5 * animals clips on every animal has each moment.
    """
    check_new_folder(folder)
    if animals < 4 or clips < animals:
        raise InputError(f"{animals} animals, {clips} clips: expected at least 4 animals, and a clip each")
    names = [f"cow{number:02d}" for number in range(animals)]
    herd = [_animal(seed, number) for number in range(animals)]
    write = write_jpegs if form == "jpg" else write_mp4
    sequences, latents = [], np.empty((clips, len(FEATURES)))
    for clip in range(clips):
        number, moment = clip % animals, list(STATES)[clip // animals % len(STATES)]
        rng = np.random.default_rng((seed, 1, clip))
        latent = latents[clip] = _latent(rng, moment, herd[number])
        identity = f"{names[number]}_{moment}_{clip:04d}"
        path = f"{names[number]}/{moment}/{identity}" + (".mp4" if form == "mp4" else "")
        sequences.append(
            _rated(rng, latent)
            | {
                "sequence_path": path,
                "animal": names[number],
                "moment": moment,
                "sequence_id": identity,
                "num_frames": frames,
            }
        )
        write(folder / path, [_drawn(herd[number], features, size) for features in _motion(rng, latent, frames)], rng)
        advance(1)
    return _written(folder, names, sequences, latents)


def _written(folder: Path, names: list[str], sequences: list[dict[str, object]], latents: np.ndarray) -> Cattle:
    """Write the JSONs, last: where they are, all clips are written."""
    totals = np.array([float(str(sequence[TOTAL])) for sequence in sequences])
    moments = np.array([str(sequence["moment"]) for sequence in sequences])
    by_moment = np.array([totals[moments == moment].mean() for moment in moments])
    facts = {"oracle_r2": _r2(totals, _expected(latents).sum(1)), "moment_r2": _r2(totals, by_moment)}
    latent = {str(s["sequence_id"]): row.round(4).tolist() for s, row in zip(sequences, latents, strict=True)}
    (folder / TRUTH).write_text(json.dumps({**facts, "features": FEATURES, "latent": latent}, indent=1))
    (folder / SPLITS).write_text(json.dumps(_folds(names), indent=1))
    (folder / LABELS).write_text(json.dumps({"sequences": sequences}, indent=1))
    return Cattle(folder / LABELS, folder / SPLITS, **facts)


def _folds(names: list[str]) -> dict[str, object]:
    """The last animals, a tenth of them, for testing; the others in up to nine folds."""
    num_test = max(1, len(names) // 10)
    rest, test = names[:-num_test], names[-num_test:]
    count = min(FOLDS, len(rest))
    folds = [
        {"fold": i, "train_animals": [name for name in rest if name not in rest[i::count]], "val_animals": rest[i::count]}
        for i in range(count)
    ]
    return {"test_animals": test, "cv_folds": folds}


def _animal(seed: int, number: int) -> Animal:
    rng = np.random.default_rng((seed, 0, number))
    coat = np.array(COATS[number % len(COATS)]) + rng.integers(-12, 13, 3)
    b, g, r = coat.clip(0, 255).tolist()
    return Animal((b, g, r), rng.uniform(0, 0.3), 1 + rng.normal(0, 0.05, 4), rng.normal(0, BASELINE))


def _latent(rng: np.random.Generator, moment: str, animal: Animal) -> np.ndarray:
    """(7,) in [0, 2]. Half of the spread between clips is common to all features: an animal in pain shows more of each."""
    spread = CLIP * math.sqrt(0.5) * (rng.normal() + rng.normal(size=len(FEATURES)))
    return (MOMENT_MEANS[moment] + animal.baseline + spread).clip(0, MOST)


def _rated(rng: np.random.Generator, latent: np.ndarray) -> dict[str, object]:
    """The scores that a rater writes down."""
    scores = np.rint(latent + rng.normal(0, RATER, len(latent))).clip(0, MOST).astype(int).tolist()
    pain = latent.sum() / (MOST * len(latent))
    nrs, vas = 1 + 9 * pain + rng.normal(0, 0.7), 100 * pain + rng.normal(0, 6)
    return dict(zip(FEATURES, scores, strict=True)) | {
        TOTAL: sum(scores),
        NRS: round(min(max(nrs, 1), 10)),
        VAS: round(min(max(vas, 0), 100)),
    }


def _expected(latents: np.ndarray) -> np.ndarray:
    """The mean score that a rater gives: P(score >= 1) + P(score >= 2)."""
    above = [(latents - edge) / (RATER * math.sqrt(2)) for edge in (0.5, 1.5)]
    return sum((np.vectorize(math.erf)(z) + 1) / 2 for z in above)


def _r2(true: np.ndarray, predicted: np.ndarray) -> float:
    return round(float(1 - ((true - predicted) ** 2).sum() / ((true - true.mean()) ** 2).sum()), 4)


def _motion(rng: np.random.Generator, latent: np.ndarray, count: int) -> np.ndarray:
    """(T, 7 + 5): features as each frame shows them, their means the latents; blink, x, y, tilt of the head, brightness."""
    t = np.arange(count) / FPS
    waves = np.sin(2 * math.pi * rng.uniform(0.3, 1.2, (len(latent), 1)) * t + rng.uniform(0, 2 * math.pi, (len(latent), 1)))
    shown = (latent[:, None] + SWAY * (waves - waves.mean(1, keepdims=True))).T
    blink = np.exp(-(((t - rng.uniform(-0.5, count / FPS + 0.5)) / 0.08) ** 2))
    sway = np.sin(2 * math.pi * rng.uniform(0.2, 0.6, (3, 1)) * t + rng.uniform(0, 6, (3, 1))).T * (0.02, 0.02, 3.0)
    place = sway + rng.normal(0, (0.02, 0.02, 3.0))
    return np.column_stack([shown, blink, place, np.full(count, rng.uniform(0.8, 1.15))])


def _drawn(animal: Animal, features: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8 BGR: one frame. Lengths are shares of the size, from the middle of the head."""
    orbital, brow, cheek, frontal, lateral, lip, nostril, blink, x, y, tilt, light = features
    width, length, apart, ear = animal.proportions * (0.2, 0.31, 0.125, 0.16)
    pen = Pen(np.full((size, size, 3), (70, 120, 110), np.uint8), x, y, tilt)
    coat, dark = animal.coat, tuple(int(0.55 * value) for value in animal.coat)
    mark = dark if sum(coat) > 240 else tuple(value + 60 for value in coat)  # of what a black face would hide
    for side in (-1, 1):  # lateral: they drop; frontal: they turn their opening forward and look wider
        angle = 10 + 22 * lateral
        reach = math.radians(angle)
        centre = (side * (0.85 * width + 0.8 * ear * math.cos(reach)), -0.2 + ear * math.sin(reach))
        pen.oval(*centre, ear, 0.04 + 0.025 * frontal, dark, side * angle)
        pen.oval(*centre, 0.7 * ear, 0.012 + 0.022 * frontal, (120, 130, 190), side * angle)
    pen.oval(0, 0, width, length, coat)
    pen.oval(0, -0.08, animal.blaze * width, 0.5 * length, (215, 220, 225))
    pen.oval(0, 0.22 - 0.012 * lip, 0.155 - 0.012 * nostril, 0.11, (150, 160, 195))
    for side in (-1, 1):
        eye = side * apart
        opening = 0.008 + 0.032 * (1 - 0.42 * orbital) * (1 - 0.9 * blink)
        pen.oval(eye, -0.08, 0.05, opening + 0.006, (170, 185, 200))
        pen.oval(eye, -0.08, 0.04, opening, (25, 20, 18))
        rise = 0.03 * (brow - 1)
        pen.line(eye - 0.055, -0.155 - side * rise, eye + 0.055, -0.155 + side * rise, 0.01 + 0.012 * brow, mark)
        pen.line(side * 0.8 * width, 0.02, side * 0.1, 0.14, 0.002 + 0.018 * cheek, mark)
        pen.oval(side * 0.07, 0.19, 0.016 + 0.01 * nostril, 0.012 + 0.012 * nostril, (40, 35, 60), side * 25)
        pen.line(side * 0.1, 0.27 + 0.025 * (1 - lip), 0, 0.27, 0.012, (50, 45, 70))
    return cv2.convertScaleAbs(pen.picture, alpha=light)
