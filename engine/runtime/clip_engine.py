"""Recordings in, what a model of clips says of them out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from affect.engine.data.clip_view import all_starts, seen
from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.engine import Engine, Picture, _image
from affect.engine.runtime.results import FaceOutput, outputs_of
from affect.engine.runtime.side_signals import Side, row_of
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.system.log import say
from affect.shards.encoded import BadImage, Encoded
from affect.shards.errors import InputError
from affect.shards.sample import Clip as Stored
from affect.shards.sample import Image
from affect.shards.schema import ClipFacts
from affect.shards.sources.frames import FrameFolder, pick
from affect.shards.sources.video import VideoFile

CLIPS = 8  # a call of the graph


@dataclass(frozen=True)
class Clip:
    """What is said of a stretch of a recording. start_s, end_s: seconds of the first and the last frame that was seen.

    outputs: package -> output name -> FaceOutput. track: of the subject, in a stream; None of a recording that is seen whole.
    """

    start_s: float
    end_s: float
    outputs: dict[str, dict[str, FaceOutput]]
    track: int | None = None


class ClipEngine(Engine):
    """A package of a model of clips that answers.

        engine = Engine.load("runs/pain/package")
        for clip in engine.predict("cow.mp4"):
            print(clip.start_s, clip.end_s, clip.outputs["pain"]["pain"].values)

    Frames are chosen as in training: spread evenly over the recording, one Clip; or window after window at the rate of the
    training clips. `stream` slides: at that rate a window ends at each frame, which is encoded once, not once a window.
    """

    def predict(  # type: ignore[override]
        self, pictures: Picture | Sequence[Picture], times_s: Sequence[float] | None = None, side: Side | None = None
    ) -> list[Clip]:
        """Of one recording: a video file, a folder of its frames, or its frames in order, as (T, H, W, 3) or many pictures.

        times_s: ascending seconds of frames that are given; without them they are taken as at the package's rate.
        side: of a package that takes side signals, {"heart_rate": 512.0}, as measured; the mean stands for what is missing.
        Raises: InputError where it cannot be read or holds no frame, or a side signal is not the package's.
        """
        row = row_of(self.package, side)
        images, times = self._read(pictures, times_s)
        view = self._view
        chosen = [seen(view, len(images), start) for start in all_starts(view, len(images)).tolist()]
        clips: list[Clip] = []
        for first in range(0, len(chosen), CLIPS):
            some = chosen[first : first + CLIPS]
            views = np.stack([np.stack([images[i] for i in numbers]) for numbers in some])
            values = self.answer(views, None if row is None else np.tile(row, (len(some), 1)))
            for i, numbers in enumerate(some):
                outputs = outputs_of(self.package, {name: rows[i] for name, rows in values.items()})
                clips.append(Clip(float(times[numbers[0]]), float(times[numbers[-1]]), {self.manifest.name: outputs}))
        return clips

    def stream(  # type: ignore[override]
        self, source: str | Path | int | np.ndarray | Iterable[Any], rate_hz: float | None = None, hop: int = 1,
        side: Side | None = None,
    ) -> Generator[Clip, None, None]:  # fmt: skip
        """Clip after clip of what `open_source` opens, in constant memory; each subject has windows of its own.

        rate_hz: of pictures that have no clock. hop: frames that the model sees from a clip to the next. side: as of `predict`.
        Raises: InputError where the package lacks the graphs of its parts, or its training clips had no times.
        """
        from affect.engine.runtime.clip_reader import ClipReader

        with ClipReader([self], open_source(source, rate_hz), self.search, hop, side) as reader:
            yield from reader

    @property
    def _view(self) -> Any:
        assert self.package.clip
        return replace_order(self.package.clip)

    def _read(self, source: Picture | Sequence[Picture], times_s: Sequence[float] | None) -> tuple[list[np.ndarray], np.ndarray]:
        """The frames that training would have stored, preprocessed, and their times."""
        facts, preprocess = _facts(self.package), self.package.preprocess
        if isinstance(source, str | Path) and Path(source).suffix.lower() != "":
            return _stored(VideoFile(Path(source), facts), preprocess, Path(source))
        if isinstance(source, str | Path):
            return _stored(FrameFolder(Path(source), facts, self._given_hz), preprocess, Path(source))
        if isinstance(source, np.ndarray) and (source.ndim == 2 or (source.ndim == 3 and source.shape[-1] == 3)):
            raise InputError(f"frames: found one picture, {source.shape}; expected a recording: (T, H, W, 3), or (T, H, W) gray")
        pictures = list(source)
        times = np.arange(len(pictures)) / self._given_hz if times_s is None else np.asarray(times_s, np.float64)
        if len(times) != len(pictures) or (np.diff(times) < 0).any():
            raise InputError(f"times_s: expected {len(pictures)} ascending seconds, one a frame; found {len(times)}")
        try:
            numbers, _ = pick(times, facts)
        except BadImage as error:
            raise InputError(f"frames: {error}") from error
        return [preprocess(_image(pictures[n], n)) for n in numbers], times[numbers]

    @property
    def _given_hz(self) -> float:
        """Of frames without times."""
        facts = self.manifest.clip or {}
        return (facts["rate_hz"] or 1.0) * facts["view"]["stride"]


def replace_order(view: Any) -> Any:
    """A model that was trained on shuffled frames, as a control, is shown what comes as it comes."""
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


def _stored(recording: VideoFile | FrameFolder, preprocess: Any, path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    def keep(image: Image) -> Encoded:  # as packing keeps bytes, here what the model is shown is kept
        return cast(Encoded, preprocess(_image(cast(Picture, image), 0)))

    try:
        clip: Stored = recording.clip(keep)
    except BadImage as error:
        raise InputError(f"{path}: {error}; expected a video file or a folder of a recording's frames") from error
    if clip.meta.get("repeated"):
        say(f"{path}: {clip.meta['repeated']:.0f} frames short of what a clip has; its last one is repeated")
    return [cast(np.ndarray, frame) for frame in clip.frames], np.asarray(clip.times_s)
