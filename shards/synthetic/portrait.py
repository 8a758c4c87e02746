"""A person's face as polygons, from back to front, that action units move and crease.

`side` is -1 (left in the picture) or +1; `t` runs along a feature. Lengths are in face units, see shapes.py.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

from affect.shards.synthetic.expressions import DRAWN, PRESENT, Expression
from affect.shards.synthetic.random_streams import IDENTITY, generator, uniform
from affect.shards.synthetic.shapes import Shape, band, blob, mix, ribbon

# fmt: off
# Uniform ranges.
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


def identity_of(seed: int, subject: int) -> SimpleNamespace:
    """TRAITS and colours of a subject."""
    rng = generator(seed, subject, IDENTITY, 0, 0)
    face = uniform(rng, TRAITS)
    skins, hairs, irises = (palette[rng.integers(4) :][:2] for palette in (SKINS, HAIRS, IRISES))
    face.skin, face.hair, face.iris = (mix(a, b, rng.random()) for a, b in (skins * face.pallor, hairs, irises))
    face.shade, face.lip = face.skin * (0.52, 0.42, 0.40), mix(face.skin * 0.9, RED, face.lip_red)
    face.brow = mix(face.hair, face.shade, 0.3) * 0.75
    face.chin = mix(face.skin, face.hair, 0.6) if face.beard > WORN else face.skin
    face.spots = rng.uniform((-0.5, -0.05), (0.5, 0.3), (24, 2)) if face.freckles > WORN else []
    return face


def portrait(face: SimpleNamespace, expression: Expression) -> list[Shape]:
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
    x, y = blob((0, 0), (1, 1), 40).T  # from the right temple over the chin
    low = np.maximum(y, 0)
    x = np.copysign(np.abs(x) ** face.squareness, x) * face.width * (1 - face.taper * low * low)
    return np.stack([x, y + low * (0.20 * au["AU26"] - 0.04 * au["AU17"] + 0.34 * au["AU27"])], 1)  # (40, 2)


def _head(face: SimpleNamespace, skull: np.ndarray) -> list[Shape]:
    bulk, back, (jaw, jaw_y) = face.hair_bulk, (face.hair_length - 1.05) / 2, skull[:21].T
    cheek = np.minimum(0.38 - 0.4 * (jaw / face.width) ** 4, jaw_y)
    return [
        Shape(blob((0, back), (face.width + bulk, back + 1.05 + bulk), 28, 2.6), face.hair * 0.8, -0.35),
        Shape(blob((0, 1), (0.45, 0.7), 12, 6), mix(face.skin, face.shade, 0.5), -0.3),
        *(Shape(blob((ear, -0.02), (0.09, 0.17)), face.shade * 1.35, -0.25) for ear in (-face.width, face.width)),
        Shape(skull, face.skin),
        Shape(band(jaw, cheek, jaw, jaw_y), face.chin),
        *(Shape(blob(spot, (0.015, 0.015), 6), mix(face.skin, face.shade, 0.4)) for spot in face.spots),
    ]


def _fringe(face: SimpleNamespace, skull: np.ndarray) -> Shape:
    x, y = skull[20:].T
    u, top = x / face.width, y * (1 + face.hair_bulk) - 0.02
    line = face.hairline + 0.5 * u * u + 0.08 * np.cos(4 * (u - face.parting))
    return Shape(band(x * (1.02 + face.hair_bulk / 2), top, x, np.maximum(line, top)), face.hair, 0.05)


def _eye(face: SimpleNamespace, au: dict[str, float], side: int) -> list[Shape]:
    t = np.linspace(-1, 1, 13)  # inner to outer corner
    bow, shut, thin = 1 - t * t, au["AU43"], mix(face.skin, face.shade, 0.6)
    above = max(1 + 0.75 * au["AU5"] - 0.3 * au["AU7"] - 0.15 * au["AU9"], 0.15) * (1 - shut) - 0.3 * shut
    below = max(0.6 - 0.45 * au["AU7"] - 0.4 * au["AU6"] - 0.2 * au["AU9"], -0.1) * (1 - shut) + 0.32 * shut
    x, y = side * (face.eye_x + face.eye_width * t), face.eye_y + 0.5 * side * face.skew - face.eye_tilt * t
    upper, lower = y - face.eye_open * above * bow**0.75, y + face.eye_open * below * bow
    fold = upper - 0.035 - 0.035 * bow * (1 - 0.8 * au["AU5"])
    shapes = [Shape(ribbon(x, fold, 0.03), thin), Shape(band(x, upper, x, lower), WHITE)]
    for radius, colour in ((0.092, face.iris), (0.042, PUPIL)):
        disc = blob((side * face.eye_x, y[6] - 0.01), (radius, radius))
        disc[:, 1] = np.clip(disc[:, 1], *(np.interp(side * disc[:, 0], side * x, lid) for lid in (upper, lower)))
        shapes.append(Shape(disc, colour))
    return [
        *shapes,
        Shape(ribbon(x, lower, 0.018), thin),
        Shape(ribbon(x, upper, face.lash), face.brow * 0.5),
        _brow(face, au, side),
    ]


def _brow(face: SimpleNamespace, au: dict[str, float], side: int) -> Shape:
    t = np.linspace(0, 1, 9)  # inner to outer end
    x = face.brow_gap * (1 - 0.45 * au["AU4"]) + t * face.brow_length
    y = face.brow_y + side * face.skew - face.brow_arch * np.sin(np.pi * t) + face.brow_tilt * (t - 0.5)
    y = y - 0.17 * au["AU1"] * (1 - t) ** 1.3 - 0.17 * au["AU2"] * np.sin(np.pi * (0.15 + 0.6 * t)) * t**0.5
    y = y + 0.13 * au["AU4"] * (1 - 0.75 * t) + 0.05 * au["AU9"] * (1 - t)
    return Shape(ribbon(side * x, y, face.brow_thickness * (1.2 - 0.4 * t)), face.brow, 0.03)


def _nose(face: SimpleNamespace, au: dict[str, float]) -> list[Shape]:
    wing, y = face.nose_width * (1 + 0.2 * au["AU9"]), face.nose_y - 0.06 * au["AU9"] - 0.02 * au["AU10"]
    t, dim, lit = np.linspace(0, 1, 7), mix(face.skin, face.shade, 0.3), mix(face.skin, WHITE, 0.1)
    dark = np.copysign(1, face.skew)  # the side in shadow
    x0, x1, y0, y1 = 0.05 + 0.03 * t, 0.04 + wing * t**3, (y + 0.15) * t - 0.1, (y + 0.2) * t - 0.1
    return [
        Shape(band(dark * x0, y0, dark * x1, y1), dim, 0.08),
        *(Shape(blob((x * 0.85, y), (0.05, 0.05)), dim, 0.06) for x in (-wing, wing)),
        Shape(blob((0, y - 0.02), (wing * 0.75, 0.07)), lit, 0.14),
        *(Shape(blob((x * 0.5, y + 0.04), (0.04, 0.018)), face.shade * 0.5, 0.12) for x in (-wing, wing)),
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
    teeth = [Shape(band(x, roof, x, np.minimum(roof + 0.06 * bow, floor)), TEETH, 0.05)]
    if au["AU16"]:
        teeth += [Shape(band(x, np.maximum(floor - 0.09 * au["AU16"] * bow**0.4, roof), x, floor), TEETH, 0.05)]
    seam = [Shape(ribbon(x, (roof + floor) / 2, 0.02 + 0.045 * au["AU24"]), face.lip * 0.45, 0.05)]
    return [
        Shape(band(x, top, x, bottom), face.lip, 0.05),
        Shape(band(x, roof, x, floor), THROAT, 0.05),
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
            x, y = mix(x0, x1, t) + arc * steep, mix(y0, y1, t) + arc * (not steep)
            colour = mix(face.skin if y1 < 0.4 else face.chin, face.shade, min(depth, 1))
            shapes.append(Shape(ribbon(x, y, 0.02 + 0.025 * depth), colour, 0.02))
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
            blob((side * face.eye_x, face.eye_y + 0.02), radii, 20, face.rim_power) for radii in ((0.25, 0.19), (0.218, 0.165))
        )
        shapes.append(Shape(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), RIM, 0.1))
    return [*shapes, Shape(ribbon(x, face.eye_y + 0 * x, 0.035), RIM, 0.12)]
