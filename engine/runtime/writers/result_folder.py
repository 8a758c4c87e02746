"""Writes the results of a source: tables, events, a timeline, a summary and, when asked for, the annotated video."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from affect.engine.runtime.frame_reader import AnnotatedFrame, Reader
from affect.engine.runtime.input_warnings import InputWarnings
from affect.engine.runtime.results import Face, FaceOutput, columns_of, main_output, rows_of, set_column
from affect.engine.runtime.session import Session, check_together
from affect.engine.runtime.smoothing import Events, Smoothing
from affect.engine.runtime.sources.stream import Source
from affect.engine.runtime.vision.boxes import Box
from affect.engine.runtime.vision.subject import FULL, Search
from affect.engine.runtime.writers.mp4 import Mp4
from affect.engine.runtime.writers.overlay import Mark, annotated, anonymised
from affect.engine.runtime.writers.partial_file import put
from affect.engine.runtime.writers.prediction_table import EventTable, Predictions
from affect.engine.runtime.writers.timeline import Timeline
from affect.engine.system.folder_lock import lock_folder
from affect.shards.errors import InputError

SUMMARY, TIMELINE, ANNOTATED = "summary.json", "timeline.png", "annotated.mp4"
STILLS = "annotated"  # the folder of annotated pictures


def run_source(
    engines: Sequence[Session],
    source: Source,
    out: Path,
    *,
    search: Search = FULL,
    smoothing: Smoothing | None = None,
    video: bool = False,
    anonymize: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Write the results of each frame into the folder `out`; return the content of summary.json.

    predictions.csv and .parquet, events.csv, timeline.png of a source with a clock, summary.json. video: annotated.mp4 too, with
    the source's sound, or of pictures without a clock annotated/NAME.png; anonymize: with the faces in it blurred. Without it no
    frame is stored. smoothing: of all engines, instead of their own. Interrupted, the files hold the frames so far. A source
    that cannot be read leaves no files. Raises InputError where another process writes to the folder.
    """
    if anonymize and not video:
        raise InputError("anonymize: blurs faces in the annotated video, and none is asked for; add --video, or leave it out")
    check_together(engines, search)
    if Path(source.name).is_dir() and out.resolve() == Path(source.name).resolve():
        raise InputError(
            f"{out}: holds the pictures that are read, and the next run would read its timeline; name another folder"
        )
    with Reader(engines, source, search, smoothing) as reader:
        first = next(reader, None)
        if first is None:
            raise InputError(f"{source.name}: has no frames")
        with lock_folder(out), ResultFolder(engines, source, out, video, anonymize, reader) as folder:
            folder.add(first)
            advance(1)
            for result in reader:
                folder.add(result)
                advance(1)
    return folder.summary


class ResultFolder:
    """The files of one pass; they are complete whatever ends the block."""

    def __init__(
        self, engines: Sequence[Session], source: Source, out: Path, video: bool, anonymize: bool, reader: Reader
    ) -> None:
        self.source, self.out, self.anonymize, self.reader = source, out, anonymize, reader
        self.frames = self.faces = self.without = 0
        self.labels: dict[str, Counter[str]] = {engine.name: Counter() for engine in engines}
        self.events = {engine.name: Events() for engine in engines}
        self.summary: dict[str, Any] = {}
        self._began = time.perf_counter()
        self._clocked = False
        self._timelines: dict[str, Timeline] = {}
        columns = dict.fromkeys(name for engine in engines for name in columns_of(engine.package))
        self._files = ExitStack()
        sets = dict.fromkeys(set_column(engine.conformal.output) for engine in engines if engine.conformal)
        self._warnings = InputWarnings(engines, source, reader.search)
        self._table = self._files.enter_context(Predictions(out, list(columns), sets=list(sets)))
        self._event_table = self._files.enter_context(EventTable(out))
        self._video = self._files.enter_context(Mp4(out / ANNOTATED, source.sound)) if video else None

    def add(self, result: AnnotatedFrame) -> None:
        frame = result.frame
        self._warnings.check_sizes(frame)
        with self.reader.stages.of("write"):
            self._table.write(rows_of(frame))
            for face in frame.faces:
                self._add_face(face, frame.time_s)
            for name, events in self.events.items():
                self._event_table.write(name, events.end(result.ended))
            if self._video is not None:
                self._draw(self._video, result)
        self.frames += 1
        self.faces += len(frame.faces)
        self.without += not frame.faces
        self._clocked = self._clocked or frame.time_s is not None

    def _add_face(self, face: Face, time_s: float | None) -> None:
        for name, outputs in face.outputs.items():
            output = main_output(outputs)
            if output is None:
                continue
            self.labels[name]["+".join(output.labels)] += 1
            if face.track is not None and time_s is not None:
                self._event_table.write(name, self.events[name].step(face.track, output.labels, time_s))
                self._add_to_timeline(name, output, face.track, time_s)

    def _add_to_timeline(self, name: str, output: FaceOutput, track: int, time_s: float) -> None:
        label = output.names.index(output.labels[0]) if output.labels else None
        self._timelines.setdefault(name, Timeline(output.names)).add(track, time_s, output.values, label)

    def _draw(self, video: Mp4, result: AnnotatedFrame) -> None:
        frame, drawn = result.frame, self._drawn(result)
        if frame.time_s is not None:
            video.write(drawn, frame.time_s)
            return
        name = frame.source if frame.source not in ("", "array") else str(frame.number)
        path = self.out / STILLS / (name if name.endswith(".png") else f"{name}.png")
        path.parent.mkdir(exist_ok=True)
        put(path, lambda partial: partial.write_bytes(cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes()))

    def _drawn(self, result: AnnotatedFrame) -> np.ndarray:
        faces = result.frame.faces
        boxes = [Box.at(face.box, face.score) for face in faces]
        image = anonymised(result.image, [*boxes, *result.missed]) if self.anonymize else result.image
        return annotated(image, [_mark(face, box) for face, box in zip(faces, boxes, strict=True)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for name, events in self.events.items():
                self._event_table.write(name, events.end())
        finally:
            self._files.__exit__(kind, error, trace)
        self.summary = self._summary(interrupted=kind is not None)
        put(self.out / SUMMARY, lambda path: path.write_text(json.dumps(self.summary, indent=1) + "\n"))
        self._plot()

    def _summary(self, interrupted: bool) -> dict[str, Any]:
        seconds, search = time.perf_counter() - self._began, self.reader.search
        return {
            "source": self.source.name,
            "subject": search.subject if isinstance(search.subject, str) else type(search.subject).__name__,
            "detect_every": search.detect_every,
            "frames": self.frames,
            "frames_without_a_face": self.without,
            "faces": self.faces,
            "dropped": self.reader.dropped,
            "interrupted": interrupted,
            "fps": round(self.frames / max(seconds, 1e-9), 2),
            "stages": self.reader.stages.to_json(),
            "packages": {
                name: {
                    "labels": dict(labels.most_common()),
                    "flips_per_minute": round(self.events[name].flips_per_minute, 2),
                    "faces_too_small": self._warnings.small[name],
                }
                for name, labels in self.labels.items()
            },
            "notes": [*self._warnings.notes, *self.reader.notes],
        }

    def _plot(self) -> None:
        """Plot timeline.png of the first package that has labels, timeline_NAME.png of each other one."""
        if not self._clocked:
            return
        timelines = self._timelines or {next(iter(self.labels)): Timeline(())}
        for i, (name, timeline) in enumerate(timelines.items()):
            path = self.out / (TIMELINE if i == 0 else f"timeline_{name}.png")
            put(path, partial(timeline.plot, title=f"{name}, {Path(self.source.name).name}"))


def _mark(face: Face, box: Box) -> Mark:
    """Mark a face with the first package's label, and its probabilities as bars."""
    output = next((output for outputs in face.outputs.values() if (output := main_output(outputs))), None)
    if output is None:
        return Mark(box, face.track)
    probs = dict(zip(output.names, output.values.tolist(), strict=True))
    prob = probs[output.labels[0]] if output.kind == "classes" else None
    return Mark(box, face.track, "+".join(output.labels), prob, output.sure, probs)
