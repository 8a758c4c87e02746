"""What a source of raw files yields: samples of pictures, clips and recordings, before they are packed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from affect.shards.encoded import Encoded
from affect.shards.errors import InputError
from affect.shards.schema import ClipFacts, TargetLayout

Box = tuple[float, float, float, float]  # top, left, bottom, right in pixels
Image = Path | bytes | np.ndarray | Callable[[], np.ndarray]


@dataclass(frozen=True)
class Clip:
    """T frames of one recording, in order: one sample.

    times_s: (T,) seconds of each frame in the recording. meta: values that are known only once it has been read; the source
        lists their names in its `meta`.
    """

    frames: tuple[Image | Encoded, ...]
    times_s: tuple[float, ...]
    meta: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.times_s):
            raise ValueError(f"a clip has a time for each frame: {len(self.frames)} frames, {len(self.times_s)} times")


class Recording(ABC):
    """A clip in files, read when it is packed: in a thread, a frame at a time."""

    @property
    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """The files that are read; if one changes, an interrupted packing reads the recording again."""

    @abstractmethod
    def clip(self, encode_frame: Callable[[Image], Encoded]) -> Clip:
        """The clip; `encode_frame` makes of a frame what is stored, so that no more than one is in memory as pixels.

        Raises: BadImage with the reason that stands in `rejected.csv`.
        """


Content = Image | Clip | Recording | Callable[[], np.ndarray | Clip]


@dataclass
class Sample:
    """One picture or clip with its labels, before it is packed.

    image: a file, a file's bytes, an array (H, W) or (H, W, 3) uint8 RGB, a clip, a recording, or a function that returns an
        array or a clip. It is called once, in a thread, if the sample is packed; the source's fingerprint must cover its result.
    path: where it came from, for people: a file name, or `file.npz#17`.
    targets: target column -> value; a class is a distribution, a hard label a one-hot.
    origin: the picture it was cut from. Parts of one are drawn into val or calib together; in two splits they are no leak.
    box: top, left, bottom, right in pixels of that picture: only this part is packed, as far as it lies inside. Of a clip, the
        part of every frame.
    """

    image: Content
    path: str
    split: str
    targets: dict[str, float]
    source: str
    group: str | None = None  # subject, animal or video
    weight: float = 1.0
    confidence: float = 1.0
    meta: dict[str, str | float] = field(default_factory=dict)
    box: Box | None = None
    origin: str | None = None


class Source(Protocol):
    """Raw files as samples. Iterated more than once; the order is always the same.

    A source may also have `clip: ClipFacts`, where each of its samples is a clip, and `notes: list[str]`, lines about its files
    that are printed after packing.
    """

    layout: TargetLayout
    label_protocol: str  # how a label came about: votes | majority-official | hard
    meta: dict[str, type]  # name -> str | float
    filtered: Counter[str]  # rows that a label rule left out, by reason; anew with each iteration

    def samples(self) -> Iterator[Sample]: ...

    def fingerprint(self) -> dict[str, str]: ...


MEMBERS = ("layout", "label_protocol", "meta", "filtered", "samples", "fingerprint")  # of every source


def check_source(source: Source) -> None:
    """Raises InputError naming the members of Source that an object lacks."""
    missing = [name for name in MEMBERS if not hasattr(source, name)]
    if missing:
        raise InputError(f"{type(source).__name__}: no {', no '.join(missing)}; a source has all of {', '.join(MEMBERS)}")


def clip_of(source: Source) -> ClipFacts | None:
    """The attribute `clip` of a source whose samples are clips, all of them; None of a source of pictures."""
    return getattr(source, "clip", None)
