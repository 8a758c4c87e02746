"""Penultimate features on disk: `affect features` writes them, prototypes and distillation read them.

Needs numpy alone; `extract.py` makes the file. Axes: N rows, D features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.data.array_file import read_npz, write_npz
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

TEXTS = ("dataset_sha256", "checkpoint_sha256", "fingerprint", "split")
ARRAYS = ("features", "sample", "y", "target", "class_names", "valence", "arousal")


@dataclass(frozen=True)
class Features:
    """Features of rows, from the layer before a model's outputs, with the labels of the rows.

    features: (N, D) float32, as the model's forward gives them, not normalised. sample: (N,) int64, numbers in the dataset.
    y: (N,) int64 the class with the largest share, -1 where not labelled. target: (N, C) float32 of class_names, NaN there.
    valence, arousal: (N,) float32 of the columns meta.valence and meta.arousal, NaN where unknown.
    fingerprint: the run's, as JSON. sha256: of the file, empty before it is written.
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
    """Read a file of features. Raises InputError where the file is no output of `affect features`, or a feature is not finite."""
    arrays = read_npz(path)
    missing = [name for name in (*ARRAYS, *TEXTS) if name not in arrays]
    if missing:
        raise InputError(
            f"{path}: no array {missing[0]!r}; expected the output of: affect features RUN --data DATASET --out F.npz; "
            f"found {', '.join(arrays)}"
        )
    bad = ~np.isfinite(arrays["features"]).all(1)
    if bad.any():
        sample = arrays["sample"][bad][0]
        raise InputError(f"{path}: {bad.sum():,} rows are not finite, first sample {sample}; the model has diverged: train anew")
    values: dict[str, Any] = {name: arrays[name] for name in ARRAYS} | {name: str(arrays[name]) for name in TEXTS}
    values["class_names"] = tuple(arrays["class_names"].tolist())
    return Features(**values, sha256=file_sha256(path))


def feature_table(path: Path, dataset: Dataset) -> np.ndarray:
    """Return (N, D) float32 features by sample number, of every sample of the dataset; NaN rows where the file has none.

    Raises: InputError where the file is of another dataset: sample numbers mean nothing there.
    """
    stored = read_features(path)
    if stored.dataset_sha256 != dataset.index_sha256:
        raise InputError(
            f"{path}: features of another dataset: its index is {stored.dataset_sha256[:12]}, that of {dataset.folder} is "
            f"{dataset.index_sha256[:12]}. Make them anew: affect features RUN --data {dataset.folder} --out F.npz"
        )
    table = np.full((dataset.info.num_samples, stored.features.shape[1]), np.nan, np.float32)
    table[stored.sample] = stored.features
    return table


def refuse_existing(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path}: is there already; name another: --out FILE.npz")
