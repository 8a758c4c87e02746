"""Synthetic faces drawn from facial action units: stand-in data whose labels are true by construction.

A face is a list of filled polygons, turned by a head pose, painted from back to front and then lit. Action units only
move polygon points and deepen creases; identity, pose, light and surroundings are drawn independently of them.

Face units: origin between the eyes, x right, y down, half the head's height is 1; `side` is -1 (left in the picture) or
+1; `t` runs along a feature. Picture units: -1..1 both ways. Axes: T frames, N polygon points. Colours: RGB, 0..255.

Source of PROTOTYPES: Ekman & Friesen, EMFACS-7, 1983; Ekman, Friesen & Hager, FACS Investigator's Guide, 2002, ch. 12.
Contempt is unilateral: Ekman & Friesen, A New Pan-Cultural Facial Expression of Emotion, 1986.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
ACTION_UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 43))
DRAWN = (*ACTION_UNITS, "AU16", "AU24", "AU27")  # the last three in `posed` faces alone
PROTOTYPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happiness": {"AU6": 0.8, "AU12": 1.0},
    "surprise": {"AU1": 0.9, "AU2": 0.9, "AU5": 0.8, "AU26": 1.0},
    "sadness": {"AU1": 1.0, "AU4": 0.7, "AU15": 1.0},
    "anger": {"AU4": 1.0, "AU5": 0.7, "AU7": 0.8, "AU23": 0.9},
    "disgust": {"AU9": 1.0, "AU10": 0.7, "AU15": 0.7},
    "fear": {"AU1": 0.9, "AU2": 0.7, "AU4": 0.7, "AU5": 0.9, "AU7": 0.6, "AU20": 0.9, "AU26": 0.7},
    "contempt": {"AU12": 0.9, "AU14": 1.0},
}
SUBTLE = {"AU6": 1.4, "AU7": 1.4, "AU23": 1.7}  # drawn so much stronger in `posed` faces, to show by themselves
PRESENT = 0.3  # an action unit counts as present from this intensity on
DROP_CHANCE = 0.08  # that a still lacks one unit of a prototype of three or more
EXTRA_CHANCE = 0.35  # that a still has one weak unit beside its prototype
OCCLUDER_CHANCE = 0.12

SUPERSAMPLE = 2  # canvas pixels per picture pixel
SHIFT = 4  # fractional bits of the coordinates handed to cv2
IDENTITY, STILL, VIDEO, POSED = 1, 2, 3, 4  # random streams

# fmt: off
# Uniform ranges. Pose, light and expressiveness set the difficulty: shifts and roll cost a linear model the most.
EXPRESSIVENESS = (0.72, 1.0)
HEAD_POSE = dict(yaw=(-0.3, 0.3), pitch=(-0.16, 0.16), roll=(-0.22, 0.22), dx=(-0.11, 0.11), dy=(-0.20, 0.00),
                 scale=(0.93, 1.12))                   # angles in radians, the rest in picture units
ALIGNED = dict(yaw=(-0.25, 0.25), pitch=(-0.12, 0.12), roll=(-0.05, 0.05), dx=(-0.03, 0.03), dy=(-0.10, -0.04),
               scale=(1.05, 1.18))                     # of faces that were cut out by their landmarks
LIGHT = dict(angle=(-np.pi, np.pi), slope=(0, 0.4), shadow=(0, 0.4), edge=(-0.6, 0.6), contrast=(0.75, 1.15),
             brightness=(-25, 30), red=(0.88, 1.12), blue=(0.85, 1.15), noise=(1, 6), blur=(0, 0.4))
TRAITS = dict(
    width=(0.68, 0.82), taper=(0.10, 0.30), squareness=(0.75, 1.0), pallor=(0.9, 1.04), age=(0, 0.28),
    hair_bulk=(0.03, 0.24), hair_length=(-0.2, 1.3), hairline=(-0.86, -0.64), parting=(-0.5, 0.5),
    brow_y=(-0.36, -0.29), brow_gap=(0.10, 0.17), brow_length=(0.32, 0.42), brow_thickness=(0.035, 0.085),
    brow_arch=(0.01, 0.06), brow_tilt=(-0.03, 0.03), eye_x=(0.30, 0.38), eye_y=(-0.12, -0.06), eye_width=(0.13, 0.17),
    eye_open=(0.075, 0.105), eye_tilt=(-0.02, 0.02), lash=(0.03, 0.05), nose_y=(0.20, 0.29), nose_width=(0.10, 0.17),
    mouth_y=(0.49, 0.56), mouth_width=(0.24, 0.31), mouth_curve=(-0.012, 0.012), upper_lip=(0.03, 0.055),
    lower_lip=(0.045, 0.08), lip_red=(0.2, 0.75), skew=(-0.01, 0.01), rim_power=(1.6, 4.0),
    glasses=(0, 1), beard=(0, 1), freckles=(0, 1))     # worn above WORN
WORN = 0.82
# fmt: on

SKINS = np.array([[250, 222, 203], [235, 192, 160], [205, 154, 115], [150, 102, 70], [86, 56, 41]], float)
HAIRS = np.array([[24, 20, 20], [62, 40, 28], [120, 72, 36], [196, 152, 84], [170, 165, 160]], float)
IRISES = np.array([[60, 36, 22], [98, 66, 36], [84, 112, 78], [80, 122, 164], [128, 138, 146]], float)
WHITE, PUPIL, TEETH, THROAT, RIM, RED = np.array(
    [[238, 234, 230], [14, 12, 12], [240, 234, 220], [66, 18, 24], [30, 26, 28], [176, 64, 72]], float
)


class Shape(NamedTuple):
    outline: np.ndarray  # (N, 2) face or picture units
    colour: np.ndarray  # (3,)
    lift: float = 0.0  # height above the face's surface, face units


class Expression(NamedTuple):
    au: dict[str, float]  # intensity in 0..1 of every action unit
    reach: tuple[float, float] = (1.0, 1.0)  # share of AU12 and AU14 that arrives at the mouth corner on side -1, +1
    lips: tuple[float, float] = (1.0, 1.0)  # share of AU23 that thins the upper, lower lip


def still(seed: int, subject: int, emotion: str, index: int, size: int = 64) -> tuple[np.ndarray, dict[str, float]]:
    """One face crop; a function of its arguments alone.

    Returns: (size, size, 3) uint8 RGB, and the intensity in 0..1 of every action unit as drawn; see PRESENT.
    """
    face, rng = _identity(seed, subject), _generator(seed, subject, STILL, EMOTIONS.index(emotion), index)
    expression, pose, light = _expression(rng, emotion), _uniform(rng, HEAD_POSE), _uniform(rng, LIGHT)
    behind, before = _surroundings(rng)
    before = before if rng.random() < OCCLUDER_CHANCE else []
    return _develop(_render(behind, _portrait(face, expression), before, pose, size), light, rng), expression.au


def posed(seed: int, subject: int, expression: Expression, size: int = 100) -> np.ndarray:
    """(size, size, 3) uint8 RGB: an aligned face that shows `expression`, whose `au` may name any of DRAWN."""
    face, rng = _identity(seed, subject), _generator(seed, subject, POSED, 0, 0)
    pose, light, (behind, _) = _uniform(rng, ALIGNED), _uniform(rng, LIGHT), _surroundings(rng)
    au = {name: SUBTLE.get(name, 1.0) * value for name, value in expression.au.items()}
    return _develop(_render(behind, _portrait(face, expression._replace(au=au)), [], pose, size), light, rng)


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
    face, rng = _identity(seed, subject), _generator(seed, subject, VIDEO, EMOTIONS.index(emotion), 0)
    peak, light, (behind, _) = _expression(rng, emotion), _uniform(rng, LIGHT), _surroundings(rng)
    strength = _strength(num_frames, onset, apex, offset) * (emotion != "neutral")
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for frame, share, (pose, shut) in zip(frames, strength, _motion(rng, num_frames), strict=True):
        au = {name: share * value for name, value in peak.au.items()}
        head = _portrait(face, peak._replace(au=au | {"AU43": max(au["AU43"], shut)}))
        frame[:] = _develop(_render(behind, head, [], pose, size), light, rng)
    return frames, strength


def _generator(*key: int) -> np.random.Generator:
    # every key is five long: SeedSequence pads with zeros, so (1, 2) and (1, 2, 0) would be one stream
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _uniform(rng: np.random.Generator, ranges: dict[str, tuple[float, float]]) -> SimpleNamespace:
    low, high = np.transpose(list(ranges.values()))
    return SimpleNamespace(**dict(zip(ranges, rng.uniform(low, high).tolist(), strict=True)))


def _identity(seed: int, subject: int) -> SimpleNamespace:
    rng = _generator(seed, subject, IDENTITY, 0, 0)
    face = _uniform(rng, TRAITS)
    skins, hairs, irises = (palette[rng.integers(4) :][:2] for palette in (SKINS, HAIRS, IRISES))
    face.skin, face.hair, face.iris = (_mix(a, b, rng.random()) for a, b in (skins * face.pallor, hairs, irises))
    face.shade, face.lip = face.skin * (0.52, 0.42, 0.40), _mix(face.skin * 0.9, RED, face.lip_red)
    face.brow = _mix(face.hair, face.shade, 0.3) * 0.75
    face.chin = _mix(face.skin, face.hair, 0.6) if face.beard > WORN else face.skin
    face.spots = rng.uniform((-0.5, -0.05), (0.5, 0.3), (24, 2)) if face.freckles > WORN else []
    return face


def _expression(rng: np.random.Generator, emotion: str) -> Expression:
    au, prototype = dict.fromkeys(ACTION_UNITS, 0.0), PROTOTYPES[emotion]
    expressiveness = rng.uniform(*EXPRESSIVENESS)
    for name, value in prototype.items():
        au[name] = min(value * expressiveness * rng.uniform(0.85, 1.15), 1.0)
    if len(prototype) > 2 and rng.random() < DROP_CHANCE:
        au[rng.choice(list(prototype))] = 0.0
    if rng.random() < EXTRA_CHANCE:
        extra = rng.choice(ACTION_UNITS[:-1])
        au[extra] = max(au[extra], rng.uniform(0.05, PRESENT))
    left = float(rng.integers(2))
    return Expression(au, (left, 1 - left) if emotion == "contempt" else (1.0, 1.0))


def _strength(num_frames: int, onset: float, apex: float, offset: float) -> np.ndarray:
    when, release = np.linspace(0, 1, num_frames), (apex + offset) / 2
    ramp = np.clip(np.minimum((when - onset) / (apex - onset), (offset - when) / (offset - release)), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)  # (T,)


def _motion(rng: np.random.Generator, num_frames: int) -> Iterator[tuple[SimpleNamespace, float]]:
    """A head pose and a closure of the lids in 0..1 for each frame."""
    a, b = vars(_uniform(rng, HEAD_POSE)), vars(_uniform(rng, HEAD_POSE))
    sway = 0.25 + 0.25 * np.sin(np.linspace(0, rng.uniform(2, 6), num_frames))  # (T,)
    blinks = np.cumsum(rng.uniform(18, 60, 2 + num_frames // 18))  # frame numbers
    for frame in range(num_frames):
        pose = SimpleNamespace(**{name: _mix(a[name], b[name], sway[frame]) for name in a})
        yield pose, float(np.clip(1.5 - np.abs(frame - blinks).min() / 2, 0, 1))


def _surroundings(rng: np.random.Generator) -> tuple[list[Shape], list[Shape]]:
    """A wall with clutter behind the face, and something small to hold before it; picture units."""
    colours = _mix(rng.uniform(10, 245, (10, 1)), rng.uniform(10, 245, (10, 3)), 0.6)
    clutter = [
        Shape(_blob(rng.uniform(-1.1, 1.1, 2), rng.uniform(0.1, 0.7, 2), int(rng.integers(3, 12))), colour)
        for colour in colours[: rng.integers(2, 9)]
    ]
    angle, away = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 0.8)
    held = _blob((away * np.cos(angle), away * np.sin(angle)), rng.uniform(0.1, 0.22, 2))
    return [Shape(_blob((0, 0), (2, 2), 4), colours[8]), *clutter], [Shape(held, colours[9])]


def _mix(a: Any, b: Any, share: Any) -> Any:
    return a * (1 - share) + b * share


def _blob(centre: ArrayLike, radii: ArrayLike, corners: int = 16, power: float = 2.0) -> np.ndarray:
    """(N, 2) superellipse, clockwise from its right end: power 2 is an ellipse, more is boxier."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    unit = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.copysign(np.abs(unit) ** (2 / power), unit) * radii + centre


def _band(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> np.ndarray:
    """(N, 2) outline of what lies between the curves (x0, y0) and (x1, y1)."""
    return np.stack([np.append(x0, x1[::-1]), np.append(y0, y1[::-1])], 1)


def _ribbon(x: np.ndarray, y: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """(N, 2) outline of a stroke along (x, y), `width` thick in the middle and tapering to its ends."""
    half = width / 2 * np.sin(np.linspace(0.08, 0.92, len(x)) * np.pi) ** 0.6
    steep = abs(x[-1] - x[0]) < abs(y[-1] - y[0])
    return _band(x - half, y, x + half, y) if steep else _band(x, y - half, x, y + half)


def _portrait(face: SimpleNamespace, expression: Expression) -> list[Shape]:
    """The head from back to front; brows lie over the fringe, so that hair hides no action unit."""
    expression = expression._replace(au=dict.fromkeys(DRAWN, 0.0) | expression.au)
    au, skull = expression.au, _skull(face, expression.au)
    eyes = [shape for side in (-1, 1) for shape in _eye(face, au, side)]
    return [
        *_head(face, skull),
        *_nose(face, au),
        *_creases(face, expression),
        _fringe(face, skull),
        *_mouth(face, expression),
        *eyes,
        *(_glasses(face) if face.glasses > WORN else []),
    ]


def _skull(face: SimpleNamespace, au: dict[str, float]) -> np.ndarray:
    x, y = _blob((0, 0), (1, 1), 40).T  # from the right temple over the chin
    low = np.maximum(y, 0)
    x = np.copysign(np.abs(x) ** face.squareness, x) * face.width * (1 - face.taper * low * low)
    return np.stack([x, y + low * (0.20 * au["AU26"] - 0.04 * au["AU17"] + 0.34 * au["AU27"])], 1)  # (40, 2)


def _head(face: SimpleNamespace, skull: np.ndarray) -> list[Shape]:
    bulk, back, (jaw, jaw_y) = face.hair_bulk, (face.hair_length - 1.05) / 2, skull[:21].T
    cheek = np.minimum(0.38 - 0.4 * (jaw / face.width) ** 4, jaw_y)
    return [
        Shape(_blob((0, back), (face.width + bulk, back + 1.05 + bulk), 28, 2.6), face.hair * 0.8, -0.35),
        Shape(_blob((0, 1), (0.45, 0.7), 12, 6), _mix(face.skin, face.shade, 0.5), -0.3),
        *(Shape(_blob((ear, -0.02), (0.09, 0.17)), face.shade * 1.35, -0.25) for ear in (-face.width, face.width)),
        Shape(skull, face.skin),
        Shape(_band(jaw, cheek, jaw, jaw_y), face.chin),
        *(Shape(_blob(spot, (0.015, 0.015), 6), _mix(face.skin, face.shade, 0.4)) for spot in face.spots),
    ]


def _fringe(face: SimpleNamespace, skull: np.ndarray) -> Shape:
    x, y = skull[20:].T
    u, top = x / face.width, y * (1 + face.hair_bulk) - 0.02
    line = face.hairline + 0.5 * u * u + 0.08 * np.cos(4 * (u - face.parting))
    return Shape(_band(x * (1.02 + face.hair_bulk / 2), top, x, np.maximum(line, top)), face.hair, 0.05)


def _eye(face: SimpleNamespace, au: dict[str, float], side: int) -> list[Shape]:
    t = np.linspace(-1, 1, 13)  # inner to outer corner
    bow, shut, thin = 1 - t * t, au["AU43"], _mix(face.skin, face.shade, 0.6)
    above = max(1 + 0.75 * au["AU5"] - 0.3 * au["AU7"] - 0.15 * au["AU9"], 0.15) * (1 - shut) - 0.3 * shut
    below = max(0.6 - 0.45 * au["AU7"] - 0.4 * au["AU6"] - 0.2 * au["AU9"], -0.1) * (1 - shut) + 0.32 * shut
    x, y = side * (face.eye_x + face.eye_width * t), face.eye_y + 0.5 * side * face.skew - face.eye_tilt * t
    upper, lower = y - face.eye_open * above * bow**0.75, y + face.eye_open * below * bow
    fold = upper - 0.035 - 0.035 * bow * (1 - 0.8 * au["AU5"])
    shapes = [Shape(_ribbon(x, fold, 0.03), thin), Shape(_band(x, upper, x, lower), WHITE)]
    for radius, colour in ((0.092, face.iris), (0.042, PUPIL)):
        disc = _blob((side * face.eye_x, y[6] - 0.01), (radius, radius))
        disc[:, 1] = np.clip(disc[:, 1], *(np.interp(side * disc[:, 0], side * x, lid) for lid in (upper, lower)))
        shapes.append(Shape(disc, colour))
    return [
        *shapes,
        Shape(_ribbon(x, lower, 0.018), thin),
        Shape(_ribbon(x, upper, face.lash), face.brow * 0.5),
        _brow(face, au, side),
    ]


def _brow(face: SimpleNamespace, au: dict[str, float], side: int) -> Shape:
    t = np.linspace(0, 1, 9)  # inner to outer end
    x = face.brow_gap * (1 - 0.45 * au["AU4"]) + t * face.brow_length
    y = face.brow_y + side * face.skew - face.brow_arch * np.sin(np.pi * t) + face.brow_tilt * (t - 0.5)
    y = y - 0.17 * au["AU1"] * (1 - t) ** 1.3 - 0.17 * au["AU2"] * np.sin(np.pi * (0.15 + 0.6 * t)) * t**0.5
    y = y + 0.13 * au["AU4"] * (1 - 0.75 * t) + 0.05 * au["AU9"] * (1 - t)
    return Shape(_ribbon(side * x, y, face.brow_thickness * (1.2 - 0.4 * t)), face.brow, 0.03)


def _nose(face: SimpleNamespace, au: dict[str, float]) -> list[Shape]:
    wing, y = face.nose_width * (1 + 0.2 * au["AU9"]), face.nose_y - 0.06 * au["AU9"] - 0.02 * au["AU10"]
    t, dim, lit = np.linspace(0, 1, 7), _mix(face.skin, face.shade, 0.3), _mix(face.skin, WHITE, 0.1)
    dark = np.copysign(1, face.skew)  # the side in shadow
    x0, x1, y0, y1 = 0.05 + 0.03 * t, 0.04 + wing * t**3, (y + 0.15) * t - 0.1, (y + 0.2) * t - 0.1
    return [
        Shape(_band(dark * x0, y0, dark * x1, y1), dim, 0.08),
        *(Shape(_blob((x * 0.85, y), (0.05, 0.05)), dim, 0.06) for x in (-wing, wing)),
        Shape(_blob((0, y - 0.02), (wing * 0.75, 0.07)), lit, 0.14),
        *(Shape(_blob((x * 0.5, y + 0.04), (0.04, 0.018)), face.shade * 0.5, 0.12) for x in (-wing, wing)),
    ]


def _mouth(face: SimpleNamespace, expression: Expression) -> list[Shape]:
    au, t = expression.au, np.linspace(-1, 1, 17)
    smile, dimple = np.where(t < 0, *expression.reach) * [[au["AU12"]], [au["AU14"]]]  # (N,) each
    bow, end = 1 - t * t, np.abs(t) ** 1.6
    wide = 1 + 0.25 * smile + 0.1 * dimple + 0.36 * au["AU20"] - 0.22 * au["AU23"] - 0.25 * au["AU26"] - 0.38 * au["AU27"]
    gap = bow**0.7 * (0.06 * au["AU25"] + 0.26 * au["AU26"] + 0.04 * au["AU20"] + 0.50 * au["AU27"] + 0.06 * au["AU16"])
    gap = gap + 0.10 * bow**0.7 * _clear(au["AU25"]) * (1 - max(au["AU26"], au["AU27"]))  # the jaw opens it by itself
    line = face.mouth_y + face.mouth_curve * (1 - 2 * end) + t * face.skew - 0.05 * au["AU17"] * bow + 0.35 * gap.max()
    line = line + end * (0.17 * au["AU15"] + 0.05 * au["AU20"] - 0.20 * smile - 0.07 * dimple)
    line = line - 0.06 * _clear(au["AU17"]) * (bow - end)
    x, roof, floor = t * face.mouth_width * wide, line - 0.45 * gap - 0.07 * au["AU10"] * bow, line + 0.55 * gap
    floor = floor + 0.05 * au["AU16"] * bow**0.4
    thins = (np.maximum(1 - 0.65 * au["AU23"] * lip - 0.3 * smile - 0.8 * au["AU24"], 0.1) for lip in expression.lips)
    (thin, low), full = thins, bow**0.6
    top, bottom = roof - face.upper_lip * thin * full, floor + (face.lower_lip * low - 0.02 * au["AU17"]) * full
    teeth = [Shape(_band(x, roof, x, np.minimum(roof + 0.06 * bow, floor)), TEETH, 0.05)]
    if au["AU16"]:
        teeth += [Shape(_band(x, np.maximum(floor - 0.09 * au["AU16"] * bow**0.4, roof), x, floor), TEETH, 0.05)]
    seam = [Shape(_ribbon(x, (roof + floor) / 2, 0.02 + 0.045 * au["AU24"]), face.lip * 0.45, 0.05)]
    return [
        Shape(_band(x, top, x, bottom), face.lip, 0.05),
        Shape(_band(x, roof, x, floor), THROAT, 0.05),
        *(teeth if gap.max() > 0.03 else seam),
    ]


def _clear(intensity: float) -> float:
    """0 up to PRESENT, from there to 1: what a unit adds that is there to be seen."""
    return max(intensity - PRESENT, 0.0) / (1 - PRESENT)


def _creases(face: SimpleNamespace, expression: Expression) -> list[Shape]:
    """The folds that are deep enough to see, darker and wider the deeper they are."""
    t, shapes = np.linspace(0, 1, 7), []
    for x0, y0, x1, y1, bulge, depth in _folds(face, expression):
        if depth > 0.06:
            arc, steep = bulge * np.sin(np.pi * t), abs(x1 - x0) < abs(y1 - y0)
            x, y = _mix(x0, x1, t) + arc * steep, _mix(y0, y1, t) + arc * (not steep)
            colour = _mix(face.skin if y1 < 0.4 else face.chin, face.shade, min(depth, 1))
            shapes.append(Shape(_ribbon(x, y, 0.02 + 0.025 * depth), colour, 0.02))
    return shapes


def _folds(face: SimpleNamespace, expression: Expression) -> Iterator[tuple[float, ...]]:
    """Each fold's ends x0, y0, x1, y1, its sideways bulge, and how deep age and the action units press it, from 0."""
    au, eye, brow, mouth = expression.au, face.eye_y, face.brow_y, face.mouth_y
    for y in (0.19, 0.28):
        yield -0.42, brow - y, 0.42, brow - y, -0.02, 0.7 * max(au["AU1"], au["AU2"]) + 0.4 * face.age
        yield -0.07, eye - 0.21 + y, 0.07, eye - 0.21 + y, -0.02, au["AU9"]
    yield -0.08, mouth + 0.19, 0.08, mouth + 0.19, -0.05, au["AU17"]
    for y, half in ((0.25, 0.13), (0.32, 0.11), (0.38, 0.08)):
        yield -half, mouth + y, half, mouth + y, -0.05, 1.3 * _clear(au["AU17"])
    for y, bulge in ((-0.11, -0.03), (0.11, 0.03)):
        yield -0.2, mouth + y, 0.2, mouth + y, bulge, 1.2 * au["AU24"]
    for y, lip in zip((-0.10, 0.10), expression.lips, strict=True):
        for x in (-0.15, -0.05, 0.05, 0.15):
            yield x, mouth + y - 0.05, x, mouth + y + 0.05, 0, 2 * lip * max(au["AU23"] - 1, 0)  # by SUBTLE alone
    for s, reach in zip((-1, 1), expression.reach, strict=True):
        yield s * 0.17, mouth + 0.16, s * 0.12, mouth + 0.36, s * 0.03, 1.2 * au["AU16"]
        smile, dimple, bag = reach * au["AU12"], reach * au["AU14"], 0.7 * au["AU6"] + 0.6 * face.age
        corner, canthus = face.mouth_width * (1 + 0.25 * smile), face.eye_x + face.eye_width
        cheek = max(0.9 * smile, 0.9 * au["AU9"], 0.8 * au["AU10"], 0.8 * face.age)
        yield s * 0.055, brow + 0.1, s * 0.05, brow - 0.06, 0, 0.9 * au["AU4"]
        yield s * (face.nose_width + 0.05), face.nose_y - 0.04, s * (corner + 0.06), mouth - 0.05, s * 0.05, cheek
        yield s * (face.eye_x - 0.12), eye + 0.12, s * (canthus - 0.02), eye + 0.11, 0.04, bag
        yield s * (corner + 0.08), mouth - 0.17, s * (corner + 0.08), mouth + 0.08, s * 0.04, 1.2 * dimple
        yield s * (corner + 0.02), mouth + 0.10, s * (corner + 0.04), mouth + 0.24, 0, 0.7 * au["AU15"]
        for y in (-0.02, 0, 0.02):
            yield s * (canthus + 0.02), eye + y, s * (canthus + 0.12), eye + 3 * y, 0, 0.8 * au["AU6"]


def _glasses(face: SimpleNamespace) -> list[Shape]:
    x, shapes = np.linspace(-0.4, 0.4, 4) * face.eye_x, []
    for side in (-1, 1):
        outer, inner = (
            _blob((side * face.eye_x, face.eye_y + 0.02), radii, 20, face.rim_power) for radii in ((0.25, 0.19), (0.218, 0.165))
        )
        shapes.append(Shape(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), RIM, 0.1))
    return [*shapes, Shape(_ribbon(x, face.eye_y + 0 * x, 0.035), RIM, 0.12)]


def _render(behind: list[Shape], head: list[Shape], before: list[Shape], pose: SimpleNamespace, size: int) -> np.ndarray:
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


def _develop(image: np.ndarray, light: SimpleNamespace, rng: np.random.Generator) -> np.ndarray:
    """The picture under `light`, with the lens's blur and the sensor's noise; uint8 again."""
    axis, sigma = np.linspace(-1, 1, len(image), dtype=np.float32), light.blur * len(image) / 64
    across = axis * np.float32(np.cos(light.angle)) + axis[:, None] * np.float32(np.sin(light.angle))
    field = (1 + light.slope * across) * (1 - light.shadow / (1 + np.exp(8 * (across - light.edge))))
    tint = np.array([light.red, 1, light.blue], np.float32) * light.contrast
    lit = (image * tint + np.float32(128 - 128 * light.contrast + light.brightness)) * field[..., None]
    lit = cv2.GaussianBlur(lit, (0, 0), sigma) if sigma > 0.2 else lit
    lit += rng.standard_normal(lit.shape, np.float32) * np.float32(light.noise)
    return np.clip(lit, 0, 255).astype(np.uint8)
