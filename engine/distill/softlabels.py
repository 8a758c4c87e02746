"""Soft labels on disk: teachers' logits for every row of a dataset, written once and read by a student.

Needs numpy alone; ensemble_softlabels.py computes them. Axes: N rows of the dataset by sample number, C classes.

DIR/
  softlabels.npz          logits (N, C) float16 or float32, y (N,) uint8: the label, 255 where there is none
  softlabels_index.jsonl  {i, image_path, source, y} a row
  classorder.json         names of the columns
  hash_manifest.json      the dataset's index and its sha256; sha256 of the files above and below
  alignmentreport.json    rows by split and source, how each teacher's classes map
  ensemble_metrics.json   view, scale, temperature, weights, teachers and their figures
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from affect.engine.data.array_file import read_npz
from affect.engine.runs.files import SOFT_LABELS
from affect.engine.system.log import say
from affect.shards.checksum import file_sha256
from affect.shards.class_maps import ClassMap, columns_by_name
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, first
from affect.shards.schema import INDEX

ROWS, CLASSES = "softlabels_index.jsonl", "classorder.json"
HASHES, ALIGNMENT, ENSEMBLE = "hash_manifest.json", "alignmentreport.json", "ensemble_metrics.json"
UNLABELLED = 255
FLATTEST = 1e-6  # least deviation that a row is divided by
ANEW = "write them anew: affect softlabels RUN... --data DATASET --out DIR"

Scale = Literal["raw", "calibrated"]
SCALES = ("raw", "calibrated")


@dataclass(frozen=True)
class SoftLabels:
    """logits: (N, C) float32 in the dataset's order of classes, `names`; a row of NaN where there is none.

    temperature: fitted to these logits on calib rows and not applied; None where nothing was fitted.
    scale: `calibrated` where each teacher's logits were divided by its own temperature before they were combined.
    view: of the pictures that the teachers saw; `unknown` in files of another tool. sha256: of softlabels.npz.
    """

    logits: np.ndarray
    names: tuple[str, ...]
    temperature: float | None
    scale: Scale
    view: str
    sha256: str

    @classmethod
    def read(cls, folder: Path, dataset: Dataset, output: str) -> SoftLabels:
        """Read them for the rows of a dataset. Files of another tool are matched by image_path, and how many match is logged.

        Raises: InputError where the folder is not whole, of another dataset, or its classes are others.
        """
        manifest = _manifest(folder)
        stored_names, names = ClassMap.read(folder / CLASSES).names, dataset.info.layout.output(output).names
        columns = columns_by_name(names, stored_names)
        if columns is None:
            raise InputError(
                f"{folder / CLASSES}: has the classes {', '.join(stored_names)}; {dataset.folder} has {', '.join(names)}: "
                "not the same, each once; take teachers of these classes"
            )
        stored = _logits(folder / SOFT_LABELS, len(stored_names))
        samples, row = _matched(folder, dataset, manifest, len(stored))
        logits = np.full((dataset.info.num_samples, len(names)), np.nan, np.float32)
        logits[samples] = stored[row][:, columns]
        return cls(logits, names, *_recorded(folder / ENSEMBLE), sha256=file_sha256(folder / SOFT_LABELS))

    def table(self, scale: Scale, standardize: bool) -> np.ndarray:
        """Return (N, C) float32 logits: `raw` as they are, `calibrated` divided by the temperature that was fitted to them.

        standardize: each row to mean 0 and deviation 1 (Sun et al., Logit Standardization, CVPR 2024); a flat one to 0.
        """
        logits = self.logits
        if scale == "calibrated" and self.temperature is not None:
            logits = logits / np.float32(self.temperature)
        elif scale == "calibrated" and self.scale == "raw":
            raise InputError(
                "soft labels: scale calibrated was asked for, but they are raw and no temperature was fitted to them; make them "
                "of a dataset with calib rows (affect pack ... --calib 0.3), or take loss.teacher.scale=raw"
            )
        return standardized(logits) if standardize else logits


def standardized(logits: np.ndarray) -> np.ndarray:
    """Return (N, C) rows scaled to mean 0 and deviation 1."""
    mean, deviation = logits.mean(1, keepdims=True), logits.std(1, keepdims=True)
    return (logits - mean) / np.maximum(deviation, FLATTEST)


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Read hash_manifest.json, None where there is none. Raises InputError where a file is missing or not as it was written."""
    for name in (SOFT_LABELS, CLASSES):
        if not (folder / name).is_file():
            what = f"has no {name}" if folder.is_dir() else "is not there"
            raise InputError(f"{folder}: {what}; expected a folder of affect softlabels: {ANEW}")
    if not (folder / HASHES).is_file():
        return None
    manifest = _json(folder / HASHES)
    if not isinstance(manifest.get("sha256"), str) or not isinstance(manifest.get("files", {}), dict):
        raise InputError(f"{folder / HASHES}: expected {{manifest, sha256}}, found {', '.join(manifest) or 'nothing'}; {ANEW}")
    for name, sha256 in manifest.get("files", {}).items():
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            raise InputError(f"{folder / name}: missing, or changed since it was written; take a copy, or {ANEW}")
    return manifest


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); {ANEW}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object, found {type(value).__name__}; {ANEW}")
    return value


def _logits(path: Path, classes: int) -> np.ndarray:
    """Read (rows, C) float32 logits; each row is finite, or all NaN."""
    logits = read_npz(path).get("logits")
    if logits is None or logits.ndim != 2 or logits.dtype.kind != "f" or logits.shape[1] != classes:
        what = "none" if logits is None else f"{logits.dtype} {logits.shape}"
        raise InputError(f"{path}: logits: found {what}, expected floats (N, {classes}), a column for each name of {CLASSES}")
    bad = ~(np.isfinite(logits).all(1) | np.isnan(logits).all(1))
    if bad.any():
        raise InputError(f"{path}: logits: {bad.sum():,} rows are not finite, first {bad.argmax()}; {ANEW}")
    return logits.astype(np.float32)


def _recorded(path: Path) -> tuple[float | None, Scale, str]:
    """Read temperature, scale and view."""
    value = _json(path) if path.is_file() else {}
    temperature, scale = value.get("temperature"), value.get("scale", "raw")
    number = isinstance(temperature, int | float) and math.isfinite(temperature) and temperature > 0
    if not (temperature is None or number) or scale not in SCALES:
        raise InputError(
            f"{path}: temperature {temperature!r}, scale {scale!r}; expected a number above 0 or null, {' or '.join(SCALES)}"
        )
    return (None if temperature is None else float(temperature)), scale, str(value.get("view", "unknown"))


def _matched(
    folder: Path, dataset: Dataset, manifest: dict[str, Any] | None, rows: int
) -> tuple[np.ndarray | slice, np.ndarray | slice]:
    """Return (sample numbers, rows of the file) that belong together."""
    if manifest is None or manifest.get("manifest") != INDEX:
        if manifest and manifest["sha256"] not in dataset.info.fingerprint.values():
            raise InputError(
                f"{folder}: was made for {manifest.get('manifest')} with sha256 {manifest['sha256'][:12]}..., which "
                f"{dataset.folder} was not packed from; pack that, or delete {HASHES} to match rows by image_path"
            )
        return _by_path(folder, dataset, rows)
    if manifest["sha256"] != dataset.index_sha256:
        raise InputError(
            f"{folder}: was made for another dataset: found an index with sha256 {manifest['sha256'][:12]}..., expected "
            f"{dataset.index_sha256[:12]}... of {dataset.folder}; name the dataset it was made for, or write it anew: "
            f"affect softlabels RUN... --data {dataset.folder} --out DIR"
        )
    if rows != dataset.info.num_samples:
        raise InputError(f"{folder / SOFT_LABELS}: has {rows:,} rows, {dataset.folder} {dataset.info.num_samples:,}; {ANEW}")
    return slice(None), slice(None)


def _by_path(folder: Path, dataset: Dataset, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Match by the path that each picture came from; a path that occurs twice, here or there, matches nothing."""
    row_of = {_path(path): i for path, i in _once(_lines(folder / ROWS, rows))}
    paths = [_path(path) for path in dataset.column("path").tolist()]
    times = Counter(paths)
    pairs = [(sample, row_of[path]) for sample, path in enumerate(paths) if times[path] == 1 and path in row_of]
    if not pairs:
        raise InputError(
            f"{folder}: has no {HASHES} of {dataset.folder}, and no image_path is one of its paths; its own:\n"
            f"{first(row_of, 2)}\nthe dataset's:\n{first(times, 2)}\nName the dataset it was made for, or {ANEW}"
        )
    say(
        f"{folder}: {len(pairs):,} of {rows:,} rows matched to {dataset.folder} by image_path; "
        f"{len(paths) - len(pairs):,} of its {len(paths):,} samples have no soft label"
    )
    samples, row = np.array(pairs, np.int64).T
    return samples, row


def _path(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def _once(pairs: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    times = Counter(_path(path) for path, _ in pairs)
    return ((path, i) for path, i in pairs if times[_path(path)] == 1)


def _lines(path: Path, rows: int) -> list[tuple[str, int]]:
    """Read image_path and number of each row."""
    if not path.is_file():
        raise InputError(f"{path.parent}: has neither {HASHES} nor {path.name}: its rows cannot be matched; {ANEW}")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        pairs = [(str(line["image_path"]), int(line["i"])) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error!r}); expected {{i, image_path, source, y}} a line; {ANEW}") from error
    if sorted(i for _, i in pairs) != list(range(rows)):
        raise InputError(
            f"{path}: {len(pairs):,} lines, {SOFT_LABELS} has {rows:,} rows; expected i from 0 on, each once; {ANEW}"
        )
    return pairs


def write_softlabels(
    out: Path, dataset: Dataset, logits: np.ndarray, label: np.ndarray, names: Sequence[str], facts: dict[str, dict[str, Any]]
) -> None:
    """Write the folder, whole or not at all.

    logits: (N, C) float16 or float32. label: (N,), -1 where there is none. facts: alignmentreport and ensemble_metrics by name.
    """
    y = np.where(label < 0, UNLABELLED, label).astype(np.uint8)
    with new_folder(out) as building:
        np.savez(building / SOFT_LABELS, logits=logits, y=y)
        columns = dataset.column("path").tolist(), dataset.column("source").tolist(), y.tolist()
        with (building / ROWS).open("w", encoding="utf-8") as stream:
            for i, (path, source, of) in enumerate(zip(*columns, strict=True)):
                stream.write(json.dumps({"i": i, "image_path": path, "source": source, "y": of}) + "\n")
        for name, value in {CLASSES: list(names), **facts}.items():
            (building / name).write_text(json.dumps(value, indent=1))
        files = {path.name: file_sha256(path) for path in sorted(building.iterdir())}
        hashes = {"manifest": INDEX, "sha256": dataset.index_sha256, "files": files}
        (building / HASHES).write_text(json.dumps(hashes, indent=1))


def refuse_existing(out: Path) -> None:
    """Raise InputError, before any work, where the folder cannot be written."""
    if out.exists():
        raise InputError(f"{out}: is there already; name another: --out DIR")
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{out}: {above} is not a folder that can be written to; name another: --out DIR")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write to, which is renamed to `out` without an error; an existing `out` is left as it is."""
    building = out.with_name(f".{out.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        yield building
        refuse_existing(out)
        building.rename(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}; nothing was") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
