"""Crops the square around a subject that a model sees."""

from __future__ import annotations

import cv2
import numpy as np

from affect.engine.config.preprocess import MARGIN
from affect.engine.runtime.vision.boxes import Box

ALIGNED_SIDE = 112.0  # of FIVE_POINTS, which frame a face from the brows to the chin
FIVE_POINTS = np.array(  # the template of ArcFace's alignment, also OpenCV's FaceRecognizerSF
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
BLUR_SIDE = 64  # pixels; sharpness is compared at one size
LARGEST = 4096  # pixels; a box from a file may be of any size


def crop(image: np.ndarray, box: Box, margin: float = MARGIN, align: bool = False) -> np.ndarray:
    """Return (S, S, 3) uint8 around the box, in the picture's own pixels; the picture's edge is repeated outside of it.

    margin: room on each side as a share of the box's longer side. align: turned and scaled so that the five points lie on
    FIVE_POINTS; a box without points is cropped upright.
    """
    if align and box.points is not None:
        return _aligned(image, box.points, margin)
    side = min(LARGEST, max(1, round(max(box.w, box.h) * (1 + 2 * margin))))
    left, top = round(box.x + box.w / 2 - side / 2), round(box.y + box.h / 2 - side / 2)
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return image[top : top + side, left : left + side]
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    return image[rows[:, None], columns]


def _aligned(image: np.ndarray, points: np.ndarray, margin: float) -> np.ndarray:
    """Crop by the similarity that brings the points nearest to the template, in the least squares' sense."""
    source, target = _complex(points), _complex(FIVE_POINTS)
    middle, centre = source.mean(), target.mean()
    turn = np.vdot(target - centre, source - middle) / np.vdot(target - centre, target - centre)  # template -> picture
    if not 0 < abs(turn) * ALIGNED_SIDE < LARGEST:
        turn = 1.0 + 0j
    side = max(1, round(abs(turn) * ALIGNED_SIDE * (1 + 2 * margin)))
    step = turn / abs(turn)  # one pixel of the crop, in the picture
    origin = middle + turn * (ALIGNED_SIDE / 2 * (1 + 1j) - centre) - step * (side - 1) / 2 * (1 + 1j)
    matrix = np.array([[step.real, -step.imag, origin.real], [step.imag, step.real, origin.imag]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _complex(points: np.ndarray) -> np.ndarray:
    return points[:, 0].astype(np.float64) + 1j * points[:, 1]


def sharpness(image: np.ndarray) -> float:
    """Return the variance of the Laplacian of the luma at BLUR_SIDE pixels: near 0 where blurred, hundreds where sharp."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    shrinks = max(luma.shape) > BLUR_SIDE
    small = cv2.resize(luma, (BLUR_SIDE, BLUR_SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return float(cv2.Laplacian(small, cv2.CV_32F).var())
