"""How long an index takes to open: python -m affect.bench.index [ROWS]

Writes a synthetic index of ROWS rows (10 million) to a temporary folder, then times in a fresh process: opening it and choosing
the training rows, the first step of the shuffled order, and that of the class-balanced one. Targets: 2 s, 3 s, 3 s, 1.5 GB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from affect.shards.dataset import Dataset
from affect.shards.sampler import Order, class_balanced_weights
from affect.shards.schema import INDEX, DatasetInfo, FileFact, Output, TargetLayout, index_schema
from affect.shards.selection import Selection

ROWS, GROUP, SHARD, BATCH = 10_000_000, 500_000, 10_000, 128
SPLITS, SOURCES = ["train", "val", "calib"], [f"source{i}" for i in range(12)]
LAYOUT = TargetLayout((Output("emotion", "classes", tuple(f"class{i}" for i in range(8))),))


def write_index(folder: Path, rows: int) -> None:
    """An index without tars: 94 % train, twelve sources, classes of very different sizes."""
    folder.mkdir()
    schema = index_schema(LAYOUT, {"cohort": str})
    random = np.random.default_rng(0)
    counts = np.zeros(len(SPLITS), np.int64)
    with pq.ParquetWriter(folder / INDEX, schema, compression="zstd") as writer:
        for start in range(0, rows, GROUP):
            table, split = _group(schema, start, min(GROUP, rows - start), random)
            counts += np.bincount(split, minlength=len(SPLITS))
            writer.write_table(table)
    facts = {INDEX: FileFact((folder / INDEX).stat().st_size, "0" * 64)}
    dropped = {"filtered": 0, "rejected": 0, "duplicates": 0}
    per_split = dict(zip(SPLITS, counts.tolist(), strict=True))
    DatasetInfo(LAYOUT, "hard", per_split, dropped, {}, facts).write(folder / "dataset.json")


def _group(schema: pa.Schema, start: int, n: int, random: np.random.Generator) -> tuple[pa.Table, np.ndarray]:
    sample = np.arange(start, start + n)
    split = random.choice(len(SPLITS), n, p=[0.94, 0.04, 0.02])
    hot = np.eye(8, dtype=np.float32)[np.minimum(random.geometric(0.4, n) - 1, 7)]
    edge = random.integers(48, 512, n).astype(np.int32)
    text = {"split": (split, SPLITS), "source": (random.integers(0, 12, n), SOURCES)}
    text["shard"] = ((sample - start) // SHARD, [f"train-{(start + i) // SHARD:06d}.tar" for i in range(0, n, SHARD)])
    text["group"] = (random.integers(0, 5000, n), [f"subject{i}" for i in range(5000)])
    text["meta.cohort"] = (random.integers(0, 3, n), ["a", "b", "c"])
    keys = pa.array([f"{i:09d}" for i in sample.tolist()])
    one = {
        "sample": sample,
        "key": keys,
        "path": keys,
        "weight": np.ones(n, np.float32),
        "width": edge,
        "height": edge,
        "confidence": random.random(n, np.float32),
        "num_frames": np.ones(n, np.int32),
        "sha256": pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), n, [None, pa.py_buffer(random.bytes(32 * n))]),
    }
    lists = {name: pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), sample * 4096) for name in ("offset", "size")}
    coded = {
        name: pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(names)) for name, (codes, names) in text.items()
    }
    targets = {column: hot[:, i] for i, column in enumerate(LAYOUT.columns)}
    values = {**one, **lists, **coded, **targets}
    return pa.table([values.get(name, pa.nulls(n)) for name in schema.names], schema=schema), split


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each stage, and the most memory by its end."""
    figures: dict[str, float] = {}
    began = time.perf_counter()

    def stage(name: str) -> None:
        nonlocal began
        figures[f"{name}_s"] = round(time.perf_counter() - began, 2)
        figures[f"{name}_peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
        began = time.perf_counter()

    dataset = Dataset(folder)
    rows = dataset.rows("train")
    stage("open")
    Order(rows, seed=1, batch=BATCH).step(0)
    stage("first_step")
    dataset.rows(Selection("train", ("source3", "source7"), 0.5, {"meta.cohort": ("a",)}))
    stage("filters")
    labels = dataset.targets("emotion").argmax(1)[rows]
    stage("labels")
    Order(rows, seed=1, batch=BATCH, weights=class_balanced_weights(labels)).step(0)
    stage("balanced_first_step")
    return {"rows": len(dataset.column("sample")), **figures}


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--measure":
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as root:
        write_index(Path(root) / "dataset", rows)
        size = (Path(root) / "dataset" / INDEX).stat().st_size
        print(f"index of {rows:,} rows: {size / 1e9:.2f} GB on disk", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "affect.bench.index", "--measure", f"{root}/dataset"], check=True)


if __name__ == "__main__":
    main()
