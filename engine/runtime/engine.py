"""Pictures in, faces with their outputs out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.clip_engine import ClipEngine
from affect.engine.runtime.frame_reader import Reader
from affect.engine.runtime.picture_input import Picture, as_sequence, read_picture
from affect.engine.runtime.results import Frame, Frames
from affect.engine.runtime.session import BATCH, Session
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Channel, Source, VideoFrame
from affect.shards.errors import InputError


class Engine(Session):
    """Reads faces in pictures and frames with one package.

        with Engine.load("runs/smoke/package") as engine:
            print(engine.predict("face.jpg")[0].faces[0].label)
        for frame in Engine.load("runs/smoke/package", subject="human_face").stream("clip.mp4"):
            print(frame.time_s, [face.label for face in frame.faces])

    Pictures are RGB. The subject `full` takes each picture as one face, already cropped.
    """

    @classmethod
    def _class_for(cls, package: ModelPackage) -> type[Self]:
        """A clip model is read by a ClipEngine; name `ClipEngine.load` where its type matters."""
        return cast(type[Self], ClipEngine) if package.clip and cls is Engine else cls

    def predict(self, pictures: Picture | Sequence[Picture], times_s: Sequence[float] | None = None) -> Frames:
        """Return a Frame for each picture, each read by itself; one in which the detector finds no face has none.

        pictures: one or many of: (H, W, 3) RGB or (H, W) gray uint8 arrays, or files; also one (N, H, W, 3) array.
        times_s: seconds of each, where they are frames of a video.
        Raises: InputError naming the picture that is neither.
        """
        many = as_sequence(pictures)
        if times_s is not None and len(times_s) != len(many):
            raise InputError(f"times_s: {len(times_s)} times for {len(many)} pictures")

        def read(channel: Channel) -> Iterator[VideoFrame]:
            for i, picture in enumerate(many):
                name = str(picture) if isinstance(picture, str | Path) else "array"
                yield VideoFrame(name, i, None, read_picture(picture, i))

        source = Source("pictures", read, threaded=False)
        with Reader([self], source, self.search, together=BATCH, detector=self._detector()) as reader:
            frames = Frames(result.frame for result in reader)
        if times_s is not None:
            frames = Frames(replace(frame, time_s=t) for t, frame in zip(times_s, frames, strict=True))
        return frames

    def stream(
        self, source: str | Path | int | np.ndarray | Iterable[Any], rate_hz: float | None = None
    ) -> Generator[Frame, None, None]:
        """Yield frame after frame of what `open_source` opens, in constant memory; faces keep their track, results are smoothed.

        rate_hz: of pictures that have no clock; without it they are read one by one, as in `predict`.
        """
        with Reader([self], open_source(source, rate_hz), self.search) as reader:
            for result in reader:
                yield result.frame
