"""Penultimate features on disk: what `affect features` writes, and what prototypes and distillation read.

Needs numpy alone; `extract.py` makes the file. Axes: N rows, D features, C classes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

TEXTS = ("dataset_sha256", "checkpoint_sha256", "fingerprint", "split")
ARRAYS = ("features", "sample", "y", "target", "class_names", "valence", "arousal")


@dataclass(frozen=True)
class Features:
    """What a model makes of rows before its outputs, and what is known of them.

    features: (N, D) float32, as the model's forward gives them, not normalised. sample: (N,) int64, numbers in the dataset.
    y: (N,) int64 the class with the largest share, -1 where not labelled. target: (N, C) float32 of class_names, NaN there.
    valence, arousal: (N,) float32 of the columns meta.valence and meta.arousal, NaN where unknown.
    fingerprint: the run's, as JSON. sha256: of the file, empty before there is one.
    """

    features: np.ndarray
    sample: np.ndarray
    y: np.ndarray
    target: np.ndarray
    class_names: tuple[str, ...]
    valence: np.ndarray
    arousal: np.ndarray
    dataset_sha256: str
    checkpoint_sha256: str
    fingerprint: str
    split: str
    sha256: str = ""

    def write(self, path: Path) -> None:
        write_npz(path, **{name: np.array(getattr(self, name)) for name in (*ARRAYS, *TEXTS)})


def read_features(path: Path) -> Features:
    """Raises InputError where the file is not one of ours, or a feature is not finite."""
    held = read_npz(path)
    missing = [name for name in (*ARRAYS, *TEXTS) if name not in held]
    if missing:
        raise InputError(
            f"{path}: no array {missing[0]!r}; expected the output of: affect features RUN --data DATASET --out F.npz; "
            f"found {', '.join(held)}"
        )
    bad = ~np.isfinite(held["features"]).all(1)
    if bad.any():
        sample = held["sample"][bad][0]
        raise InputError(f"{path}: {bad.sum():,} rows are not finite, first sample {sample}; the model has diverged: train anew")
    values: dict[str, Any] = {name: held[name] for name in ARRAYS} | {name: str(held[name]) for name in TEXTS}
    values["class_names"] = tuple(held["class_names"].tolist())
    return Features(**values, sha256=file_sha256(path))


def feature_table(path: Path, dataset: Dataset) -> np.ndarray:
    """(N, D) float32 features by sample number, of every sample of the dataset; NaN rows where the file has none.

    Raises: InputError where the file is of another dataset: sample numbers mean nothing there.
    """
    found = read_features(path)
    if found.dataset_sha256 != dataset.index_sha256:
        raise InputError(
            f"{path}: features of another dataset: its index is {found.dataset_sha256[:12]}, that of {dataset.folder} is "
            f"{dataset.index_sha256[:12]}. Make them anew: affect features RUN --data {dataset.folder} --out F.npz"
        )
    table = np.full((dataset.info.num_samples, found.features.shape[1]), np.nan, np.float32)
    table[found.sample] = found.features
    return table


def refuse_existing(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path}: is there already; name another: --out FILE.npz")


def write_npz(path: Path, **arrays: Any) -> None:
    """Whole on disk or not there; the same arrays give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz by name; pickled ones are left out, unread. Raises InputError where it is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an .npz")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: values for name in archive.files if (values := _unpickled(archive, name)) is not None}
    except Exception as error:  # numpy, zipfile and zlib each raise their own kinds on what is no archive
        raise InputError(f"{path}: not readable as an npz ({type(error).__name__}: {error})") from error


def _unpickled(archive: Any, name: str) -> np.ndarray | None:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            return None
        raise
