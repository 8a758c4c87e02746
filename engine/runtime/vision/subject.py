"""The one place that says what a subject is, which detector finds it, and which subject is taken where nobody names one.

Subjects: `human_face` (Haar), `yunet:FILE.onnx`, `full` (the picture is one face, already cropped), `boxes:FILE.csv`,
`onnx:FILE.onnx`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affect.engine.config.preprocess import MARGIN, Preprocess
from affect.engine.package.manifest import Manifest
from affect.engine.runtime.vision.boxes import Detector, read_boxes
from affect.engine.runtime.vision.detectors import WIDTH, Full, Haar, YuNet
from affect.engine.runtime.vision.yolo import Yolo
from affect.shards.errors import InputError, nearest

SMALLEST_WIDTH = 64
HUMAN = ("human_face", "yunet")  # subjects that are faces of people
DETECTED = ("human_face", "yunet", "onnx")  # those that a detector finds in the picture itself
WITH_POINTS = ("yunet", "onnx")  # those that can have five points


def _file(text: str) -> Path:
    return Path(text).expanduser()


SUBJECTS: dict[str, tuple[str, Callable[[str, int], Detector]]] = {  # name -> what stands behind the colon, its detector
    "human_face": ("", lambda rest, width: Haar(width)),
    "yunet": ("FILE.onnx", lambda rest, width: YuNet(_file(rest), width)),
    "full": ("", lambda rest, width: Full()),
    "boxes": ("FILE.csv", lambda rest, width: read_boxes(_file(rest))),
    "onnx": ("FILE.onnx", lambda rest, width: Yolo(_file(rest))),
}


def subject_of(text: str, width: int = WIDTH) -> Detector:
    """Return the detector of a subject. width: pixels to which Haar and YuNet reduce a wider picture."""
    name, _, rest = text.partition(":")
    known = [f"{key}:{behind}" if behind else key for key, (behind, _) in SUBJECTS.items()]
    if name not in SUBJECTS:
        raise InputError(f"subject {text!r}: unknown{nearest(name, SUBJECTS)}; expected {', '.join(known)}")
    behind, make = SUBJECTS[name]
    if bool(rest) != bool(behind):
        raise InputError(f"subject {text!r}: expected {name}{f':{behind}' if behind else ', nothing behind it'}")
    return make(rest, width)


def detects_people(subject: str | Detector) -> bool:
    """Return whether the subject names a detector of human faces; a detector of the caller's is not known to."""
    return isinstance(subject, str) and subject.partition(":")[0] in HUMAN


@dataclass(frozen=True)
class Search:
    """How subjects are detected and cropped.

    subject: see the top of this file; or a detector of the caller's.
    detect_every: the detector runs in one of so many frames, tracking bridges the others.
    margin: room around a box on each side, as a share of its longer side. align: turn faces upright by the five points of YuNet.
        Both: None for what each package's `Preprocess` says.
    detect_width: pixels to which `human_face` and `yunet` reduce a wider picture: their smallest faces have 24 and about 10
        pixels there, and the time grows with the square.
    """

    subject: str | Detector = "full"
    detect_every: int = 1
    margin: float | None = None
    align: bool | None = None
    detect_width: int = WIDTH

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise InputError(f"detect_every: found {self.detect_every}; expected 1 (each frame) or more")
        if self.detect_width < SMALLEST_WIDTH:
            raise InputError(
                f"detect_width: found {self.detect_width}; expected at least {SMALLEST_WIDTH} pixels, such as {WIDTH}"
            )
        if self.align and isinstance(self.subject, str) and self.subject.partition(":")[0] not in WITH_POINTS:
            raise InputError(f"align: {self.subject} gives no five points to turn faces by; name yunet:FILE.onnx as the subject")
        if self.margin is not None and not 0 <= self.margin <= 2:
            raise InputError(f"margin: found {self.margin}; expected a share of the box from 0 to 2, such as {MARGIN}")

    def crop_settings(self, preprocess: Preprocess) -> tuple[float, bool]:
        """Return margin and align: as set here, else as the package was trained."""
        margin = preprocess.margin if self.margin is None else self.margin
        return margin, preprocess.align if self.align is None else self.align

    def detector(self) -> Detector:
        """Return a new detector where the subject is named: one detector serves one thread."""
        return subject_of(self.subject, self.detect_width) if isinstance(self.subject, str) else self.subject


FULL = Search()


def default_subject(manifests: Sequence[Manifest], moving: bool) -> tuple[str, str]:
    """Return the subject of a source where nobody names one, and the reason.

    moving: a video or a camera, which shows more than a face; a picture may be one that was cropped.
    """
    if {manifest.subject for manifest in manifests} == {HUMAN[0]}:
        return HUMAN[0], "the package says so"
    if not moving:
        return "full", "pictures are taken as cropped already"
    others = [manifest for manifest in manifests if manifest.species != "human"]
    if others:
        return "full", f"{others[0].name} reads {others[0].species or 'nobody knows whom'}"
    return HUMAN[0], "it is a video or a camera, and the package reads people"


def check_species(subject: str | Detector, species: str, package: str) -> None:
    """Raises InputError where a detector of human faces is named with a package about animals.

    species: of the package, `human` or another; empty where it does not say. package: its name, for the message.
    """
    if detects_people(subject) and species not in ("human", ""):
        raise InputError(
            f"subject {subject!r}: finds human faces, {package} reads {species}; pass full for pictures already cropped, "
            "boxes:FILE.csv or onnx:FILE.onnx"
        )


def finder(text: str) -> Callable[[np.ndarray], tuple[float, float, float, float] | None]:
    """Return a function for any number of threads: picture -> top, left, bottom, right of its best subject in pixels, or None.

    Raises: InputError where `text` names no detector that looks at pictures.
    """
    if text.partition(":")[0] not in DETECTED:
        raise InputError(f"subject {text!r}: finds nothing by itself; expected human_face, yunet:FILE.onnx or onnx:FILE.onnx")
    local = threading.local()
    local.detector = subject_of(text)  # at once, so that a wrong subject is an error now

    def find(image: np.ndarray) -> tuple[float, float, float, float] | None:
        if not hasattr(local, "detector"):
            local.detector = subject_of(text)
        boxes = local.detector.detect(image)
        return (boxes[0].y, boxes[0].x, boxes[0].y + boxes[0].h, boxes[0].x + boxes[0].w) if boxes else None

    return find
