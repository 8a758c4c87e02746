"""Synthetic faces drawn from facial action units: stand-in data whose labels are true by construction.

A face is a list of filled polygons, turned by a head pose, painted from back to front and then lit. Action units only
move polygon points and deepen creases; identity, pose, light and surroundings are drawn independently of them.
Axes: T frames.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

from affect.shards.synthetic.expressions import EMOTIONS, SUBTLE, Expression, expression_of
from affect.shards.synthetic.portrait import identity_of, portrait
from affect.shards.synthetic.random_streams import POSED, STILL, VIDEO, generator, uniform
from affect.shards.synthetic.shapes import Shape, blob, developed, mix, painted

DRAWING = 1  # raised when the same arguments draw another picture: datasets' fingerprints hold it
OCCLUDER_CHANCE = 0.12

# fmt: off
# Uniform ranges. Pose, light and expressiveness set the difficulty: shifts and roll cost a linear model the most.
HEAD_POSE = dict(yaw=(-0.3, 0.3), pitch=(-0.16, 0.16), roll=(-0.22, 0.22), dx=(-0.11, 0.11), dy=(-0.20, 0.00),
                 scale=(0.93, 1.12))                   # angles in radians, the rest in picture units
ALIGNED = dict(yaw=(-0.25, 0.25), pitch=(-0.12, 0.12), roll=(-0.05, 0.05), dx=(-0.03, 0.03), dy=(-0.10, -0.04),
               scale=(1.05, 1.18))                     # of faces that were cut out by their landmarks
LIGHT = dict(angle=(-np.pi, np.pi), slope=(0, 0.4), shadow=(0, 0.4), edge=(-0.6, 0.6), contrast=(0.75, 1.15),
             brightness=(-25, 30), red=(0.88, 1.12), blue=(0.85, 1.15), noise=(1, 6), blur=(0, 0.4))
# fmt: on


def still(seed: int, subject: int, emotion: str, index: int, size: int = 64) -> tuple[np.ndarray, dict[str, float]]:
    """One face crop; a function of its arguments alone.

    Returns: (size, size, 3) uint8 RGB, and the intensity in 0..1 of every action unit as drawn; see PRESENT.
    """
    face, rng = identity_of(seed, subject), generator(seed, subject, STILL, EMOTIONS.index(emotion), index)
    expression, pose, light = expression_of(rng, emotion), uniform(rng, HEAD_POSE), uniform(rng, LIGHT)
    behind, before = _surroundings(rng)
    before = before if rng.random() < OCCLUDER_CHANCE else []
    return developed(painted(behind, portrait(face, expression), before, pose, size), light, rng), expression.au


def posed(seed: int, subject: int, expression: Expression, size: int = 100) -> np.ndarray:
    """(size, size, 3) uint8 RGB: an aligned face that shows `expression`, whose `au` may name any of DRAWN."""
    face, rng = identity_of(seed, subject), generator(seed, subject, POSED, 0, 0)
    pose, light, (behind, _) = uniform(rng, ALIGNED), uniform(rng, LIGHT), _surroundings(rng)
    au = {name: SUBTLE.get(name, 1.0) * value for name, value in expression.au.items()}
    return developed(painted(behind, portrait(face, expression._replace(au=au)), [], pose, size), light, rng)


def video(
    seed: int,
    subject: int,
    emotion: str,
    num_frames: int = 60,
    size: int = 64,
    onset: float = 0.2,
    apex: float = 0.4,
    offset: float = 0.8,
) -> tuple[np.ndarray, np.ndarray]:
    """One expression that comes and goes on a drifting, blinking head, under one light.

    `onset` < `apex` < `offset` are the shares of the duration at which the face leaves neutral, is at full strength
    and is neutral again; full strength is held until halfway from apex to offset.

    Returns: (T, size, size, 3) uint8 RGB, and (T,) float32 strength of the expression in 0..1; all 0 for neutral.
    """
    face, rng = identity_of(seed, subject), generator(seed, subject, VIDEO, EMOTIONS.index(emotion), 0)
    peak, light, (behind, _) = expression_of(rng, emotion), uniform(rng, LIGHT), _surroundings(rng)
    strength = _strength(num_frames, onset, apex, offset) * (emotion != "neutral")
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for frame, share, (pose, shut) in zip(frames, strength, _motion(rng, num_frames), strict=True):
        au = {name: share * value for name, value in peak.au.items()}
        head = portrait(face, peak._replace(au=au | {"AU43": max(au["AU43"], shut)}))
        frame[:] = developed(painted(behind, head, [], pose, size), light, rng)
    return frames, strength


def _strength(num_frames: int, onset: float, apex: float, offset: float) -> np.ndarray:
    when, release = np.linspace(0, 1, num_frames), (apex + offset) / 2
    ramp = np.clip(np.minimum((when - onset) / (apex - onset), (offset - when) / (offset - release)), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)  # (T,)


def _motion(rng: np.random.Generator, num_frames: int) -> Iterator[tuple[SimpleNamespace, float]]:
    """A head pose and a closure of the lids in 0..1 for each frame."""
    a, b = vars(uniform(rng, HEAD_POSE)), vars(uniform(rng, HEAD_POSE))
    sway = 0.25 + 0.25 * np.sin(np.linspace(0, rng.uniform(2, 6), num_frames))  # (T,)
    blinks = np.cumsum(rng.uniform(18, 60, 2 + num_frames // 18))  # frame numbers
    for frame in range(num_frames):
        pose = SimpleNamespace(**{name: mix(a[name], b[name], sway[frame]) for name in a})
        yield pose, float(np.clip(1.5 - np.abs(frame - blinks).min() / 2, 0, 1))


def _surroundings(rng: np.random.Generator) -> tuple[list[Shape], list[Shape]]:
    """A wall with clutter behind the face, and something small to hold before it; picture units."""
    colours = mix(rng.uniform(10, 245, (10, 1)), rng.uniform(10, 245, (10, 3)), 0.6)
    clutter = [
        Shape(blob(rng.uniform(-1.1, 1.1, 2), rng.uniform(0.1, 0.7, 2), int(rng.integers(3, 12))), colour)
        for colour in colours[: rng.integers(2, 9)]
    ]
    angle, away = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 0.8)
    occluder = blob((away * np.cos(angle), away * np.sin(angle)), rng.uniform(0.1, 0.22, 2))
    return [Shape(blob((0, 0), (2, 2), 4), colours[8]), *clutter], [Shape(occluder, colours[9])]
