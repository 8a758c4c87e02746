"""Pictures in, faces with their outputs out."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import cv2
import numpy as np

from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.backends.base import Backend
from affect.engine.runtime.backends.open_backend import best_device, open_backend
from affect.engine.runtime.frame_reader import Reader
from affect.engine.runtime.results import SURE, Face, FaceOutput, Frame, Frames, columns_of, outputs_of
from affect.engine.runtime.smoothing import STEADY, Smoothing
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Channel, Source, VideoFrame
from affect.engine.runtime.vision.boxes import Detector
from affect.engine.runtime.vision.prepare import Search
from affect.engine.system.cpu_affinity import pin
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.images import decode

__all__ = ["BATCH", "Engine", "Face", "FaceOutput", "Frame", "Frames", "Picture", "columns_of", "outputs_of"]

BATCH = 32  # pictures a call of the graph
WARM = 2  # calls before the first answer: the first one allocates, and may compile

Picture = np.ndarray | str | Path


class Engine:
    """A package that answers.

        with Engine.load("runs/smoke/package") as engine:
            print(engine.predict("face.jpg")[0].faces[0].label)
        for frame in Engine.load("runs/smoke/package", subject="human_face").stream("clip.mp4"):
            print(frame.time_s, [face.label for face in frame.faces])

    Pictures are RGB. The subject `full` takes each picture as one face, already cropped.
    Threads may share an engine: one call of the graph runs at a time. After a fork the child opens a backend of its own when
    it first asks, ONNX Runtime on the CPU; where another one was named an InputError says so.
    """

    def __init__(
        self,
        package: ModelPackage,
        device: str = "cpu",
        *,
        backend: str = "auto",
        search: Search | None = None,
        smoothing: Smoothing = STEADY,
        sure: float = SURE,
        coverage: float | None = None,
        threads: int = 0,
        warm: bool = False,
    ) -> None:
        """search: without it the package's own subject. warm: make the session, and call it WARM times, at once."""
        if threads < 0:
            raise InputError(f"threads: found {threads}; expected a number of threads, or 0 for as many as there are cores")
        if not 0 <= sure <= 1:
            raise InputError(f"sure: found {sure}; expected a probability from 0 to 1")
        self.package, self.manifest, self.backend = package, package.manifest, backend
        self.device = best_device() if device == "auto" else device
        self.search = search or Search(package.manifest.subject)
        self.conformal = None if coverage is None else package.conformal_at(coverage)
        self.smoothing, self.sure, self.threads, self.name = smoothing, sure, threads, package.manifest.name
        self._local = threading.local()
        self._lock, self._process = threading.Lock(), os.getpid()
        self._made: Backend | None = None
        self._closed = False
        if warm:
            self.warm_up()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backend: str = "auto",
        device: str = "auto",
        subject: str | Detector | None = None,
        detect_every: int = 1,
        margin: float | None = None,
        align: bool | None = None,
        smoothing: Smoothing = STEADY,
        sure: float = SURE,
        coverage: float | None = None,
        threads: int = 0,
        cores: str | Iterable[int] | None = None,
        warm: bool = True,
    ) -> Engine:
        """A package folder, a run that was exported, one of our .onnx files, or `emotion`, the model that comes along.

        Raises: InputError, a ValueError.

        backend, device: of `open_backend`. subject, detect_every, margin, align: of `Search`; those that are not given are
        the package's. smoothing: of the answers of a track in `stream`, OFF for none. sure: probability from which a label is.
        coverage: instead, each face has a set of labels, the right one among them in this share of faces; sure is a set of one
        label. The package's sets, fitted for this very coverage: affect calibrate RUN --coverage 0.9.
        threads: of the graph, and of all that OpenCV does in this process; 0: as many as there are cores. cores: that the whole
        process is kept on, `0-3` or numbers; then as many threads. warm: the first answer is as fast as the tenth; without it
        the backend is opened when it is first needed.
        """
        package = ModelPackage.open(path)
        search = Search(package.manifest.subject if subject is None else subject, detect_every, margin, align)
        if package.clip and cls is Engine:
            from affect.engine.runtime.clip_engine import ClipEngine

            cls = ClipEngine
        if cores is not None:
            count = pin(cores)
            threads = threads or count
        return cls(
            package, device, backend=backend, search=search, smoothing=smoothing, sure=sure, coverage=coverage, threads=threads,
            warm=warm,
        )  # fmt: skip

    def predict(self, pictures: Picture | Sequence[Picture], times_s: Sequence[float] | None = None) -> Frames:
        """One Frame for each picture, each read by itself; where a subject is looked for and not found it has no faces.

        pictures: one or many of: (H, W, 3) RGB or (H, W) gray uint8 arrays, or files; also one (N, H, W, 3) array.
        times_s: seconds of each, where they are frames of a video.
        Raises: InputError naming the picture that is neither.
        """
        several = _several(pictures)
        if times_s is not None and len(times_s) != len(several):
            raise InputError(f"times_s: {len(times_s)} times for {len(several)} pictures")

        def shots(channel: Channel) -> Iterator[VideoFrame]:
            for i, picture in enumerate(several):
                name = str(picture) if isinstance(picture, str | Path) else "array"
                yield VideoFrame(name, i, None, _image(picture, i))

        source = Source("pictures", shots, threaded=False)
        with Reader([self], source, self.search, together=BATCH, detector=self._detector()) as reader:
            frames = Frames(answer.frame for answer in reader)
        if times_s is not None:
            frames = Frames(replace(frame, time_s=t) for t, frame in zip(times_s, frames, strict=True))
        return frames

    def stream(
        self, source: str | Path | int | np.ndarray | Iterable[Any], rate_hz: float | None = None
    ) -> Generator[Frame, None, None]:
        """Frame after frame of what `open_source` opens, in constant memory; faces keep their track, answers are smoothed.

        rate_hz: of pictures that have no clock; without it they are read one by one, as in `predict`.
        """
        with Reader([self], open_source(source, rate_hz), self.search) as reader:
            for answer in reader:
                yield answer.frame

    def answer(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What the graph says: preprocessed (N, H, W, 3) uint8 -> name -> (N, C) float32; N is cut into BATCH.

        side: (N, S) signals beside clips, as `Backend.run` takes them.
        """
        self._check_process()
        given = (images,) if side is None else (images, side)
        with self._lock:
            backend = self._backend
            parts = [backend.run(*(one[i : i + BATCH] for one in given)) for i in range(0, len(images), BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def warm_up(self) -> None:
        """The session is made, and has answered WARM times."""
        shape = [size if isinstance(size, int) else 1 for size in self.manifest.input["shape"]]
        for _ in range(WARM):
            self.answer(np.zeros(shape, np.uint8))

    @property
    def description(self) -> str:
        """Library, device and precision of the inference backend."""
        return self._backend.description

    @property
    def _backend(self) -> Backend:
        if self._closed:
            raise InputError(f"{self.name}: the engine is closed; load it anew")
        if self._made is None:
            if self.threads:
                cv2.setNumThreads(self.threads)
            self._made = open_backend(self.package, self.backend, self.device, self.threads or None)
        return self._made

    def _check_process(self) -> None:
        """In the child of a fork: the parent's session has threads that are not there, and its lock may be held for ever."""
        if os.getpid() == self._process:
            return
        if self._made is not None:
            if self.device != "cpu" or self.backend not in ("auto", "onnxruntime"):
                raise InputError(
                    f"{self.name}: {self._made.description} does not survive a fork; "
                    "load the engine in the child, or with warm=False"
                )
            LEFT_ALONE.append(self._made)
            self.backend = "onnxruntime"  # what loads in a child whatever its parent has loaded
        self._made, self._lock, self._process = None, threading.Lock(), os.getpid()

    def _detector(self) -> Detector:
        """One for each thread."""
        if not hasattr(self._local, "detector"):
            self._local.detector = self.search.detector()
        return cast(Detector, self._local.detector)

    def close(self) -> None:
        """Free the session; may be called twice. What is asked afterwards is an InputError."""
        with self._lock:
            if self._made is not None and os.getpid() == self._process:
                self._made.close()
            self._made, self._closed = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


LEFT_ALONE: list[Backend] = []  # sessions of a parent process: ending one would wait for threads that are not there


def _several(pictures: Picture | Sequence[Picture]) -> Sequence[Picture]:
    if isinstance(pictures, str | Path):
        return [pictures]
    if isinstance(pictures, np.ndarray):
        if pictures.ndim == 4:
            return list(pictures)
        return [pictures]
    return pictures


def _image(picture: Picture, index: int) -> np.ndarray:
    if isinstance(picture, str | Path):
        try:
            return decode(Path(picture).read_bytes())
        except OSError as error:
            raise InputError(f"{picture}: cannot be read: {error.strerror}") from error
        except BadImage as error:
            raise InputError(f"{picture}: {error}; expected a picture file") from error
    if not isinstance(picture, np.ndarray):
        raise InputError(
            f"picture {index}: found {type(picture).__name__}; expected a uint8 array (H, W, 3) in RGB, or a file name"
        )
    shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    if picture.dtype != np.uint8 or not shaped or 0 in picture.shape:
        hint = "; values 0..1 become pixels by (255 * x).astype(np.uint8)" if picture.dtype.kind == "f" else ""
        raise InputError(f"picture {index}: found {picture.shape} {picture.dtype}; expected (H, W, 3) or (H, W) uint8{hint}")
    return picture
