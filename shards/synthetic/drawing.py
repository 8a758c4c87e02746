"""A pen for animals' heads, and clips of them as folders of JPEGs or as mp4."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

FPS = 25  # of an mp4
SHIFT = 4  # bits of a pixel's fraction that OpenCV draws with


class Pen:
    """Draws ovals and lines on a head that is moved and tilted."""

    def __init__(self, picture: np.ndarray, x: float, y: float, tilt: float) -> None:
        self.picture, self.unit = picture, len(picture)
        self.x, self.y, self.tilt = 0.5 + x, 0.5 + y, tilt
        self.cos, self.sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))

    def oval(self, x: float, y: float, a: float, b: float, colour: tuple[int, ...], angle: float = 0) -> None:
        axes = self._fixed(max(a, 0)), self._fixed(max(b, 0))
        cv2.ellipse(self.picture, self._at(x, y), axes, angle + self.tilt, 0, 360, colour, -1, cv2.LINE_AA, SHIFT)

    def line(self, x: float, y: float, to_x: float, to_y: float, width: float, colour: tuple[int, ...]) -> None:
        """A thin oval: OpenCV's lines are whole pixels wide."""
        middle, half = ((x + to_x) / 2, (y + to_y) / 2), math.hypot(to_x - x, to_y - y) / 2
        self.oval(*middle, half, width / 2, colour, math.degrees(math.atan2(to_y - y, to_x - x)))

    def _at(self, x: float, y: float) -> tuple[int, int]:
        return self._fixed(self.x + x * self.cos - y * self.sin), self._fixed(self.y + x * self.sin + y * self.cos)

    def _fixed(self, value: float) -> int:
        return round(max(value, -1.0) * self.unit * 2**SHIFT)


def _noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (picture + rng.integers(-7, 8, picture.shape[:2], np.int16)[..., None]).clip(0, 255).astype(np.uint8)


def write_jpegs(path: Path, pictures: list[np.ndarray], rng: np.random.Generator) -> None:
    path.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        data = cv2.imencode(".jpg", _noisy(picture, rng), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (path / f"frame_{number:04d}.jpg").write_bytes(data.tobytes())


def write_mp4(path: Path, pictures: list[np.ndarray], rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "18"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1  # with more threads the bytes depend on their number
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_noisy(picture, rng), format="bgr24")))
        container.mux(stream.encode())
