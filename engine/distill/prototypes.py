"""Prototypes: the mean feature of each cell of a valence/arousal grid, and where classes lie on that grid.

Axes: N rows, D features, C classes, K cells. Valence and arousal lie in [-1, 1]; cell v * grid + a has the centre
((2 v + 1) / grid - 1, (2 a + 1) / grid - 1): -.8, -.4, 0, .4, .8 for a grid of 5.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from affect.engine.distill.features import Features, read_features, read_npz, refuse_existing, write_npz
from affect.shards.checksum import file_sha256
from affect.shards.class_maps import canonical
from affect.shards.errors import InputError, first, nearest

Anchors = Mapping[str, tuple[float, float]]  # class -> valence, arousal

# Own placement, not measured: the quadrants and their order are those of Russell, A circumplex model of affect, 1980; disgust and
# contempt are not among his words. Anger and fear are drawn apart so that each class has a cell of a 5x5 grid to itself.
ANCHORS: Anchors = {
    "neutral": (0.0, 0.0), "happiness": (0.8, 0.4), "surprise": (0.1, 0.8), "sadness": (-0.7, -0.4),
    "anger": (-0.7, 0.5), "disgust": (-0.7, 0.1), "fear": (-0.3, 0.7), "contempt": (-0.5, 0.1),
}  # fmt: skip
DIGITS = 6  # distances closer than this are equal
UNKNOWN = -2.0  # AffectNet's valence and arousal where there are none
ANCHOR_FORM = "{happiness: [0.8, 0.4]}: valence and arousal of a class, each from -1 to 1"


@dataclass(frozen=True)
class Prototypes:
    """vectors: (K, D) float32, means of unit rows, of length 1 or less: `proto_kd` makes them unit rows itself.

    centers: (K, 2) float32 valence, arousal. counts: (K,) int64 rows averaged, 0 in a cell that took another's vector.
    sha256: of the file.
    """

    vectors: np.ndarray
    centers: np.ndarray | None
    counts: np.ndarray | None
    sha256: str


@dataclass(frozen=True)
class Placed:
    """Where rows lie: point (N, 2) valence, arousal, NaN for a row that is left out; by: what says so."""

    point: np.ndarray
    by: str


def make_prototypes(features: Path, out: Path, anchors: str | None = None, grid: int = 5) -> tuple[Prototypes, Placed]:
    """Write the prototypes of a file of features.

    anchors: `default` or a file, see `read_anchors`; None: the valence and arousal the rows are labelled with where they are,
    else `default`.
    """
    refuse_existing(out)
    found = read_features(features)
    labelled = anchors is None and bool((~np.isnan(found.valence + found.arousal)).any())
    used = {} if labelled else read_anchors(anchors or "default")
    placed = by_labels(found, features) if labelled else by_classes(found, used, anchors or "default")
    if np.isnan(placed.point).all():
        raise InputError(f"{features}: no row is labelled, with valence and arousal or with a class; nothing to average")
    vectors, counts, taken_from = cell_means(found.features, placed.point, grid)
    write_npz(
        out, prototypes=vectors, centers=centers_of(grid), counts=counts, taken_from=taken_from, placed_by=placed.by,
        anchors=json.dumps(used), features_sha256=found.sha256,
    )  # fmt: skip
    return read_prototypes(out), placed


def by_labels(found: Features, path: Path) -> Placed:
    """By the rows' own valence and arousal."""
    point = np.stack([found.valence, found.arousal], 1).astype(np.float64)
    point[(np.isnan(point) | (point == UNKNOWN)).any(1)] = np.nan
    outside = (np.abs(point) > 1).any(1)
    if outside.any():
        v, a = point[outside][0]
        raise InputError(
            f"{path}: {outside.sum():,} rows have valence or arousal outside -1 to 1, first {v:g}, {a:g} of sample "
            f"{found.sample[outside][0]}; bring them to that scale and pack anew, or place the classes: --anchors default"
        )
    return Placed(point, "the rows' labels")


def by_classes(found: Features, anchors: Anchors, name: str) -> Placed:
    """By the mean of the classes' anchors under a row's distribution: divided votes lie between classes."""
    return Placed(found.target.astype(np.float64) @ positions(found.class_names, anchors), f"anchors of classes ({name})")


def centers_of(grid: int) -> np.ndarray:
    """(grid * grid, 2) float32 valence, arousal of the cells' centres; arousal runs fastest."""
    axis = (2 * np.arange(grid) + 1) / grid - 1
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)


def cell_means(features: np.ndarray, point: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, D) float32 means of the unit rows of each cell, (K,) rows in it, (K,) the cell its vector is from.

    features: (N, D). point: (N, 2) in [-1, 1], NaN rows left out; a point on an edge belongs to the lower cell. An empty cell
    takes the vector of the filled one with the nearest centre, of equals the first. The means are not normalised again.
    """
    kept = ~np.isnan(point).any(1)
    axis = (2 * np.arange(grid) + 1) / grid - 1
    v, a = np.round(np.abs(point[kept][:, :, None] - axis), DIGITS).argmin(2).T
    cell = v * grid + a
    rows = features[kept].astype(np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((grid * grid, features.shape[1]))
    np.add.at(sums, cell, unit)
    counts = np.bincount(cell, minlength=grid * grid)
    taken_from = _nearest_filled(counts, centers_of(grid))
    return (sums[taken_from] / counts[taken_from, None]).astype(np.float32), counts, taken_from


def _nearest_filled(counts: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(K,) each filled cell itself, else the filled one whose centre is nearest."""
    filled = np.flatnonzero(counts)
    apart = np.linalg.norm(centers[:, None] - centers[filled][None], axis=2)
    return filled[np.round(apart, DIGITS).argmin(1)]


def read_prototypes(path: Path) -> Prototypes:
    """Ours or the seed's npz: `prototypes`, or the only 2-D float array beside `centers`; centers and counts may be missing."""
    held = read_npz(path)
    name = _which(held, path)
    vectors = held[name].astype(np.float32)
    if len(vectors) < 2 or not vectors.shape[1]:
        raise InputError(f"{path}: {name}: found {vectors.shape}, expected (K, D) with 2 prototypes or more")
    for what, bad in (("not finite", ~np.isfinite(vectors).all(1)), ("zero: it has no direction", ~vectors.any(1))):
        if bad.any():
            raise InputError(f"{path}: {name}: row {bad.argmax()} is {what}; make the prototypes anew: affect prototypes F.npz")
    centers, counts = held.get("centers"), held.get("counts")
    if centers is not None and (centers.shape != (len(vectors), 2) or not np.isfinite(centers).all()):
        raise InputError(f"{path}: centers: found {centers.shape}, expected ({len(vectors)}, 2) finite valence, arousal")
    if counts is not None and counts.shape != (len(vectors),):
        raise InputError(f"{path}: counts: found {counts.shape}, expected ({len(vectors)},)")
    return Prototypes(
        vectors,
        None if centers is None else centers.astype(np.float32),
        None if counts is None else counts.astype(np.int64),
        file_sha256(path),
    )


def _which(held: dict[str, np.ndarray], path: Path) -> str:
    """The array that holds the prototypes."""
    tables = [name for name, values in held.items() if values.ndim == 2 and values.dtype.kind == "f" and name != "centers"]
    if "prototypes" in tables:
        return "prototypes"
    found = ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in held.items()) or "nothing that is not pickled"
    if len(tables) == 1 and "prototypes" not in held:
        return tables[0]
    what = "several 2-D float arrays, none called 'prototypes'" if len(tables) > 1 else "no 2-D float array"
    raise InputError(f"{path}: {what}; expected prototypes (K, D); found {found}")


def read_anchors(source: str) -> Anchors:
    """`default`: our own placement of FER+'s and AffectNet's classes; else a YAML or JSON file {class: [valence, arousal]}."""
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
    """Whether it is [valence, arousal]."""
    numbers = isinstance(value, list) and all(type(x) in (int, float) and math.isfinite(x) and abs(x) <= 1 for x in value)
    return numbers and len(value) == 2


def positions(names: Sequence[str], anchors: Anchors) -> np.ndarray:
    """(C, 2) float64 valence, arousal of classes, in any spelling. Raises InputError naming one without an anchor."""
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
    """(C, K) float32, rows sum to 1: where each class lies among the cells, the proto-KD target `grid`.

        q = softmax(-d^2 / (2 sigma^2) / softness),   d: from the class's anchor to a cell's centre

    centers: (K, 2). Of a row with the distribution t over the classes: t @ grid_targets(...).
    Source: own; the seed's temperature 5.0 is the softness.
    """
    apart = positions(names, anchors)[:, None] - np.asarray(centers, np.float64)[None]  # (C, K, 2)
    logits = -(apart**2).sum(2) / (2 * sigma**2) / softness
    share = np.exp(logits - logits.max(1, keepdims=True))
    return (share / share.sum(1, keepdims=True)).astype(np.float32)
