"""What a manifest says of the training data and of a model's inputs, read from its dataset and configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from torch import nn

from affect.engine.config.run import RunConfig
from affect.engine.data.selection import train_selection
from affect.engine.data.side_signals import signal
from affect.engine.models.side_signals import scale_of
from affect.shards.dataset import Dataset

USUAL = (5, 95)  # percent: face_px


def usual_px(dataset: Dataset, rows: np.ndarray) -> list[int] | None:
    """Return the shorter side of all but the smallest and the largest 5 % of the packed pictures or frames, in pixels."""
    shorter = np.minimum(dataset.column("width")[rows], dataset.column("height")[rows])
    return [round(float(px)) for px in np.percentile(shorter, USUAL)] if len(rows) else None


def clip_facts(run: RunConfig, dataset: Dataset) -> dict[str, Any] | None:
    """Return `Manifest.clip` of a clip model. Times are medians over the training clips."""
    clip = run.data.clip
    if clip is None:
        return None
    rows = dataset.rows(train_selection(run.data))[:256]
    steps = np.concatenate([np.diff(dataset.times_s(row)) for row in rows.tolist()] or [np.zeros(0)])
    step_s = float(np.median(steps)) if len(steps) else None
    if step_s and clip.choice == "uniform":
        step_s *= float(np.median([len(dataset.times_s(row)) for row in rows.tolist()])) / clip.frames
    elif step_s:
        step_s *= clip.stride
    return {
        "view": clip.model_dump(mode="json"),
        "window_s": step_s and step_s * clip.frames,
        "rate_hz": step_s and 1 / step_s,
        "stored": asdict(dataset.info.clip) if dataset.info.clip else None,
    }


def side_facts(run: RunConfig, model: nn.Module) -> list[dict[str, Any]] | None:
    """Return `Manifest.side`."""
    pairs = zip(run.data.side, *scale_of(model), strict=True)
    facts = [{"name": signal(column), "column": column, "mean": mean, "deviation": dev} for column, mean, dev in pairs]
    return facts or None
