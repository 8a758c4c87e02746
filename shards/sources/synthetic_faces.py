"""Drawn faces as a source: emotions and action units; no subject is in two splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import numpy as np

from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.sources.pack_command import Option, pack_command
from affect.shards.synthetic import faces
from affect.shards.synthetic.expressions import ACTION_UNITS, EMOTIONS, PRESENT, expression_of
from affect.shards.synthetic.random_streams import STILL, generator

EMOTION = Output("emotion", "classes", EMOTIONS)
AU = Output("au", "multilabel", ACTION_UNITS)


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
            targets = EMOTION.one_hot(emotion) | {f"au.{name}": float(v >= PRESENT) for name, v in units.items()}
            targets = {f"au.{name}": 0.0 for name in AU.names} | targets
            split = "val" if subject < self.num_val else "train"
            image = partial(_drawn, self.seed, subject, emotion, i, self.size)  # a source is read twice, and drawing is slow
            yield Sample(image, f"synthetic#{i}", split, targets, source="synthetic", group=f"subject{subject:04d}")

    def fingerprint(self) -> dict[str, str]:
        """A digest of the version of the drawing and the arguments."""
        text = f"drawing {faces.DRAWING}: {self.num_images} {self.size} {self.seed} {self.subjects} {self.num_val}"
        return {"synthetic": hashlib.sha256(text.encode()).hexdigest()}


def _drawn(seed: int, subject: int, emotion: str, index: int, size: int) -> np.ndarray:
    return faces.still(seed, subject, emotion, index, size)[0]


def _units(seed: int, subject: int, emotion: str, index: int) -> dict[str, float]:
    """The action units that `faces.still` draws, without drawing: they are the first numbers of its stream."""
    stream = generator(seed, subject, STILL, EMOTIONS.index(emotion), index)
    return expression_of(stream, emotion).au


@pack_command("synthetic", checked=False)
def synthetic_source(
    num_images: Annotated[int, Option(min=16)] = 5000,
    size: Annotated[int, Option("pixels", min=32, max=512)] = 64,
    subjects: Annotated[int, Option(min=2)] = 100,
    seed: int = 1337,
) -> SyntheticSource:
    """Drawn faces with emotions and action units; subjects apart in train and val."""
    return SyntheticSource(num_images, size=size, seed=seed, subjects=subjects)
