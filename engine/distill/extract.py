"""`affect features`: write the penultimate features of a run's model for rows of a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from affect.engine.data.build import eval_loader
from affect.engine.data.selection import largest_share, open_dataset
from affect.engine.distill.features import Features, refuse_existing
from affect.engine.evaluation.predictions import predict_all
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST
from affect.engine.runs.trained import trained_model
from affect.engine.system.device import choose_device
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError


def extract(run: Path, data: list[Path], split: str, out: Path, advance: Callable[[int], None] = lambda count: None) -> Features:
    """Write the features of the rows of a split, or of `all`, to `out`; return them.

    Features are of the evaluation view, by the run's best model, in float32; a GPU's convolutions may round to TF32. Several
    datasets are read as one.
    """
    refuse_existing(out)
    dataset = open_dataset(data)
    config, model, layout = trained_model(run)
    output, device = layout.outputs[0].name, choose_device("auto")
    target, model = dataset.targets(output), model.to(device)
    rows = np.arange(dataset.info.num_samples) if split == "all" else dataset.rows(split)
    loader = eval_loader(dataset, rows, config.preprocess, (), device)

    @torch.inference_mode()
    def penultimate(images: torch.Tensor) -> dict[str, np.ndarray]:
        return {"features": model(images)[0].float().cpu().numpy()}

    result = Features(
        features=predict_all(penultimate, loader, advance)["features"],
        sample=rows,
        y=largest_share(target[rows]),
        target=target[rows],
        class_names=dataset.info.layout.output(output).names,
        valence=column_or_nan(dataset, "meta.valence")[rows],
        arousal=column_or_nan(dataset, "meta.arousal")[rows],
        dataset_sha256=dataset.index_sha256,
        checkpoint_sha256=file_sha256(run / BEST),
        fingerprint=json.dumps(load(run / BEST)["fingerprint"], sort_keys=True),
        split=split,
    )
    result.write(out)
    return result


def column_or_nan(dataset: Dataset, column: str) -> np.ndarray:
    """Return (N,) float32 of an index column, NaN where the dataset has no such column."""
    if not dataset.has(column):
        return np.full(dataset.info.num_samples, np.nan, np.float32)
    if dataset.is_text(column):
        raise InputError(f"{dataset.folder}: column {column} holds text, not numbers; pack it with numbers, or without it")
    return dataset.column(column).astype(np.float32)
