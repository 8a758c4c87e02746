"""Clip models over one stream: detection and tracking are shared, and each package encodes a frame once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from affect.engine.runtime.backends.backend import Backend
from affect.engine.runtime.backends.open_backend import open_parts
from affect.engine.runtime.clip_stream import ClipStream
from affect.engine.runtime.results import Clip, outputs_of
from affect.engine.runtime.session import Session, check_together
from affect.engine.runtime.side_signals import Side, row_of, signals_by_package
from affect.engine.runtime.sources.stream import Source, Stream, VideoFrame
from affect.engine.runtime.stage_timer import Stages
from affect.engine.runtime.vision.boxes import Box
from affect.engine.runtime.vision.prepare import Preparer
from affect.engine.runtime.vision.subject import FULL, Search
from affect.shards.errors import InputError


class ClipReader:
    """One pass of clip models over a source: a Clip of each package and subject whenever its window is full.

        with ClipReader([pain], open_source("rtsp://..."), hop=8) as reader:
            for clip in reader: ...

    hop: frames that a package sees from one of its clips to the next. Each subject has windows of its own, which start again
    after a cut, a lost track or a gap. Raises InputError where a package has no rate or no graphs of its parts, or the source
    no clock.
    """

    def __init__(
        self, engines: Sequence[Session], source: Source, search: Search = FULL, hop: int = 1, side: Side | None = None
    ) -> None:
        """side: signals beside the recording, by name; each package takes those that it knows."""
        check_together(engines, search, clips=True)
        packages = [engine.package for engine in engines]
        self._side = [row_of(*pair) for pair in zip(packages, signals_by_package(packages, side), strict=True)]
        self.engines, self.source, self.hop = tuple(engines), source, hop
        self._preparer = Preparer(search, (), Stages())
        self._files = ExitStack()
        self._parts = [self._open(engine) for engine in self.engines]
        self._streams: dict[int, list[ClipStream]] = {}
        self._stream = self._files.enter_context(Stream(source))
        self._clips = self._read()

    def _open(self, engine: Session) -> tuple[Backend, Backend]:
        parts = open_parts(engine.package, engine.backend, engine.device, engine.threads or None)
        for part in parts:
            self._files.enter_context(closing(part))
        return parts

    @property
    def dropped(self) -> int:
        """Frames of a live source that came too fast."""
        return self._stream.dropped

    def __iter__(self) -> Iterator[Clip]:
        return self._clips

    def _read(self) -> Iterator[Clip]:
        for frame in self._stream:
            if frame.time_s is None:
                raise InputError(f"{self.source.name}: its frames have no times; say how many come in a second: --rate, rate_hz")
            prepared = self._preparer(frame)
            for track in prepared.ended:
                self._streams.pop(track, None)
            for subject in prepared.subjects:
                assert subject.track is not None
                yield from self._push(prepared, frame.time_s, subject.track, subject.box)

    def _push(self, frame: VideoFrame, time_s: float, track: int, box: Box) -> Iterator[Clip]:
        if track not in self._streams:
            self._streams[track] = [self._start(*part) for part in zip(self.engines, self._parts, self._side, strict=True)]
        for engine, stream in zip(self.engines, self._streams[track], strict=True):
            window = stream.push(time_s, partial(self._view, engine, frame.image, box))
            if window:
                outputs = outputs_of(engine.package, window.values, engine.sure)
                yield Clip(window.start_s, window.end_s, {engine.name: outputs}, track)

    def _start(self, engine: Session, parts: tuple[Backend, Backend], side: np.ndarray | None) -> ClipStream:
        view, rate = engine.package.clip, (engine.manifest.clip or {})["rate_hz"]
        assert view
        if not rate:
            raise InputError(f"{engine.name}: its training clips have no times, so windows of a stream cannot be cut")
        return ClipStream(*parts, view.frames, rate, self.hop, side)

    def _view(self, engine: Session, image: np.ndarray, box: Box) -> np.ndarray:
        preprocess = engine.package.preprocess
        return preprocess(self._preparer.crop(image, box, *self._preparer.search.crop_settings(preprocess)))

    def close(self) -> None:
        """End the thread, free the sessions; may be called twice."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
