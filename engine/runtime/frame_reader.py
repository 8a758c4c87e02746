"""Several packages over one stream: decoding, detection and tracking are shared.

File mode: decoding, preparing and inference run in three threads, and the models see the faces of up to TOGETHER frames at
once. A live source is prepared and read frame by frame, so that no result waits for another.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self, cast

import numpy as np

from affect.engine.package.graphs import graph_names
from affect.engine.runtime.results import Face, Frame, outputs_of, thresholds_of
from affect.engine.runtime.session import Session, check_together
from affect.engine.runtime.smoothing import Smoother, Smoothing
from affect.engine.runtime.sources.stream import Channel, Source, Stream, VideoFrame, fits
from affect.engine.runtime.stage_timer import Stages
from affect.engine.runtime.vision.boxes import Box, Detector
from affect.engine.runtime.vision.prepare import Prepared, Preparer
from affect.engine.runtime.vision.subject import FULL, Search
from affect.shards.errors import InputError

TOGETHER = 4  # frames of a file a call of the graph; of 1080p the pipeline then holds 100 MB


@dataclass(frozen=True, eq=False)
class AnnotatedFrame:
    """A source's image and its results.

    missed: boxes of faces that were there just before, to be hidden like the others. ended: tracks that are over.
    """

    image: np.ndarray
    frame: Frame
    missed: list[Box]
    ended: list[int]


class Reader:
    """One pass of some packages over a source, frame by frame.

        with Reader([emotion, units], open_source("clip.mp4"), Search("human_face")) as reader:
            for result in reader: ...

    stages: how long each took. Raises InputError where packages bear one name, or read animals and human faces are asked for.
    """

    def __init__(
        self,
        engines: Sequence[Session],
        source: Source,
        search: Search = FULL,
        smoothing: Smoothing | None = None,
        together: int | None = None,
        detector: Detector | None = None,
    ) -> None:
        """smoothing: of all packages; by default each engine's own. together: frames a call of the graph; default: by the source.

        detector: by default a new one of the search's.
        """
        self.engines, self.source, self.stages = tuple(engines), source, Stages()
        self.search, self.smoothing = search, smoothing
        check_together(self.engines, search)
        ahead = source.threaded and not source.live
        self._together = together or (TOGETHER if ahead else 1)
        preparer = Preparer(search, [engine.package.preprocess for engine in self.engines], self.stages, detector)
        self._stream = Stream(replace(source, frames=partial(_timed, source, self.stages)))
        prepared = Source(f"{source.name}, prepared", partial(_prepared, self._stream, preparer), threaded=ahead)
        self._prepared = Stream(prepared, self._together)
        self._ready: deque[AnnotatedFrame] = deque()
        self._error: InputError | None = None
        self._smoothers: dict[int, dict[tuple[str, str], Smoother]] = {}

    @property
    def dropped(self) -> int:
        """Frames of a live source that came too fast."""
        return self._stream.dropped

    @property
    def notes(self) -> list[str]:
        """Messages about the source."""
        return self._stream.notes

    def __iter__(self) -> Iterator[AnnotatedFrame]:
        return self

    def __next__(self) -> AnnotatedFrame:
        if not self._ready:
            batch = self._take()
            self._ready.extend(self._read(batch) if batch else ())
        if not self._ready:
            error, self._error = self._error, None
            self.close()
            raise error or StopIteration
        return self._ready.popleft()

    def close(self) -> None:
        """End the threads; may be called twice."""
        self._prepared.close()
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take(self) -> list[Prepared]:
        """Return the next frames; an error that comes behind some of them is raised after their results."""
        batch: list[Prepared] = []
        try:
            while self._error is None and len(batch) < self._together and fits(batch):
                batch.append(cast(Prepared, next(self._prepared)))
        except StopIteration:
            pass
        except InputError as error:
            self._error = error
        return batch

    def _read(self, batch: list[Prepared]) -> Iterator[AnnotatedFrame]:
        with self.stages.of("infer", len(batch)):
            predictions = [_predictions(engine, batch) for engine in self.engines]
        row = 0
        for prepared in batch:
            with self.stages.of("smooth"):
                faces = [self._face(prepared, i, row + i, predictions) for i in range(len(prepared.subjects))]
                packages = tuple(engine.name for engine in self.engines)
                frame = Frame(prepared.time_s, faces, prepared.number, prepared.name, packages)
                for track in prepared.ended:
                    self._smoothers.pop(track, None)
            row += len(prepared.subjects)
            yield AnnotatedFrame(prepared.image, frame, prepared.missed, prepared.ended)

    def _face(self, prepared: Prepared, number: int, row: int, predictions: Sequence[Mapping[str, np.ndarray]]) -> Face:
        """predictions: of each engine, output of the graph -> (N, C) of all faces of the batch; row: of this one."""
        subject, outputs = prepared.subjects[number], {}
        for engine, of_all in zip(self.engines, predictions, strict=True):
            values, active = {name: rows[row] for name, rows in of_all.items()}, None
            if subject.track is not None and prepared.time_s is not None:
                values, active = self._smoothed(engine, subject.track, prepared.time_s, values)
            outputs[engine.name] = outputs_of(engine.package, values, engine.sure, active, engine.conformal)
        return Face(subject.box.tuple, subject.box.score, subject.track, outputs, prepared.blur[number])

    def _smoothed(
        self, engine: Session, track: int, time_s: float, values: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
        """Return a face's values smoothed over its track, and the active labels of each output."""
        smoothed, active = dict(values), {}
        smoothers = self._smoothers.setdefault(track, {})
        for output in engine.package.layout.outputs:
            if (engine.name, output.name) not in smoothers:
                thresholds = thresholds_of(engine.package, output.names) if output.kind == "multilabel" else None
                smoothers[engine.name, output.name] = Smoother(output.kind, self.smoothing or engine.smoothing, thresholds)
            name = graph_names(output)[-1]  # probabilities, or scalars themselves
            smoothed[name], active[output.name] = smoothers[engine.name, output.name].step(values[name], time_s)
        return smoothed, active


def _predictions(engine: Session, batch: list[Prepared]) -> dict[str, np.ndarray]:
    """Run a package on all faces of the frames, one after the other."""
    views = [prepared.views[engine.package.preprocess] for prepared in batch if prepared.subjects]
    return engine.run_graph(np.concatenate(views)) if views else {}


def _timed(source: Source, stages: Stages, channel: Channel) -> Generator[VideoFrame, None, None]:
    """The frames of a source, with the time that decoding takes; of a live source it would be waiting."""
    frames = source.frames(channel)
    try:
        while True:
            began = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            if not source.live:
                stages.add("decode", time.perf_counter() - began)
            yield frame
    finally:
        if close := getattr(frames, "close", None):
            close()


def _prepared(stream: Stream, preparer: Preparer, channel: Channel) -> Iterator[VideoFrame]:
    return map(preparer, stream)
