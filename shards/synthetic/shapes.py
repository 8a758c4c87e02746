"""Filled polygons: how a drawn face is built of them, painted, and lit as by a camera.

Face units: origin between the eyes, x right, y down, half the head's height is 1. Picture units: -1..1 both ways.
Axes: N polygon points. Colours: RGB, 0..255.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

SUPERSAMPLE = 2  # canvas pixels per picture pixel
SHIFT = 4  # fractional bits of the coordinates handed to cv2


class Shape(NamedTuple):
    outline: np.ndarray  # (N, 2) face or picture units
    colour: np.ndarray  # (3,)
    lift: float = 0.0  # height above the face's surface, face units


def mix(a: Any, b: Any, share: Any) -> Any:
    return a * (1 - share) + b * share


def blob(centre: ArrayLike, radii: ArrayLike, corners: int = 16, power: float = 2.0) -> np.ndarray:
    """(N, 2) superellipse, clockwise from its right end: power 2 is an ellipse, more is boxier."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    unit = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.copysign(np.abs(unit) ** (2 / power), unit) * radii + centre


def band(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> np.ndarray:
    """(N, 2) outline of what lies between the curves (x0, y0) and (x1, y1)."""
    return np.stack([np.append(x0, x1[::-1]), np.append(y0, y1[::-1])], 1)


def ribbon(x: np.ndarray, y: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """(N, 2) outline of a stroke along (x, y), `width` thick in the middle and tapering to its ends."""
    half = width / 2 * np.sin(np.linspace(0.08, 0.92, len(x)) * np.pi) ** 0.6
    steep = abs(x[-1] - x[0]) < abs(y[-1] - y[0])
    return band(x - half, y, x + half, y) if steep else band(x, y - half, x, y + half)


def painted(behind: list[Shape], head: list[Shape], before: list[Shape], pose: SimpleNamespace, size: int) -> np.ndarray:
    """(size, size, 3) uint8, evenly lit."""
    canvas = np.empty((size * SUPERSAMPLE, size * SUPERSAMPLE, 3), np.uint8)
    layers = [
        *((shape, shape.outline) for shape in behind),
        *zip(head, _turned(head, pose), strict=True),
        *((shape, shape.outline) for shape in before),
    ]
    fixed = (np.concatenate([outline for _, outline in layers]) + 1) * (len(canvas) / 2) - 0.5  # (N, 2) pixels
    stops = np.cumsum([len(outline) for _, outline in layers])
    polygons = np.split(np.round(fixed * 2**SHIFT).astype(np.int32), stops[:-1])
    for (shape, _), polygon in zip(layers, polygons, strict=True):
        cv2.fillPoly(canvas, [polygon], shape.colour.tolist(), cv2.LINE_AA, SHIFT)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def _turned(head: list[Shape], pose: SimpleNamespace) -> list[np.ndarray]:
    """The outlines in picture units: on an ellipsoid, turned by yaw, pitch and roll, seen from afar."""
    x, y = np.concatenate([shape.outline for shape in head]).T
    corners = [len(shape.outline) for shape in head]
    z = 0.75 * np.sqrt(np.clip(1 - (x / 0.95) ** 2 - (y / 1.35) ** 2, 0.05, 1))
    z += np.repeat([shape.lift for shape in head], corners)
    x, z = x * np.cos(pose.yaw) + (z - 0.45) * np.sin(pose.yaw), z * np.cos(pose.yaw) - x * np.sin(pose.yaw)
    y, cos, sin = y * np.cos(pose.pitch) + z * np.sin(pose.pitch), np.cos(pose.roll), np.sin(pose.roll)
    points = np.stack([x * cos - y * sin, x * sin + y * cos], 1) * pose.scale + (pose.dx, pose.dy)
    return np.split(points, np.cumsum(corners)[:-1])


def developed(image: np.ndarray, light: SimpleNamespace, rng: np.random.Generator) -> np.ndarray:
    """The picture under `light`, with the lens's blur and the sensor's noise; uint8 again."""
    axis, sigma = np.linspace(-1, 1, len(image), dtype=np.float32), light.blur * len(image) / 64
    across = axis * np.float32(np.cos(light.angle)) + axis[:, None] * np.float32(np.sin(light.angle))
    field = (1 + light.slope * across) * (1 - light.shadow / (1 + np.exp(8 * (across - light.edge))))
    tint = np.array([light.red, 1, light.blue], np.float32) * light.contrast
    lit = (image * tint + np.float32(128 - 128 * light.contrast + light.brightness)) * field[..., None]
    lit = cv2.GaussianBlur(lit, (0, 0), sigma) if sigma > 0.2 else lit
    lit += rng.standard_normal(lit.shape, np.float32) * np.float32(light.noise)
    return np.clip(lit, 0, 255).astype(np.uint8)
