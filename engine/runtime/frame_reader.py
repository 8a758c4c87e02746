"""Several packages over one stream: decoding, detection and tracking are shared.

File mode: decoding, preparing and inference run in three threads, and the models see the faces of up to TOGETHER frames at
once. A live source is prepared and answered frame by frame, so that no answer waits for another.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from affect.engine.package.graphs import graph_names
from affect.engine.runtime.results import Face, Frame, outputs_of, thresholds_of
from affect.engine.runtime.smoothing import Smoother, Smoothing
from affect.engine.runtime.sources.stream import Channel, Source, Stream, VideoFrame
from affect.engine.runtime.stage_timer import Stages
from affect.engine.runtime.vision.boxes import Box, Detector
from affect.engine.runtime.vision.detect import check_species
from affect.engine.runtime.vision.prepare import FULL, Prepared, Preparer, Search
from affect.shards.errors import InputError

if TYPE_CHECKING:
    from affect.engine.runtime.engine import Engine

TOGETHER = 4  # frames of a file a call of the graph; of 1080p the pipeline then holds 100 MB


@dataclass(frozen=True, eq=False)
class AnnotatedFrame:
    """A frame and what is said of it.

    missed: boxes of faces that were there just before, to be hidden like the others. ended: tracks that are over.
    """

    image: np.ndarray
    frame: Frame
    missed: list[Box]
    ended: list[int]


class Reader:
    """One pass of some packages over a source, frame by frame.

        with Reader([emotion, units], open_source("clip.mp4"), Search("human_face")) as reader:
            for answer in reader: ...

    stages: how long each took. Raises InputError where packages bear one name, or read animals and human faces are asked for.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        source: Source,
        search: Search = FULL,
        smoothing: Smoothing | None = None,
        together: int | None = None,
        detector: Detector | None = None,
    ) -> None:
        """smoothing: of all packages; without it each engine's own. together: frames a call of the graph, if not by the source.

        detector: instead of a new one of the search's.
        """
        self.engines, self.source, self.stages = tuple(engines), source, Stages()
        self.search, self.smoothing = search, smoothing
        check(self.engines, search)
        ahead = source.threaded and not source.live
        self._together = together or (TOGETHER if ahead else 1)
        preparer = Preparer(search, [engine.package.preprocess for engine in self.engines], self.stages, detector)
        self._stream = Stream(replace(source, shots=partial(_timed, source, self.stages)))
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
        """What was said of the source."""
        return self._stream.notes

    def __iter__(self) -> Iterator[AnnotatedFrame]:
        return self

    def __next__(self) -> AnnotatedFrame:
        if not self._ready:
            shots = self._take()
            self._ready.extend(self._answered(shots) if shots else ())
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
        """The next frames; an error that comes behind some of them is raised after their answers."""
        shots: list[Prepared] = []
        try:
            while self._error is None and len(shots) < self._together:
                shots.append(cast(Prepared, next(self._prepared)))
        except StopIteration:
            pass
        except InputError as error:
            self._error = error
        return shots

    def _answered(self, shots: list[Prepared]) -> Iterator[AnnotatedFrame]:
        with self.stages.of("infer", len(shots)):
            said = [_values(engine, shots) for engine in self.engines]
        row = 0
        for shot in shots:
            with self.stages.of("smooth"):
                faces = [self._face(shot, i, row + i, said) for i in range(len(shot.found))]
                frame = Frame(shot.time_s, faces, shot.number, shot.name, tuple(engine.name for engine in self.engines))
                for track in shot.ended:
                    self._smoothers.pop(track, None)
            row += len(shot.found)
            yield AnnotatedFrame(shot.image, frame, shot.missed, shot.ended)

    def _face(self, shot: Prepared, number: int, row: int, said: Sequence[Mapping[str, np.ndarray]]) -> Face:
        """said: of each engine, output of the graph -> (N, C) of all faces; row: of this one."""
        found, outputs = shot.found[number], {}
        for engine, values in zip(self.engines, said, strict=True):
            of_face, holding = {name: rows[row] for name, rows in values.items()}, None
            if found.track is not None and shot.time_s is not None:
                of_face, holding = self._smoothed(engine, found.track, shot.time_s, of_face)
            outputs[engine.name] = outputs_of(engine.package, of_face, engine.sure, holding, engine.conformal)
        return Face(found.box.tuple, found.box.score, found.track, outputs, shot.blur[number])

    def _smoothed(
        self, engine: Engine, track: int, time_s: float, values: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
        """Of a face: what the frames of its track say so far, and the labels of each output that hold."""
        steady, holding = dict(values), {}
        of_track = self._smoothers.setdefault(track, {})
        for output in engine.package.layout.outputs:
            if (engine.name, output.name) not in of_track:
                at = thresholds_of(engine.package, output.names) if output.kind == "multilabel" else None
                of_track[engine.name, output.name] = Smoother(output.kind, self.smoothing or engine.smoothing, at)
            name = graph_names(output)[-1]  # probabilities, or scalars themselves
            steady[name], holding[output.name] = of_track[engine.name, output.name].step(values[name], time_s)
        return steady, holding


def check(engines: Sequence[Engine], search: Search, *, clips: bool = False) -> None:
    """Raises InputError where packages cannot be run together, or with this search. clips: they are to see clips, not frames."""
    twice = [name for name, count in Counter(engine.name for engine in engines).items() if count > 1]
    if twice:
        raise InputError(f"two packages are called {twice[0]!r}; rename the folder of one run, and export it anew")
    for engine in engines:
        if bool(engine.package.clip) != clips:
            sees, other = ("frames", "clips") if clips else ("clips", "frames")
            raise InputError(f"{engine.name}: sees {sees}, not {other}; take its own predict or stream")
        if isinstance(search.subject, str):
            check_species(search.subject, engine.manifest.species, engine.name)


def _values(engine: Engine, shots: list[Prepared]) -> dict[str, np.ndarray]:
    """Of all faces of the shots, one after the other."""
    views = [shot.views[engine.package.preprocess] for shot in shots if shot.found]
    return engine.answer(np.concatenate(views)) if views else {}


def _timed(source: Source, stages: Stages, channel: Channel) -> Generator[VideoFrame, None, None]:
    """How long decoding takes; of a live source it would be waiting."""
    shots = source.shots(channel)
    try:
        while True:
            began = time.perf_counter()
            shot = next(shots, None)
            if shot is None:
                return
            if not source.live:
                stages.add("decode", time.perf_counter() - began)
            yield shot
    finally:
        if close := getattr(shots, "close", None):
            close()


def _prepared(stream: Stream, preparer: Preparer, channel: Channel) -> Iterator[VideoFrame]:
    return map(preparer, stream)
