"""Draws faces in the files of RAF-CE: compound emotions by their action units, as rare and as irregular as the published ones.

Source of COMPOUNDS: after Du, Tao & Martinez, Compound facial expressions of emotion, PNAS 2014, table 1; the shares, and the
last two emotions, which are not in it, are chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError, check_new_folder
from affect.shards.synthetic import faces
from affect.shards.synthetic.expressions import DRAWN, Expression

# fmt: off
COMPOUNDS: dict[str, dict[int, float]] = {  # the most frequent first: unit -> share of the faces that show it
    "Fearfully surprised":   {1: 0.98, 2: 0.98, 5: 0.95, 25: 0.98, 27: 0.55, 20: 0.35, 26: 0.3},
    "Angrily disgusted":     {4: 0.98, 9: 0.95, 10: 0.9, 7: 0.6, 17: 0.4, 23: 0.35, 24: 0.25},
    "Sadly angry":           {4: 0.98, 15: 0.98, 43: 0.3, 7: 0.5, 17: 0.4, 24: 0.35, 23: 0.25},
    "Happily surprised":     {1: 0.98, 2: 0.98, 12: 0.98, 25: 0.9, 26: 0.6, 6: 0.3},
    "Sadly disgusted":       {1: 0.95, 4: 0.95, 10: 0.98, 15: 0.98, 43: 0.45, 17: 0.3},
    "Happily disgusted":     {9: 0.95, 10: 0.9, 12: 0.98, 6: 0.5, 25: 0.6, 16: 0.35},
    "Fearfully angry":       {4: 0.98, 5: 0.98, 20: 0.98, 25: 0.9, 16: 0.4},
    "Disgustedly surprised": {1: 0.98, 2: 0.98, 10: 0.98, 9: 0.7, 5: 0.5, 17: 0.3},
    "Sadly fearful":         {1: 0.98, 4: 0.98, 20: 0.98, 25: 0.9, 43: 0.3},
    "Angrily surprised":     {4: 0.98, 7: 0.9, 25: 1.0, 27: 0.95},
    "Fearfully disgusted":   {1: 0.98, 4: 0.98, 9: 0.98, 10: 0.95, 20: 0.98, 25: 0.95},
    "Sadly surprised":       {1: 0.98, 4: 0.98, 25: 1.0, 26: 0.98, 15: 0.5},
    "Happily fearful":       {1: 0.98, 2: 0.95, 5: 0.98, 12: 0.98, 20: 0.95, 25: 0.98},
    "Happily sad":           {1: 0.98, 4: 0.98, 12: 0.98, 17: 0.7, 43: 0.6},
}
# fmt: on
EXTRA_CHANCE = 0.05  # of every other unit, in every face
ONE_OF = ((5, 43), (7, 43), (12, 15), (12, 23), (12, 24), (23, 24), (26, 27), *((24, mouth) for mouth in (16, 20, 25, 26, 27)))
INTENSITY = (0.75, 1.0)
SIDED = {12: "LR", 14: "LR", 23: "BT"}  # L: the left of the person, which is on the right of the picture
SIDED_CHANCE = 0.12
STRAYS = ("?", "12?", "AU", "2x")
UNITS = tuple(sorted(int(name.removeprefix("AU")) for name in DRAWN))


@dataclass(frozen=True)
class Labels:
    """A row of each file, and the face that is drawn for it."""

    name: str
    emotion: str
    split: int
    units: str
    expression: Expression


def labels_of(
    num_images: int, *, seed: int, rarest: int, null: float, strays: float, label_noise: float, shares: Sequence[float]
) -> list[Labels]:
    """See `write_rafce`. Raises InputError where so many emotions and splits cannot be filled."""
    least = rarest * len(COMPOUNDS)
    if rarest < len(shares) or num_images < least:
        raise InputError(
            f"{num_images} images with {rarest} of the rarest emotion: expected {len(shares)} or more of it, so that every split "
            f"has one, and {least} images or more"
        )
    rng = np.random.default_rng(seed)
    counts = _counts(num_images, rarest)
    rows = [(emotion, split) for emotion, n in zip(COMPOUNDS, counts, strict=True) for split in _splits(n, shares)]
    order, width = rng.permutation(len(rows)), max(4, len(str(num_images)))
    labels, num_strays = [], 0
    for number, row in enumerate(order, start=1):
        emotion, split = rows[row]
        expression, sides = _expression(rng, emotion)
        units = {unit for unit in UNITS if expression.au[f"AU{unit}"]}
        units ^= {unit for unit in UNITS if rng.random() < label_noise}
        tokens = [f"{sides.get(unit, '')}{unit}" for unit in sorted(units)]
        if rng.random() < strays:
            tokens, num_strays = [*tokens, STRAYS[num_strays % len(STRAYS)]], num_strays + 1
        text = "null" if rng.random() < null or not tokens else "+".join(tokens)
        labels.append(Labels(f"{number:0{width}d}", emotion, split, text, expression))
    return labels


def write_rafce(
    folder: Path,
    num_images: int = 3000,
    *,
    seed: int = 1337,
    size: int = 100,
    rarest: int = 6,
    null: float = 0.05,
    strays: float = 0.005,
    label_noise: float = 0.0,
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """`folder`/aligned/0001_aligned.jpg ... and the three label files beside it; a function of the arguments alone.

    rarest: rows of the rarest emotion; from there to the most frequent, the counts are a geometric series.
    null, strays: shares of the rows that say `null`, and that hold a token which is no unit.
    label_noise: the chance of each unit of a row to be written where it is not drawn, or not where it is.
    shares: of train, test and val within each emotion.
    """
    check_new_folder(folder)
    rows = labels_of(num_images, seed=seed, rarest=rarest, null=null, strays=strays, label_noise=label_noise, shares=shares)
    ids = ClassMap.load("rafce").ids
    (folder / "aligned").mkdir(parents=True)
    for subject, row in enumerate(rows):
        image = faces.posed(seed, subject, row.expression, size)
        path = folder / "aligned" / f"{row.name}_aligned.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
        advance(1)
    columns = {"AUlabel": [row.units for row in rows], "emolabel": [str(ids[row.emotion]) for row in rows]}
    columns["partition"] = [str(row.split) for row in rows]
    for name, values in columns.items():
        lines = (f"{row.name}.jpg {value}\n" for row, value in zip(rows, values, strict=True))
        (folder / f"RAFCE_{name}.txt").write_text("".join(lines))


def _counts(total: int, rarest: int) -> list[int]:
    """Rows of each emotion, falling to `rarest`: a geometric series that adds up to `total`."""
    low, high, powers = 1.0, float(total), np.arange(len(COMPOUNDS))[::-1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rarest * (middle**powers).sum() > total else (middle, high)
    counts = [int(count) for count in rarest * low**powers]
    return [counts[0] + total - sum(counts), *counts[1:-1], rarest]


def _splits(count: int, shares: Sequence[float]) -> list[int]:
    """The split of each row of an emotion, by number; none is empty."""
    counts = [max(1, round(count * share)) for share in shares[1:]]
    return [split for split, n in enumerate([count - sum(counts), *counts]) for _ in range(n)]


def _expression(rng: np.random.Generator, emotion: str) -> tuple[Expression, dict[int, str]]:
    """A face of the emotion, and the letters of the units that are on one side or lip."""
    chances = COMPOUNDS[emotion] | {unit: EXTRA_CHANCE for unit in UNITS if unit not in COMPOUNDS[emotion]}
    shown = [unit for unit, chance in chances.items() if rng.random() < chance]  # those of the emotion first
    for first, second in combinations(shown, 2):
        if first in shown and ((first, second) in ONE_OF or (second, first) in ONE_OF):
            shown = [unit for unit in shown if unit != second]
    if {26, 27} & set(shown) and 25 not in shown:
        shown.append(25)  # a jaw that drops parts the lips
    sides = {unit: SIDED[unit][rng.integers(2)] for unit in shown if unit in SIDED and rng.random() < SIDED_CHANCE}
    if 12 in sides and 14 in shown:
        sides[14] = sides[12]
    elif 14 in sides and 12 in shown:
        sides[12] = sides[14]
    corner = sides.get(12, sides.get(14, ""))
    reach, lips = (float(corner != "L"), float(corner != "R")), (float(sides.get(23) != "B"), float(sides.get(23) != "T"))
    au = dict.fromkeys(DRAWN, 0.0) | {f"AU{unit}": rng.uniform(*INTENSITY) for unit in shown}
    return Expression(au, reach, lips), sides
