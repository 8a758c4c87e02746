"""Recordings in, clips with their outputs out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from affect.engine.config.data import ClipConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.data.clip_view import all_starts, seen
from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.clip_reader import ClipReader
from affect.engine.runtime.picture_input import Picture, read_picture
from affect.engine.runtime.results import Clip, outputs_of
from affect.engine.runtime.session import Session
from affect.engine.runtime.side_signals import Side, row_of
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.system.log import say
from affect.shards.encoded import BadImage, Encoded
from affect.shards.errors import InputError
from affect.shards.sample import Clip as PackedClip
from affect.shards.sample import Image
from affect.shards.schema import ClipFacts
from affect.shards.sources.frames import FrameFolder, pick
from affect.shards.sources.video import VideoFile

CLIPS = 8  # a call of the graph


class ClipEngine(Session):
    """Reads recordings and streams with a package of a clip model.

        engine = Engine.load("runs/pain/package")
        for clip in engine.predict("cow.mp4"):
            print(clip.start_s, clip.end_s, clip.outputs["pain"]["pain"].values)

    Frames are chosen as in training: spread evenly over the recording, one Clip; or window after window at the rate of the
    training clips. `stream` slides: at that rate a window ends at each frame, which is encoded once, not once a window.
    """

    def predict(
        self, pictures: Picture | Sequence[Picture], times_s: Sequence[float] | None = None, side: Side | None = None
    ) -> list[Clip]:
        """Return the clips of one recording.

        pictures: a video file, a folder of frames, or frames in order, as (T, H, W, 3) or many pictures.
        times_s: ascending seconds of frames in memory; without them they come at the package's rate.
        side: for a package that takes side signals, {"heart_rate": 512.0}, as measured; the mean stands for what is missing.
        Raises: InputError where it cannot be read or holds no frame, or a side signal is not the package's.
        """
        row = row_of(self.package, side)
        images, times = self._read(pictures, times_s)
        view = _in_order(self.package.clip)
        chosen = [seen(view, len(images), start) for start in all_starts(view, len(images)).tolist()]
        clips: list[Clip] = []
        for first in range(0, len(chosen), CLIPS):
            some = chosen[first : first + CLIPS]
            views = np.stack([np.stack([images[i] for i in numbers]) for numbers in some])
            values = self.run_graph(views, None if row is None else np.tile(row, (len(some), 1)))
            for i, numbers in enumerate(some):
                outputs = outputs_of(self.package, {name: rows[i] for name, rows in values.items()})
                clips.append(Clip(float(times[numbers[0]]), float(times[numbers[-1]]), {self.name: outputs}))
        return clips

    def stream(
        self,
        source: str | Path | int | np.ndarray | Iterable[Any],
        rate_hz: float | None = None,
        hop: int = 1,
        side: Side | None = None,
    ) -> Generator[Clip, None, None]:
        """Yield clip after clip of what `open_source` opens, in constant memory; each subject has windows of its own.

        rate_hz: of pictures that have no clock. hop: frames that the model sees from a clip to the next. side: as in `predict`.
        Raises: InputError where the package lacks the graphs of its parts, or its training clips had no times.
        """
        with ClipReader([self], open_source(source, rate_hz), self.search, hop, side) as reader:
            yield from reader

    def _read(self, source: Picture | Sequence[Picture], times_s: Sequence[float] | None) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the frames that packing would have stored, preprocessed, and their times."""
        facts, preprocess = _facts(self.package), self.package.preprocess
        if isinstance(source, str | Path) and Path(source).suffix.lower() != "":
            return _from_file(VideoFile(Path(source), facts), preprocess, Path(source))
        if isinstance(source, str | Path):
            return _from_file(FrameFolder(Path(source), facts, self._frames_hz), preprocess, Path(source))
        if isinstance(source, np.ndarray) and (source.ndim == 2 or (source.ndim == 3 and source.shape[-1] == 3)):
            raise InputError(f"frames: found one picture, {source.shape}; expected a recording: (T, H, W, 3), or (T, H, W) gray")
        pictures = list(source)
        times = np.arange(len(pictures)) / self._frames_hz if times_s is None else np.asarray(times_s, np.float64)
        if len(times) != len(pictures) or (np.diff(times) < 0).any():
            raise InputError(f"times_s: expected {len(pictures)} ascending seconds, one a frame; found {len(times)}")
        try:
            numbers, _ = pick(times, facts)
        except BadImage as error:
            raise InputError(f"frames: {error}") from error
        return [preprocess(read_picture(pictures[n], n)) for n in numbers], times[numbers]

    @property
    def _frames_hz(self) -> float:
        """Rate of frames without times."""
        facts = self.manifest.clip or {}
        return (facts["rate_hz"] or 1.0) * facts["view"]["stride"]


def _in_order(view: ClipConfig | None) -> ClipConfig:
    """A model that was trained on shuffled frames, as a control, is shown frames in their order."""
    assert view
    return view.model_copy(update={"order": "kept"}) if view.order == "shuffled" else view


def _facts(package: ModelPackage) -> ClipFacts:
    view, rate = package.clip, (package.manifest.clip or {})["rate_hz"]
    assert view
    facts = ClipFacts("uniform", view.frames, None, view.start_s, view.end_s)
    if view.choice == "uniform":
        return facts
    if not rate:
        raise InputError(f"{package.manifest.name}: its training clips have no times, so windows of a recording cannot be cut")
    return replace(facts, choice="rate", num_frames=None, rate_hz=rate * view.stride)


def _from_file(recording: VideoFile | FrameFolder, preprocess: Preprocess, path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    def encode(image: Image) -> Encoded:  # packing encodes frames here; the runtime preprocesses them instead
        return cast(Encoded, preprocess(read_picture(cast(Picture, image), 0)))

    try:
        clip: PackedClip = recording.clip(encode)
    except BadImage as error:
        raise InputError(f"{path}: {error}; expected a video file or a folder of a recording's frames") from error
    if clip.meta.get("repeated"):
        say(f"{path}: {clip.meta['repeated']:.0f} frames short of what a clip has; its last one is repeated")
    return [cast(np.ndarray, frame) for frame in clip.frames], np.asarray(clip.times_s)
