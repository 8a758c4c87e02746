"""The packed format, written down once: what a sample is, what the targets are called, what `dataset.json` says.

DATASET/
  dataset.json            SCHEMA, target layout, splits and counts, source fingerprints, sha256 and size of every file
  index.parquet           one row per sample (INDEX_COLUMNS, the target columns, meta.*)
  train-000000.tar ...    WebDataset: <key>.jpg|png, <key>.y.f32, <key>.json where there is meta;
                          of a clip <key>.000.jpg ... <key>.031.jpg, its frames in order
  train-000000.idx        DALI's index of the tar
  rejected.csv  duplicates.csv
  SHA256SUMS              of every other file, as `sha256sum -c SHA256SUMS` reads it
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from affect.shards.errors import InputError

SCHEMA = 1
SPLITS = ("train", "val", "test", "calib")  # calib: for what is fitted after training
LEAKED = "leaked"  # training rows that another of several datasets holds out; see concat.py
INFO, INDEX, REJECTED, DUPLICATES = "dataset.json", "index.parquet", "rejected.csv", "duplicates.csv"
SUMS = "SHA256SUMS"  # datasets packed before it have none

Kind = Literal["classes", "multilabel", "scalars"]
Choice = Literal["uniform", "rate", "all"]


@dataclass(frozen=True)
class ClipFacts:
    """Which frames of its recordings a dataset has.

    choice: `uniform`, num_frames of them spread evenly; `rate`, those nearest to a grid of rate_hz; `all`.
    start_s, end_s: only frames of this window, None where it is open; window_s: its length where both are one number.
    """

    choice: Choice
    num_frames: int | None = None
    rate_hz: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    window_s: float | None = None


@dataclass(frozen=True)
class Output:
    """A group of target columns. `classes`: a distribution over the names; `multilabel`: each 0..1; `scalars`: numbers."""

    name: str
    kind: Kind
    names: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{name}" for name in self.names)

    def one_hot(self, name: str) -> dict[str, float]:
        """The target columns of a hard label."""
        return {f"{self.name}.{other}": float(other == name) for other in self.names}


@dataclass(frozen=True)
class TargetLayout:
    """The order of the target columns `<output>.<name>`; `y.f32` is the little-endian float32 vector in this order."""

    outputs: tuple[Output, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for output in self.outputs for column in output.columns)

    def output(self, name: str) -> Output:
        for output in self.outputs:
            if output.name == name:
                return output
        names = ", ".join(o.name for o in self.outputs)
        raise InputError(f"the dataset has no output {name!r}; it has: {names}. Pack it with such labels, or train another task")

    @property
    def first_classes(self) -> Output | None:
        """The output that a temperature calibrates; None where no output is of classes."""
        return next((output for output in self.outputs if output.kind == "classes"), None)

    def vector(self, targets: dict[str, float]) -> np.ndarray:
        """(K,) float32 in column order; a column that `targets` does not name is NaN: not labelled."""
        unknown = sorted(set(targets) - set(self.columns))
        if unknown:
            raise InputError(f"target columns {unknown} are not in the layout: {', '.join(self.columns)}")
        return np.array([targets.get(column, np.nan) for column in self.columns], dtype="<f4")

    @classmethod
    def from_json(cls, value: list[dict[str, Any]]) -> TargetLayout:
        return cls(tuple(Output(o["name"], o["kind"], tuple(o["names"])) for o in value))


INDEX_COLUMNS: dict[str, pa.DataType] = {
    "sample": pa.int64(),  # dense from 0
    "key": pa.string(),
    "path": pa.string(),
    "shard": pa.dictionary(pa.int32(), pa.string()),
    "split": pa.dictionary(pa.int32(), pa.string()),
    "group": pa.dictionary(pa.int32(), pa.string()),
    "source": pa.dictionary(pa.int32(), pa.string()),
    "weight": pa.float32(),
    "confidence": pa.float32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "num_frames": pa.int32(),
    "sha256": pa.binary(32),  # of the decoded pixels
    "offset": pa.list_(pa.int64()),  # of the image bytes in the tar, in frame order
    "size": pa.list_(pa.int64()),
}
CLIP_COLUMNS: dict[str, pa.DataType] = {"time_s": pa.list_(pa.float32())}  # of each frame; of datasets of clips only


def index_schema(layout: TargetLayout, meta: dict[str, type], clips: bool = False) -> pa.Schema:
    """The index's columns: the fixed ones, a float32 each target, `meta.*` as text or float32."""
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [pa.field(name, kind) for name, kind in (INDEX_COLUMNS | (CLIP_COLUMNS if clips else {})).items()]
    fields += [pa.field(column, pa.float32()) for column in layout.columns]
    fields += [pa.field(f"meta.{name}", text if kind is str else pa.float32()) for name, kind in sorted(meta.items())]
    return pa.schema(fields)


@dataclass(frozen=True)
class FileFact:
    """The size and checksum of a file of the dataset."""

    size: int
    sha256: str


@dataclass(frozen=True)
class DatasetInfo:
    """`dataset.json`."""

    layout: TargetLayout
    label_protocol: str
    counts: dict[str, int]  # split -> samples
    dropped: dict[str, int]  # filtered, rejected, duplicates
    fingerprint: dict[str, str]  # source file -> sha256 of what was read
    files: dict[str, FileFact]  # tars and the index
    near_duplicates: dict[str, int] = field(default_factory=dict)  # see dhash.py; empty in datasets packed before it
    clip: ClipFacts | None = None  # of a dataset of clips

    @property
    def num_samples(self) -> int:
        return sum(self.counts.values())

    def write(self, path: Path) -> None:
        value = {"schema": SCHEMA, **asdict(self), "layout": [asdict(o) for o in self.layout.outputs]}
        if self.clip is None:
            del value["clip"]
        path.write_text(json.dumps(value, indent=1))

    @classmethod
    def read(cls, folder: Path) -> DatasetInfo:
        path = folder / INFO
        if not path.is_file():
            what = "is not there" if not folder.exists() else f"has no {INFO}"
            raise InputError(f"{folder}: {what}; expected a packed dataset. Make one: affect pack SOURCE ... --out {folder}")
        try:
            value = json.loads(path.read_text())
            schema = value.pop("schema")
            if not all(isinstance(value[name], dict) for name in ("counts", "dropped", "fingerprint")):
                raise ValueError("counts, dropped or fingerprint is no mapping")
            sum(value["counts"].values())  # a TypeError where they are no numbers
            if not isinstance(schema, int) or schema < 1:
                raise InputError(f"{path}: not readable as a dataset description (schema {schema!r}); pack the dataset anew")
            if schema > SCHEMA:
                raise InputError(f"{path}: schema {schema} is newer than this version reads ({SCHEMA}); update affect-engine")
            layout = TargetLayout.from_json(value.pop("layout"))
            files = {name: FileFact(**fact) for name, fact in value.pop("files").items()}
            if outside := [name for name in files if name in ("", ".", "..") or set(name) & set("/\\\0")]:
                raise InputError(
                    f"{path}: files: {outside[0]!r} is outside of the dataset; take it from whom you trust, or pack it anew"
                )
            if INDEX not in files:
                raise InputError(f"{path}: files: no {INDEX}; pack the dataset anew")
            clip = ClipFacts(**value.pop("clip")) if value.get("clip") else None
            return cls(layout=layout, files=files, clip=clip, **value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: not readable as a dataset description ({error}); pack the dataset anew") from error
