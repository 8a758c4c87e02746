"""Draws mice under stimulation, as clips in the files that `affect pack mouse` reads, to measure what a model can learn.

order: under stress ears and whisker pad turn from front to back, without it from back to front: the frames are the same, and only
their order differs. shortcut: in the training cohort the background is bright under stress; in another cohort it is random.
levels: five levels of a stimulus, after which ears, eyes and whiskers move in proportion.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from affect.shards.errors import InputError, check_new_folder
from affect.shards.sources.mouse_trials import HIGH, TRIALS
from affect.shards.synthetic.drawing import Pen, write_jpegs, write_mp4

Cue = Literal["levels", "order", "shortcut"]
SHOCKS_UA = (0, 50, 150, 300, 500)  # of levels 0 to 4
HEAD = (0.14, 0.12, 0.72, 0.76)  # x, y, width, height, as shares of the size: the mouse never leaves it
HOME, EXTERNAL = "home", "external"
FPS, NOISE = 20, 0.10  # NOISE: deviation between trials of how much a mouse moves
FURS = ((70, 70, 74), (120, 130, 140), (60, 90, 130), (96, 100, 100))  # BGR


@dataclass(frozen=True)
class Trial:
    """A row of the CSV. true_intensity: what the clip shows, where its label was flipped."""

    clip: str
    subject: str
    sex: str
    source: str
    split: str
    intensity: int
    true_intensity: int
    shock_uA: int
    session_position: int
    trigger_first_frame: int
    fps: int


@dataclass(frozen=True)
class Mouse:
    """An animal: fur (BGR), sizes (1: mean) and the ears' position at rest."""

    fur: tuple[int, int, int]
    sizes: np.ndarray  # (3,) head, ear, eye
    rest: float


def write_mice(
    folder: Path,
    clips: int = 400,
    animals: int = 8,
    *,
    cue: Cue = "levels",
    flip_labels: float = 0.0,
    size: int = 64,
    frames: int = 16,
    form: Literal["jpg", "mp4"] = "jpg",
    seed: int = 1337,
    advance: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write `clips` clips in a random order of levels, and last the CSV, whose path is returned; a quarter of the animals is val.

    With a shortcut there are as many animals and clips again in the cohort `external`, split test.
    flip_labels: this share of the training trials gets the other label, of levels one that is drawn from the others.
    """
    check_new_folder(folder)
    if animals < 2 or clips < 2 * animals or frames < 2:
        raise InputError(f"{animals} animals, {clips} clips of {frames} frames: expected at least 2 of each, 2 clips an animal")
    write = write_jpegs if form == "jpg" else write_mp4
    trials = [
        trial
        for cohort in ((HOME, EXTERNAL) if cue == "shortcut" else (HOME,))
        for trial in _trials(cohort, clips, animals, cue, flip_labels, frames, form, seed)
    ]
    for number, trial in enumerate(trials):
        rng = np.random.default_rng((seed, 2, number))
        mouse = _mouse(seed, trial.subject)
        light = _light(rng, trial.true_intensity, cue, trial.source)
        shown = _ordered(rng, trial.true_intensity, frames) if cue == "order" else _after(rng, trial, cue, frames)
        write(folder / trial.clip, [_drawn(mouse, moved, light, size) for moved in shown], rng)
        advance(1)
    with (folder / TRIALS).open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(asdict(trials[0])))
        table.writeheader()
        table.writerows(map(asdict, trials))
    return folder / TRIALS


def head_box(size: int) -> tuple[int, int, int, int]:
    """x, y, width, height in pixels of a box around the mouse, as --box takes it."""
    x, y, width, height = (round(share * size) for share in HEAD)
    return x, y, width, height


def _trials(
    cohort: str, clips: int, animals: int, cue: Cue, flip_labels: float, frames: int, form: str, seed: int
) -> list[Trial]:
    """Every animal has equally many trials of each level, in a random order."""
    levels = tuple(range(len(SHOCKS_UA))) if cue == "levels" else (0, len(SHOCKS_UA) - 1)
    held_out, trials = max(1, animals // 4), list[Trial]()
    for animal in range(animals):
        rng = np.random.default_rng((seed, 1, cohort == EXTERNAL, animal))
        name = f"{cohort[0]}{animal:02d}"
        split = "test" if cohort == EXTERNAL else "val" if animal >= animals - held_out else "train"
        shown = [levels[i % len(levels)] for i in range(clips // animals + (animal < clips % animals))]
        for position, level in enumerate(rng.permutation(shown).tolist()):
            label = level
            if split == "train" and rng.random() < flip_labels:
                label = int(rng.choice([other for other in levels if other != level]))
            clip = f"{name}/{name}_{position:03d}" + (".mp4" if form == "mp4" else "")
            sex = "FM"[animal % 2]
            trials.append(Trial(clip, name, sex, cohort, split, label, level, SHOCKS_UA[label], position, frames // 3, FPS))
    return trials


def _mouse(seed: int, name: str) -> Mouse:
    rng = np.random.default_rng((seed, 0, *name.encode()))
    b, g, r = (np.array(FURS[rng.integers(len(FURS))]) + rng.integers(-10, 11, 3)).clip(0, 255).tolist()
    return Mouse((b, g, r), 1 + rng.normal(0, 0.05, 3), rng.normal(0, 0.05))


def _light(rng: np.random.Generator, level: int, cue: Cue, cohort: str) -> float:
    """Brightness of the background, 0 to 1: random, but by the level in the home cohort with a shortcut."""
    bright = level >= HIGH if cue == "shortcut" and cohort == HOME else rng.random() < 0.5
    return float(rng.uniform(0.6, 0.9) if bright else rng.uniform(0.1, 0.4))


def _ordered(rng: np.random.Generator, level: int, frames: int) -> np.ndarray:
    """(T, 5) ears, eyes, whiskers, x, y: ears and whiskers move once through their range.

    The level decides only the direction: a clip of one level is a clip of the other in reverse.
    """
    start, end = rng.uniform(0, 0.25), rng.uniform(0.75, 1)
    way = np.linspace(start, end, frames) + rng.normal(0, 0.02, frames)
    shake = _shake(rng, frames)
    moved = np.column_stack([way, np.full(frames, rng.uniform(0, 0.6)), way, shake])
    return moved if level >= HIGH else moved[::-1]


def _after(rng: np.random.Generator, trial: Trial, cue: Cue, frames: int) -> np.ndarray:
    """(T, 5) ears, eyes, whiskers, x, y: after the stimulus ears turn, eyes narrow and whiskers shake by the level."""
    seconds = (np.arange(frames) - trial.trigger_first_frame) / FPS
    risen = np.where(seconds < 0, 0, 1 - np.exp(-seconds / 0.08))
    most = 0.35 if cue == "shortcut" else 0.8  # with a shortcut the face shows less
    amount = most * trial.true_intensity / (len(SHOCKS_UA) - 1) + rng.normal(0, NOISE)
    beat = np.sin(2 * math.pi * rng.uniform(3, 6) * seconds + rng.uniform(0, 6))
    whiskers = 0.5 + 0.05 * beat + 0.4 * max(amount, 0) * risen * beat
    ears, eyes = (0.1 + risen * (amount + rng.normal(0, NOISE / 2)) for _ in range(2))
    return np.column_stack([ears, eyes, whiskers, _shake(rng, frames)])


def _shake(rng: np.random.Generator, frames: int) -> np.ndarray:
    """(T, 2) x, y of the head about its place, as shares of the size."""
    return rng.normal(0, 0.01, 2) + rng.normal(0, 0.003, (frames, 2))


def _drawn(mouse: Mouse, moved: np.ndarray, light: float, size: int) -> np.ndarray:
    """(size, size, 3) uint8 BGR: a head from the side, its nose to the left. Lengths are shares of the size."""
    ears, eyes, whiskers, x, y = moved
    head, ear, eye = mouse.sizes
    ground = int(40 + 170 * light)
    pen = Pen(np.full((size, size, 3), (ground, ground, ground), np.uint8), float(x), float(y), 0.0)
    dark = tuple(int(0.6 * value) for value in mouse.fur)
    angle = -60 + 100 * (ears + mouse.rest)  # degrees: upright, then back
    reach = math.radians(angle)
    at = 0.12 + 0.09 * ear * math.sin(reach), -0.14 - 0.09 * ear * math.cos(reach)
    pen.oval(*at, 0.11 * ear, 0.06 * ear, dark, angle - 90)
    pen.oval(0.02, 0.02, 0.24 * head, 0.17 * head, mouse.fur)
    pen.oval(-0.18, 0.07, 0.1 * head, 0.07 * head, mouse.fur)
    pen.oval(-0.26, 0.06, 0.02, 0.02, (120, 110, 170))
    pen.oval(-0.03, -0.03, 0.042 * eye, 0.008 + 0.034 * float(np.clip(1 - eyes, 0, 1)), (15, 15, 15))
    for side in (-1, 0, 1):
        turn = math.radians(200 - 110 * whiskers + 14 * side)
        pen.line(-0.16, 0.08, -0.16 + 0.16 * math.cos(turn), 0.08 + 0.16 * math.sin(turn), 0.012, (235, 235, 235))
    return cv2.GaussianBlur(pen.picture, (3, 3), 0)
