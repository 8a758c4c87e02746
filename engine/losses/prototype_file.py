"""Prototypes on disk: mean features in the plane of valence and arousal. Axes: D features, K prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affect.engine.data.array_file import read_npz
from affect.shards.checksum import file_sha256
from affect.shards.errors import InputError


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


def read_prototypes(path: Path) -> Prototypes:
    """Read an npz of prototypes.

    They are the array `prototypes`, or in a file of another tool the only 2-D float array beside `centers`; centers and counts
    may be missing. Raises InputError where there is no such array, or it is not finite.
    """
    arrays = read_npz(path)
    name = _which(arrays, path)
    vectors = arrays[name].astype(np.float32)
    if len(vectors) < 2 or not vectors.shape[1]:
        raise InputError(f"{path}: {name}: found {vectors.shape}, expected (K, D) with 2 prototypes or more")
    for what, bad in (("not finite", ~np.isfinite(vectors).all(1)), ("zero: it has no direction", ~vectors.any(1))):
        if bad.any():
            raise InputError(f"{path}: {name}: row {bad.argmax()} is {what}; make the prototypes anew: affect prototypes F.npz")
    centers, counts = arrays.get("centers"), arrays.get("counts")
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


def _which(arrays: dict[str, np.ndarray], path: Path) -> str:
    """Return the name of the array of prototypes."""
    tables = [name for name, values in arrays.items() if values.ndim == 2 and values.dtype.kind == "f" and name != "centers"]
    if "prototypes" in tables:
        return "prototypes"
    listed = (
        ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in arrays.items()) or "nothing that is not pickled"
    )
    if len(tables) == 1 and "prototypes" not in arrays:
        return tables[0]
    what = "several 2-D float arrays, none called 'prototypes'" if len(tables) > 1 else "no 2-D float array"
    raise InputError(f"{path}: {what}; expected prototypes (K, D); found {listed}")
