"""Where emotion classes lie in the plane of valence and arousal, each from -1 to 1. Axes: C classes, K cells of a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from affect.shards.class_maps import canonical
from affect.shards.errors import InputError, first, nearest

Anchors = Mapping[str, tuple[float, float]]  # class -> valence, arousal

# Placed by hand, not measured: quadrants and order are those of Russell, A circumplex model of affect, 1980; disgust and
# contempt are not among his words. Anger and fear are drawn apart so that each class has a cell of a 5x5 grid to itself.
ANCHORS: Anchors = {
    "neutral": (0.0, 0.0), "happiness": (0.8, 0.4), "surprise": (0.1, 0.8), "sadness": (-0.7, -0.4),
    "anger": (-0.7, 0.5), "disgust": (-0.7, 0.1), "fear": (-0.3, 0.7), "contempt": (-0.5, 0.1),
}  # fmt: skip
ANCHOR_FORM = "{happiness: [0.8, 0.4]}: valence and arousal of a class, each from -1 to 1"


def read_anchors(source: str) -> Anchors:
    """Return where classes lie.

    source: `default`, the places of FER+ and AffectNet classes above; else a YAML or JSON file {class: [valence, arousal]}.
    """
    if source == "default":
        return ANCHORS
    try:
        value = yaml.safe_load(Path(source).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{source}: not readable: {error.strerror}; expected `default`, or a file with {ANCHOR_FORM}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not readable as YAML or JSON ({error}); expected {ANCHOR_FORM}") from error
    if not isinstance(value, dict) or not value:
        raise InputError(f"{source}: found {str(value)[:40]!r}, expected {ANCHOR_FORM}")
    wrong = [f"{name}: {point}" for name, point in value.items() if not isinstance(name, str) or not _is_point(point)]
    if wrong:
        raise InputError(f"{source}: expected {ANCHOR_FORM}; found:\n{first(wrong)}")
    anchors = {canonical(name): (float(point[0]), float(point[1])) for name, point in value.items()}
    if len(anchors) < len(value):
        raise InputError(
            f"{source}: {len(value)} names for {len(anchors)} classes, {', '.join(anchors)}; expected one name a class"
        )
    return anchors


def _is_point(value: Any) -> bool:
    """Return whether a value is [valence, arousal]."""
    numbers = isinstance(value, list) and all(type(x) in (int, float) and math.isfinite(x) and abs(x) <= 1 for x in value)
    return numbers and len(value) == 2


def positions(names: Sequence[str], anchors: Anchors) -> np.ndarray:
    """Return (C, 2) float64 valence, arousal of classes, in any spelling. Raises InputError naming one without an anchor."""
    for name in names:
        if canonical(name) not in anchors:
            raise InputError(
                f"class {name!r} has no place in valence and arousal{nearest(canonical(name), anchors)}; placed are: "
                f"{', '.join(anchors)}. Place it: --anchors FILE with {ANCHOR_FORM}"
            )
    return np.array([anchors[canonical(name)] for name in names], np.float64)


def grid_targets(
    names: Sequence[str], centers: np.ndarray, anchors: Anchors, sigma: float = 0.4, softness: float = 5.0
) -> np.ndarray:
    """Return (C, K) float32, rows sum to 1: where each class lies among the cells, the proto-KD target `grid`.

        q = softmax(-d^2 / (2 sigma^2) / softness),   d: from the class's anchor to a cell's centre

    centers: (K, 2). Of a row with the distribution t over the classes: t @ grid_targets(...).
    Source: this project; the softness is the temperature 5.0 of the reference recipe (docs/recipes/student.md).
    """
    apart = positions(names, anchors)[:, None] - np.asarray(centers, np.float64)[None]  # (C, K, 2)
    logits = -(apart**2).sum(2) / (2 * sigma**2) / softness
    share = np.exp(logits - logits.max(1, keepdims=True))
    return (share / share.sum(1, keepdims=True)).astype(np.float32)
