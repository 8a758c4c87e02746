"""The detectors that come with the engine: the whole picture, Haar features, YuNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from affect.engine.runtime.vision.boxes import Box
from affect.engine.system.quiet import opencv_quiet
from affect.shards.errors import InputError

WIDTH = 320  # pixels; a wider picture is reduced to this width
HAAR_SMALLEST = 24  # pixels at that width
YUNET_SMALLEST = 16  # pixels a side; a smaller picture shows no face


class Full:
    """No detector: the whole picture is the subject, cropped already."""

    def detect(self, image: np.ndarray, number: int = 0) -> list[Box]:
        return [Box(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))]


class Haar:
    """OpenCV's detector of frontal faces by Haar features, which needs no download. Upright and frontal faces only.

    score: the last stage's sum s as s / (1 + s); it ranks, it is no probability.
    """

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        folder: Any = cv2.data  # type: ignore[attr-defined,unused-ignore]
        self.cascade = cv2.CascadeClassifier(str(Path(folder.haarcascades) / "haarcascade_frontalface_default.xml"))

    def detect(self, image: np.ndarray, number: int = 0) -> list[Box]:
        small, scale = narrowed(image, self.width)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        places, _, sums = self.cascade.detectMultiScale3(
            gray, 1.1, 5, minSize=(HAAR_SMALLEST, HAAR_SMALLEST), outputRejectLevels=True
        )
        boxes = [
            Box.at(place / scale, max(0.0, float(s)) / (1 + max(0.0, float(s))))
            for place, s in zip(places, np.ravel(sums), strict=True)
        ]
        return sorted(boxes, key=lambda box: -box.score)


class YuNet:
    """YuNet by `cv2.FaceDetectorYN`, with five points for the alignment.

    path: of `face_detection_yunet` or `yunet_n_*` as ONNX (opencv_zoo, libfacedetection).
    """

    def __init__(self, path: Path, width: int = WIDTH, score: float = 0.6) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected YuNet's ONNX file: yunet:FILE.onnx")
        self.path, self.width, self.size = path, width, (WIDTH, WIDTH)
        try:
            with opencv_quiet():
                self.net = cv2.FaceDetectorYN.create(str(path), "", self.size, score, 0.3, 1000)
                self.detect(np.zeros((WIDTH, WIDTH, 3), np.uint8))
        except cv2.error as error:
            raise InputError(f"{path}: not a YuNet that OpenCV {cv2.__version__} reads ({_reason(error)})") from error

    def detect(self, image: np.ndarray, number: int = 0) -> list[Box]:
        small, _ = narrowed(image, self.width)
        if min(small.shape[:2]) < YUNET_SMALLEST:
            return []
        size = (small.shape[1], small.shape[0])
        if size != self.size:
            self.net.setInputSize(size)
            self.size = size
        rows: Any = self.net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        if rows is None:
            return []
        stretch = np.array([image.shape[1] / size[0], image.shape[0] / size[1]], np.float32)
        places = rows[:, :14].reshape(-1, 7, 2) * stretch
        boxes = [Box.at(place[:2].ravel(), float(row[14]), place[2:]) for place, row in zip(places, rows, strict=True)]
        return sorted((box for box in boxes if box.w > 0 and box.h > 0), key=lambda box: -box.score)


def narrowed(image: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Return the picture at most `width` wide, and its scale.

    Linear: averaging the area takes 2 ms at 1080p, and the detections are the same.
    """
    scale = min(1.0, width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return (image if size == (image.shape[1], image.shape[0]) else cv2.resize(image, size)), scale


def _reason(error: cv2.error) -> str:
    return " ".join(str(error.err or error).split())[:120]
