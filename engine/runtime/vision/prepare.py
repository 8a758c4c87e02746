"""A frame's subjects as the models see them: detected, tracked, cropped, preprocessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from affect.engine.config.preprocess import Preprocess
from affect.engine.runtime.sources.stream import VideoFrame
from affect.engine.runtime.stage_timer import Stages
from affect.engine.runtime.vision.boxes import Box, Detector
from affect.engine.runtime.vision.crop import crop, sharpness
from affect.engine.runtime.vision.detectors import Full
from affect.engine.runtime.vision.subject import Search
from affect.engine.runtime.vision.track import TrackedBox, Tracker


@dataclass(frozen=True, eq=False)
class Prepared(VideoFrame):
    """A frame with its subjects.

    subjects: those that the detector sees, the best first; blur: of each, as the first package sees it. missed: boxes of subjects
    seen just before, to be hidden like the others. ended: tracks that are over. views: preprocessing -> what its packages see of
    the subjects, (N, H, W, 3) uint8.
    """

    subjects: list[TrackedBox] = field(default_factory=list)
    blur: list[float] = field(default_factory=list)
    missed: list[Box] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    views: dict[Preprocess, np.ndarray] = field(default_factory=dict)


class Preparer:
    """Frames in, prepared frames out; one for each pass over a source, called in one thread."""

    def __init__(
        self, search: Search, preprocessing: Sequence[Preprocess], stages: Stages, detector: Detector | None = None
    ) -> None:
        self.search, self.stages = search, stages
        self._crop_settings = {preprocess: search.crop_settings(preprocess) for preprocess in preprocessing}
        self.tracker = Tracker(detector or search.detector(), search.detect_every)
        self._whole = isinstance(self.tracker.detector, Full)

    def __call__(self, frame: VideoFrame) -> Prepared:
        if frame.image.ndim == 2 and not self._whole:
            frame = replace(frame, image=cv2.cvtColor(frame.image, cv2.COLOR_GRAY2RGB))
        with self.stages.of("detect"):
            tracked = self.tracker.step(frame)
        subjects = sorted((one for one in tracked if one.seen), key=lambda one: -one.box.score)
        with self.stages.of("crop"):
            crops = {
                settings: [self.crop(frame.image, one.box, *settings) for one in subjects]
                for settings in self._crop_settings.values()
            }
            views = {
                preprocess: np.stack([preprocess(image) for image in crops[settings]])
                for preprocess, settings in self._crop_settings.items()
                if subjects
            }
            blur = [sharpness(image) for image in next(iter(crops.values()), ())]
        missed = [one.box for one in tracked if not one.seen]
        ended = list(self.tracker.ended)
        return Prepared(frame.name, frame.number, frame.time_s, frame.image, subjects, blur, missed, ended, views)

    def crop(self, image: np.ndarray, box: Box, margin: float, align: bool) -> np.ndarray:
        """Crop to a box; the subject `full` stays whole."""
        return image if self._whole else crop(image, box, margin, align)
