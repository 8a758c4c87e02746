"""`affect prototypes`: the mean feature of each cell of a valence/arousal grid.

Axes: N rows, D features, K cells. Valence and arousal lie in [-1, 1]; cell v * grid + a has the centre
((2 v + 1) / grid - 1, (2 a + 1) / grid - 1): -.8, -.4, 0, .4, .8 for a grid of 5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affect.engine.data.array_file import write_npz
from affect.engine.distill.features import Features, read_features, refuse_existing
from affect.engine.losses.circumplex import Anchors, positions, read_anchors
from affect.engine.losses.prototype_file import Prototypes, read_prototypes
from affect.shards.errors import InputError

DIGITS = 6  # distances closer than this are equal
UNKNOWN = -2.0  # AffectNet's valence and arousal where there are none


@dataclass(frozen=True)
class Placed:
    """Where rows lie. point: (N, 2) valence, arousal, NaN for a row that is left out. by: the source of the points, in words."""

    point: np.ndarray
    by: str


def make_prototypes(features: Path, out: Path, anchors: str | None = None, grid: int = 5) -> tuple[Prototypes, Placed]:
    """Write the prototypes of a file of features; return them and where its rows lie.

    anchors: `default` or a file, see `read_anchors`; None: the valence and arousal the rows are labelled with where they are,
    else `default`.
    """
    refuse_existing(out)
    stored = read_features(features)
    labelled = anchors is None and bool((~np.isnan(stored.valence + stored.arousal)).any())
    used = {} if labelled else read_anchors(anchors or "default")
    placed = by_labels(stored, features) if labelled else by_classes(stored, used, anchors or "default")
    if np.isnan(placed.point).all():
        raise InputError(f"{features}: no row is labelled, with valence and arousal or with a class; nothing to average")
    vectors, counts, taken_from = cell_means(stored.features, placed.point, grid)
    write_npz(
        out,
        prototypes=vectors,
        centers=centers_of(grid),
        counts=counts,
        taken_from=taken_from,
        placed_by=placed.by,
        anchors=json.dumps(used),
        features_sha256=stored.sha256,
    )
    return read_prototypes(out), placed


def by_labels(stored: Features, path: Path) -> Placed:
    """Place rows by the valence and arousal that they are labelled with."""
    point = np.stack([stored.valence, stored.arousal], 1).astype(np.float64)
    point[(np.isnan(point) | (point == UNKNOWN)).any(1)] = np.nan
    outside = (np.abs(point) > 1).any(1)
    if outside.any():
        v, a = point[outside][0]
        raise InputError(
            f"{path}: {outside.sum():,} rows have valence or arousal outside -1 to 1, first {v:g}, {a:g} of sample "
            f"{stored.sample[outside][0]}; bring them to that scale and pack anew, or place the classes: --anchors default"
        )
    return Placed(point, "the rows' labels")


def by_classes(stored: Features, anchors: Anchors, name: str) -> Placed:
    """Place rows by the mean of the classes' anchors under a row's distribution: divided votes lie between classes."""
    return Placed(stored.target.astype(np.float64) @ positions(stored.class_names, anchors), f"anchors of classes ({name})")


def centers_of(grid: int) -> np.ndarray:
    """Return (grid * grid, 2) float32 valence, arousal of the cells' centres; arousal runs fastest."""
    axis = (2 * np.arange(grid) + 1) / grid - 1
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)


def cell_means(features: np.ndarray, point: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (K, D) float32 means of the unit rows of each cell, (K,) counts of rows in it, (K,) the cell its vector is from.

    features: (N, D). point: (N, 2) in [-1, 1], NaN rows left out; a point on an edge belongs to the lower cell. An empty cell
    takes the vector of the filled one with the nearest centre, of equals the first. The means are not normalised again.
    """
    usable = ~np.isnan(point).any(1)
    axis = (2 * np.arange(grid) + 1) / grid - 1
    v, a = np.round(np.abs(point[usable][:, :, None] - axis), DIGITS).argmin(2).T
    cell = v * grid + a
    rows = features[usable].astype(np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((grid * grid, features.shape[1]))
    np.add.at(sums, cell, unit)
    counts = np.bincount(cell, minlength=grid * grid)
    taken_from = _nearest_filled(counts, centers_of(grid))
    return (sums[taken_from] / counts[taken_from, None]).astype(np.float32), counts, taken_from


def _nearest_filled(counts: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return (K,): of a filled cell itself, else the filled one whose centre is nearest."""
    filled = np.flatnonzero(counts)
    apart = np.linalg.norm(centers[:, None] - centers[filled][None], axis=2)
    return filled[np.round(apart, DIGITS).argmin(1)]
