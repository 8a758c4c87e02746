"""Synthetic faces as a source: emotions and action units, subjects apart in every split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.synthetic import faces

EMOTION = Output("emotion", "classes", faces.EMOTIONS)
AU = Output("au", "multilabel", faces.ACTION_UNITS)


class SyntheticSource:
    """`num_images` faces of `subjects` people, emotions in turn; `val` of the subjects are held out."""

    label_protocol = "hard"

    def __init__(self, num_images: int, *, size: int = 64, seed: int = 1337, subjects: int = 100, val: float = 0.2) -> None:
        self.num_images, self.size, self.seed, self.subjects = num_images, size, seed, subjects
        self.num_val = max(1, round(subjects * val))
        self.layout, self.filtered = TargetLayout((EMOTION, AU)), Counter[str]()
        self.meta: dict[str, type] = {}

    def samples(self) -> Iterator[Sample]:
        for i in range(self.num_images):
            subject, emotion = i // len(EMOTION.names) % self.subjects, EMOTION.names[i % len(EMOTION.names)]
            units = _units(self.seed, subject, emotion, i)
            targets = EMOTION.one_hot(emotion) | {f"au.{name}": float(v >= faces.PRESENT) for name, v in units.items()}
            targets = {f"au.{name}": 0.0 for name in AU.names} | targets
            split = "val" if subject < self.num_val else "train"
            image = partial(_drawn, self.seed, subject, emotion, i, self.size)  # a source is read twice, and drawing is slow
            yield Sample(image, f"synthetic#{i}", split, targets, source="synthetic", group=f"subject{subject:04d}")

    def fingerprint(self) -> dict[str, str]:
        """By the generator's own text and the arguments."""
        text = Path(faces.__file__).read_bytes()
        arguments = f"{self.num_images} {self.size} {self.seed} {self.subjects} {self.num_val}"
        return {"synthetic": hashlib.sha256(text + arguments.encode()).hexdigest()}


def _drawn(seed: int, subject: int, emotion: str, index: int, size: int) -> np.ndarray:
    return faces.still(seed, subject, emotion, index, size)[0]


def _units(seed: int, subject: int, emotion: str, index: int) -> dict[str, float]:
    """The action units that `faces.still` draws, without the drawing: the first thing that it takes from its stream."""
    stream = faces._generator(seed, subject, faces.STILL, faces.EMOTIONS.index(emotion), index)
    return faces._expression(stream, emotion).au
