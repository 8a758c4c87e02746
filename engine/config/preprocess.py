"""Preprocessing of a picture before the model sees it: a value that is stored with the model.

Needs OpenCV alone, so that the runtime replays it without torch or DALI.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np

MARGIN = 0.1  # on each side of a detected face, as a share of the longer side of its box
LARGE = 2.0  # a picture more than this much too large is reduced by area averaging first


@dataclass(frozen=True)
class Clahe:
    """Zuiderveld's contrast-limited adaptive histogram equalisation, OpenCV's form.

    clip_limit: as a multiple of a flat histogram's bin. tiles: tiles per side.
    p, clip_jitter: in training, the share of pictures it is applied to and how far the limit strays.
    """

    clip_limit: float = 2.0
    tiles: int = 8
    p: float = 1.0
    clip_jitter: float = 0.0

    @property
    def levels(self) -> tuple[float, ...]:
        """The clip limits drawn from in training: OpenCV clips at whole counts, so a few levels are enough."""
        shares = (0.0,) if self.clip_jitter == 0 else (-1.0, -0.5, 0.0, 0.5, 1.0)
        return tuple(self.clip_limit * (1 + share * self.clip_jitter) for share in shares)

    def count_limit(self, size: int) -> int:
        """Return the bin height that OpenCV clips at, for pictures of `size` pixels; below 4 the limit means little."""
        return max(1, int(self.clip_limit * math.ceil(size / self.tiles) ** 2 / 256))


def with_clip_limit(clahe: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of CLAHE under their present names; `clip` is what `clip_limit` was called up to version 0.1."""
    return {"clip_limit" if key == "clip" else key: value for key, value in clahe.items()}


@dataclass(frozen=True)
class Preprocess:
    """Evaluation: shorter side to `resize * size`, centre crop of `size`, CLAHE. Training replaces the first two by random ones.

    color: `gray` works on the one luma plane and repeats it thrice; `rgb` equalises L of LAB.
    The result is (size, size, 3) uint8 RGB; the model itself normalises.
    margin, align: how a detected face is cut out, to look like the training pictures. margin: the room on each side, as a share
    of the longer side of its box. align: turn it upright, where the detector gives five points.
    """

    size: int
    resize: float = 1.15
    color: Literal["rgb", "gray"] = "rgb"
    clahe: Clahe | None = None
    margin: float = MARGIN
    align: bool = False

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) or (H, W) uint8, RGB order -> (size, size, 3) uint8."""
        plane = self.plane(image)
        resized = fit(plane, *self.resized_shape(*plane.shape[:2]))
        top, left = self.corner(*resized.shape[:2])
        return self.finish(resized[top : top + self.size, left : left + self.size])

    def plane(self, image: np.ndarray) -> np.ndarray:
        """Convert to the working colours: (H, W) for gray, (H, W, 3) for rgb."""
        if image.ndim == 3 and self.color == "gray":
            return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 and self.color == "rgb" else image

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) after resizing, before the centre crop."""
        scale = self.resize * self.size / min(height, width)
        return max(self.size, round(height * scale)), max(self.size, round(width * scale))

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Return (top, left) of the centre crop in a resized picture."""
        return (height - self.size) // 2, (width - self.size) // 2

    def finish(self, image: np.ndarray) -> np.ndarray:
        """Apply CLAHE and return three channels: (size, size) or (size, size, 3) -> (size, size, 3)."""
        return in_three_channels(equalised(image, self.clahe.clip_limit, self.clahe.tiles) if self.clahe else image)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Preprocess:
        """Read it from a manifest, old or new."""
        clahe = value.get("clahe")
        return cls(**{**value, "clahe": Clahe(**with_clip_limit(clahe)) if clahe else None})


def too_large(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Return whether a picture has to be reduced by area averaging before it is resized linearly."""
    return min(height / to_height, width / to_width) > LARGE


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to (height, width); a picture more than LARGE times too large is averaged down to just that first."""
    if too_large(image.shape[0], image.shape[1], height, width):
        image = cv2.resize(image, (round(LARGE * width), round(LARGE * height)), interpolation=cv2.INTER_AREA)
    return resize(image, height, width)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize linearly, pixel centres at .5, no antialias, in float32 and rounded once: DALI's result to the bit."""
    if image.shape[:2] == (height, width):
        return image
    floating = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.convertScaleAbs(floating)  # to the nearest, of two the even one


def equalised(image: np.ndarray, clip_limit: float, tiles: int) -> np.ndarray:
    """Apply CLAHE to the plane, or to L in LAB."""
    operator = cv2.createCLAHE(clip_limit, (tiles, tiles))
    if image.ndim == 2:
        return operator.apply(image)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = operator.apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def in_three_channels(image: np.ndarray) -> np.ndarray:
    """Return (H, W) repeated thrice, (H, W, 3) as it is; contiguous."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else np.ascontiguousarray(image)
