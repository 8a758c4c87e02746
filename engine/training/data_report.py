"""`alignmentreport.json`: which rows of what a run is trained on and validated on, and how they are shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from affect.engine.config.run import RunConfig
from affect.engine.data.selection import train_selection, val_selection
from affect.engine.data.statistics import rows_by_source
from affect.shards.dataset import Dataset
from affect.shards.selection import Selection


def alignment(run: RunConfig, dataset: Dataset, train_rows: np.ndarray, init: dict[str, Any] | None) -> dict[str, Any]:
    """Counts by source of each split before and after the filters, the filters, and the settings that shape a sample.

    init: the checkpoint the run starts from, as `initialise` returns it.
    """
    data = run.data
    val_rows = dataset.rows(val_selection(data))
    paths = data.dataset if isinstance(data.dataset, list) else [data.dataset]
    return {
        "dataset": [str(path) for path in paths],
        "index_sha256": dataset.index_sha256,
        "manifest_sha256": dataset.info.fingerprint,
        "label_protocol": dataset.info.label_protocol,
        "loss": run.loss.model_dump(mode="json"),
        "init_from": init,
        "rows": {"total": dataset.info.num_samples, "train": len(train_rows), "val": len(val_rows)},
        "train": _side(dataset, train_selection(data), train_rows),
        "val": _side(dataset, val_selection(data), val_rows),
        "sampler": data.sampler,
        "seed": run.seed,
        "preprocess": asdict(run.preprocess),
        "augment": data.augment.model_dump(mode="json"),
        "clip": data.clip.model_dump(mode="json") if data.clip else None,
    }


def _side(dataset: Dataset, selection: Selection, rows: np.ndarray) -> dict[str, Any]:
    """packed: the rows of the split as it was packed; used: after every filter, folds included."""
    split, splits = dataset.coded("split")
    packed = np.flatnonzero(split == splits.index(selection.split)) if selection.split in splits else rows[:0]
    return {"filters": asdict(selection), "packed": rows_by_source(dataset, packed), "used": rows_by_source(dataset, rows)}
