"""A frame's subjects as what the models see: found, followed, cut out, equalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from affect.engine.config.preprocess import MARGIN, Preprocess
from affect.engine.runtime.sources.stream import VideoFrame
from affect.engine.runtime.stage_timer import Stages
from affect.engine.runtime.vision.boxes import Box, Detector
from affect.engine.runtime.vision.crop import crop, sharpness
from affect.engine.runtime.vision.detect import WIDTH, Full, subject_of
from affect.engine.runtime.vision.track import TrackedBox, Tracker
from affect.shards.errors import InputError

SMALLEST_WIDTH = 64
WITH_POINTS = ("yunet", "onnx")  # subjects that can give five points


@dataclass(frozen=True)
class Search:
    """How subjects are found.

    subject: `human_face`, `yunet:FILE.onnx`, `full`, `boxes:FILE.csv`, `onnx:FILE.onnx` or a detector of the caller's.
    detect_every: in how many frames it is looked for once, and followed between. margin: room around a box on each side, as a
    share of its longer side. align: turned by the five points of YuNet. Both: None for what each package's `Preprocess` says.
    detect_width: pixels at which a wider picture is searched, by `human_face` and `yunet`: their smallest faces have 24 and about
    10 pixels there, and the time is as the square.
    """

    subject: str | Detector = "full"
    detect_every: int = 1
    margin: float | None = None
    align: bool | None = None
    detect_width: int = WIDTH

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise InputError(f"detect_every: found {self.detect_every}; expected 1 (each frame) or more")
        if self.detect_width < SMALLEST_WIDTH:
            raise InputError(
                f"detect_width: found {self.detect_width}; expected at least {SMALLEST_WIDTH} pixels, such as {WIDTH}"
            )
        if self.align and isinstance(self.subject, str) and self.subject.partition(":")[0] not in WITH_POINTS:
            raise InputError(f"align: {self.subject} gives no five points to turn faces by; name yunet:FILE.onnx as the subject")
        if self.margin is not None and not 0 <= self.margin <= 2:
            raise InputError(f"margin: found {self.margin}; expected a share of the box from 0 to 2, such as {MARGIN}")

    def way(self, preprocess: Preprocess) -> tuple[float, bool]:
        """margin, align: as asked for here, else as the package was trained."""
        margin = preprocess.margin if self.margin is None else self.margin
        return margin, preprocess.align if self.align is None else self.align

    def detector(self) -> Detector:
        """A new one, where the subject is named: a detector serves one thread."""
        return subject_of(self.subject, self.detect_width) if isinstance(self.subject, str) else self.subject


FULL = Search()


@dataclass(frozen=True, eq=False)
class Prepared(VideoFrame):
    """A shot with who is in it.

    found: those to be read, the best first; blur: of each, as the first package sees it. missed: boxes of those that were seen
    just before, to be hidden like the others. ended: tracks that are over. views: what the packages see of `found`,
    (N, H, W, 3) uint8.
    """

    found: list[TrackedBox] = field(default_factory=list)
    blur: list[float] = field(default_factory=list)
    missed: list[Box] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    views: dict[Preprocess, np.ndarray] = field(default_factory=dict)


class Preparer:
    """Shots in, prepared shots out; one for each pass over a source, called in one thread."""

    def __init__(
        self, search: Search, preprocessing: Sequence[Preprocess], stages: Stages, detector: Detector | None = None
    ) -> None:
        self.search, self.stages = search, stages
        self.ways = {pre: search.way(pre) for pre in preprocessing}
        self.tracker = Tracker(detector or search.detector(), search.detect_every)
        self._whole = isinstance(self.tracker.detector, Full)

    def __call__(self, shot: VideoFrame) -> Prepared:
        if shot.image.ndim == 2 and not self._whole:
            shot = replace(shot, image=cv2.cvtColor(shot.image, cv2.COLOR_GRAY2RGB))
        with self.stages.of("detect"):
            all_ = self.tracker.step(shot)
        found = sorted((tracked for tracked in all_ if tracked.seen), key=lambda tracked: -tracked.box.score)
        with self.stages.of("crop"):
            cuts = {way: [self.cut(shot.image, tracked.box, *way) for tracked in found] for way in self.ways.values()}
            views = {pre: np.stack([pre(image) for image in cuts[way]]) for pre, way in self.ways.items() if found}
            blur = [sharpness(image) for image in next(iter(cuts.values()), ())]
        missed = [tracked.box for tracked in all_ if not tracked.seen]
        return Prepared(
            shot.name, shot.number, shot.time_s, shot.image, found, blur, missed, list(self.tracker.ended), views
        )  # fmt: skip

    def cut(self, image: np.ndarray, box: Box, margin: float, align: bool) -> np.ndarray:
        """A picture that is cropped already stays whole."""
        return image if self._whole else crop(image, box, margin, align)
