"""A package opened for inference: one backend, shared by threads, opened anew after a fork."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import cv2
import numpy as np

from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.backends.backend import Backend
from affect.engine.runtime.backends.open_backend import best_device, open_backend
from affect.engine.runtime.results import SURE
from affect.engine.runtime.smoothing import STEADY, Smoothing
from affect.engine.runtime.vision.boxes import Detector
from affect.engine.runtime.vision.subject import Search, check_species
from affect.engine.system.cpu_affinity import pin
from affect.shards.errors import InputError

BATCH = 32  # rows a call of the graph
WARM = 2  # calls before the first result: the first one allocates, and may compile
ABANDONED: list[Backend] = []  # backends of a parent process: ending one would wait for threads that are not there


class Session:
    """A package with its inference backend, and how its outputs are read: what `Engine` and `ClipEngine` have in common.

    Threads may share a session: one call of the graph runs at a time. After a fork the child opens a backend of its own at its
    first call, ONNX Runtime on the CPU; where another one was named an InputError says so.
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
        """search: without it the package's own subject. warm: open the backend, and call it WARM times, at once."""
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
        self._opened: Backend | None = None
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
    ) -> Self:
        """Load a package folder, an exported run, one of our .onnx files, or a built-in model: `emotion`.

        `Engine.load` of a clip model returns a ClipEngine.
        Raises: InputError, a ValueError.

        backend, device: as in `open_backend`. subject, detect_every, margin, align: as in `Search`; by default the package's.
        smoothing: of the results of a track in `stream`, OFF for none. sure: probability from which a label is called sure.
        coverage: instead, each face has a set of labels that holds the right one in this share of faces; sure is a set of one
        label. The package's sets must be fitted for this coverage: affect calibrate RUN --coverage 0.9.
        threads: of the graph, and of OpenCV in this process; 0: as many as there are cores. cores: run the whole process on
        these, `0-3` or numbers, with as many threads. warm: the first result is as fast as the tenth; without it the backend is
        opened when it is first needed.
        """
        package = ModelPackage.open(path)
        search = Search(package.manifest.subject if subject is None else subject, detect_every, margin, align)
        if cores is not None:
            count = pin(cores)
            threads = threads or count
        return cls._class_for(package)(
            package,
            device,
            backend=backend,
            search=search,
            smoothing=smoothing,
            sure=sure,
            coverage=coverage,
            threads=threads,
            warm=warm,
        )

    @classmethod
    def _class_for(cls, package: ModelPackage) -> type[Self]:
        return cls

    def run_graph(self, images: np.ndarray, side: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Run the graph: preprocessed (N, ...) uint8 -> {output name: (N, C) float32}, in calls of at most BATCH rows.

        side: (N, S) signals beside clips, as `Backend.run` takes them.
        """
        self._check_process()
        inputs = (images,) if side is None else (images, side)
        with self._lock:
            backend = self._open()
            parts = [backend.run(*(rows[i : i + BATCH] for rows in inputs)) for i in range(0, len(images), BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def warm_up(self) -> None:
        """Open the backend, and call it WARM times."""
        shape = [size if isinstance(size, int) else 1 for size in self.manifest.input["shape"]]
        for _ in range(WARM):
            self.run_graph(np.zeros(shape, np.uint8))

    @property
    def description(self) -> str:
        """Library, device and precision of the inference backend."""
        return self._open().description

    def _open(self) -> Backend:
        if self._closed:
            raise InputError(f"{self.name}: the engine is closed; load it anew")
        if self._opened is None:
            if self.threads:
                cv2.setNumThreads(self.threads)
            self._opened = open_backend(self.package, self.backend, self.device, self.threads or None)
        return self._opened

    def _check_process(self) -> None:
        """In the child of a fork the threads of the parent's backend are missing, and its lock may never be released."""
        if os.getpid() == self._process:
            return
        if self._opened is not None:
            if self.device != "cpu" or self.backend not in ("auto", "onnxruntime"):
                raise InputError(
                    f"{self.name}: {self._opened.description} does not survive a fork; load the engine in the child, or with "
                    "warm=False"
                )
            ABANDONED.append(self._opened)
            self.backend = "onnxruntime"  # loads in a child whatever its parent has loaded
        self._opened, self._lock, self._process = None, threading.Lock(), os.getpid()

    def _detector(self) -> Detector:
        """This thread's detector."""
        if not hasattr(self._local, "detector"):
            self._local.detector = self.search.detector()
        return cast(Detector, self._local.detector)

    def close(self) -> None:
        """Free the backend; may be called twice. Any call afterwards raises InputError."""
        with self._lock:
            if self._opened is not None and os.getpid() == self._process:
                self._opened.close()
            self._opened, self._closed = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def check_together(sessions: Sequence[Session], search: Search, *, clips: bool = False) -> None:
    """Raises InputError where packages cannot read one source together, or not with this search. clips: they must read clips."""
    twice = [name for name, count in Counter(session.name for session in sessions).items() if count > 1]
    if twice:
        raise InputError(f"two packages are called {twice[0]!r}; rename the folder of one run, and export it anew")
    for session in sessions:
        if bool(session.package.clip) != clips:
            sees, other = ("frames", "clips") if clips else ("clips", "frames")
            raise InputError(f"{session.name}: sees {sees}, not {other}; take its own predict or stream")
        check_species(search.subject, session.manifest.species, session.name)
