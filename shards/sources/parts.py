"""Sources that pack a part of each clip: its sharpest frames, its subject, or the background."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from affect.shards.encoded import BadImage, Encoded
from affect.shards.errors import InputError
from affect.shards.images import decode, pixels
from affect.shards.sample import Box, Clip, Image, Recording, Sample, Source, clip_of
from affect.shards.sources.frames import FrameFolder
from affect.shards.sources.video import VideoFile

GRAY = 128  # of the painted box
LOOKED = 8  # frames of a clip in which the subject is detected
Find = Callable[[np.ndarray], Box | None]  # (H, W, 3) uint8 RGB -> the box of the subject, None where there is none


def sharpness(rgb: np.ndarray) -> float:
    """The variance of the Laplacian of the gray picture. Source: Pech-Pacheco et al., ICPR 2000."""
    return float(cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


class _Changed:
    """A source whose recordings are changed when they are read."""

    meta: dict[str, type]

    def __init__(self, source: Source) -> None:
        self.source, self.layout, self.label_protocol, self.clip = source, source.layout, source.label_protocol, clip_of(source)
        self.meta, self.filtered = source.meta, source.filtered
        if self.clip is None:
            raise InputError(f"{type(source).__name__}: its samples are pictures; expected clips")

    @property
    def notes(self) -> list[str]:
        return list(getattr(self.source, "notes", ()))

    def fingerprint(self) -> dict[str, str]:
        digest = hashlib.sha256(repr(self.settings).encode()).hexdigest()
        return self.source.fingerprint() | {type(self).__name__: digest}

    @property
    def settings(self) -> tuple[Any, ...]:
        """What the fingerprint holds besides the source's own."""
        raise NotImplementedError


class Sharpest(_Changed):
    """The `count` sharpest frames of each clip, in order; a clip of fewer is packed whole.

    meta.sharpness: of the least sharp one that is packed. meta.left_out: how many frames are not.
    """

    def __init__(self, source: Source, count: int) -> None:
        super().__init__(source)
        self.count, self.meta = count, source.meta | {"sharpness": float, "left_out": float}

    @property
    def settings(self) -> tuple[Any, ...]:
        return (self.count,)

    def samples(self) -> Iterator[Sample]:
        for sample in self.source.samples():
            yield replace(sample, image=SharpestFrames(_recording(sample), self.count))


class Background(_Changed):
    """Whole clips with the subject's box painted gray: shows what a model learns without the subject.

    box: of clips that have none of their own.
    """

    def __init__(self, source: Source, box: Box | None = None) -> None:
        super().__init__(source)
        self.box = box

    @property
    def settings(self) -> tuple[Any, ...]:
        return (self.box,)

    def samples(self) -> Iterator[Sample]:
        for sample in self.source.samples():
            box = sample.box or self.box
            if box is None:
                raise InputError(
                    f"{sample.path}: no box, so nothing tells the subject from its background; give one for all clips: "
                    "--box X,Y,W,H, or the columns box_x, box_y, box_w, box_h"
                )
            yield replace(sample, image=AroundBox(_recording(sample), box), box=None)


class Cropped(_Changed):
    """Clips cut to their subject: one box a clip, so that the subject moves and not the box.

    find: called in several threads. named: the detector as --crop gives it. margin: added on each side, as a share of the box's
    sides. A clip that has a box of its own keeps it. meta.found: in how many of LOOKED frames, spread over the clip, the
    subject was detected; a clip without any is rejected.
    """

    def __init__(self, source: Source, find: Find, named: str, margin: float = 0.1) -> None:
        super().__init__(source)
        self.find, self.named, self.margin = find, named, margin
        self.meta = source.meta | {"found": float}

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.named, self.margin

    def samples(self) -> Iterator[Sample]:
        for sample in self.source.samples():
            recording = _recording(sample)
            assert isinstance(recording, VideoFile | FrameFolder)
            yield sample if sample.box else replace(sample, image=AtSubject(recording, self.find, self.margin))


@dataclass(frozen=True)
class SharpestFrames(Recording):
    recording: Recording
    count: int

    @property
    def files(self) -> tuple[Path, ...]:
        return self.recording.files

    def clip(self, encode_frame: Callable[[Image], Encoded]) -> Clip:
        whole = self.recording.clip(encode_frame)
        values = np.array([sharpness(decode(frame.data)) for frame in whole.frames if isinstance(frame, Encoded)])
        chosen = np.sort(np.argsort(-values, kind="stable")[: self.count])
        meta = {"sharpness": float(values[chosen].min()), "left_out": float(len(values) - len(chosen))}
        return Clip(tuple(whole.frames[i] for i in chosen), tuple(whole.times_s[i] for i in chosen), {**whole.meta, **meta})


@dataclass(frozen=True)
class AroundBox(Recording):
    recording: Recording
    box: Box

    @property
    def files(self) -> tuple[Path, ...]:
        return self.recording.files

    def clip(self, encode_frame: Callable[[Image], Encoded]) -> Clip:
        return self.recording.clip(lambda frame: encode_frame(painted(pixels(frame), self.box)))


@dataclass(frozen=True)
class AtSubject(Recording):
    recording: VideoFile | FrameFolder
    find: Find
    margin: float

    @property
    def files(self) -> tuple[Path, ...]:
        return self.recording.files

    def clip(self, encode_frame: Callable[[Image], Encoded]) -> Clip:
        box, num_frames = self._box()
        whole = self.recording.clip(lambda frame: encode_frame(pixels(frame, box)))
        return replace(whole, meta={**whole.meta, "found": float(num_frames)})

    def _box(self) -> tuple[Box, int]:
        """(around all boxes detected near their median one, with the margin; in how many frames). Few frames are read."""
        boxes = list[Box | None]()

        def look(frame: Image) -> Encoded:
            boxes.append(self.find(pixels(frame)))
            return Encoded(b"", "", 0, 0, b"", 0)

        facts = replace(self.recording.facts, choice="uniform", num_frames=LOOKED, rate_hz=None)
        replace(self.recording, facts=facts).clip(look)
        detected = np.array([box for box in boxes if box is not None])  # (F, 4)
        if not len(detected):
            raise BadImage(f"no subject found in {len(boxes)} frames spread over the clip")
        middle, centre = np.median(detected, axis=0), (detected[:, :2] + detected[:, 2:]) / 2
        near = detected[((centre > middle[:2]) & (centre < middle[2:])).all(1)]  # no other face, no slip of the detector
        near = near if len(near) else middle[None]
        (top, left), (bottom, right) = near[:, :2].min(0).tolist(), near[:, 2:].max(0).tolist()
        down, across = self.margin * (bottom - top), self.margin * (right - left)
        return (top - down, left - across, bottom + down, right + across), len(detected)


def painted(rgb: np.ndarray, box: Box) -> np.ndarray:
    """Return a copy with the box painted gray. Raises BadImage where the box lies outside."""
    top, left, bottom, right = (max(0, round(edge)) for edge in box)
    covered = rgb.copy()
    if 0 in covered[top:bottom, left:right].shape:
        height, width = rgb.shape[:2]
        raise BadImage(f"box {top}, {left}, {bottom}, {right} (top, left, bottom, right) lies outside of {width}x{height} pixels")
    covered[top:bottom, left:right] = GRAY
    return covered


def _recording(sample: Sample) -> Recording:
    if not isinstance(sample.image, Recording):
        raise InputError(f"{sample.path}: not a recording; expected a video or a folder of frames")
    return sample.image
