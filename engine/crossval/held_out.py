"""Predictions of each fold's best model of rows that it was not trained on. Axes: N samples, C columns of an output."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.calibration.calibration import CALIBRATION, read_calibration
from affect.engine.data.build import eval_loader
from affect.engine.evaluation.evaluated_model import in_torch
from affect.engine.evaluation.predictions import pooled, predict_all
from affect.engine.runs.files import BEST
from affect.engine.runs.trained import trained_model
from affect.engine.system.device import choose_device
from affect.engine.system.progress import Progress
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.schema import Output

COLUMNS = ("sample", "fold", "group")


@dataclass(frozen=True)
class HeldOut:
    """A sample a row, each once.

    values: output -> (N, C) scalars in their units, or calibrated logits; targets: (N, C), NaN where not labelled.
    fold (N,): whose model predicted it. group (N,) str, '' where there is none.
    """

    outputs: tuple[Output, ...]
    sample: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    values: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]

    def save(self, path: Path, **facts: str) -> None:
        """Write an npz: these columns, and of each output NAME.values, NAME.targets, NAME.names; facts stand beside them."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in COLUMNS} | facts
        for output in self.outputs:
            columns |= {f"{output.name}.values": self.values[output.name], f"{output.name}.targets": self.targets[output.name]}
            columns[f"{output.name}.names"] = np.array(output.names)
        columns["outputs"] = np.array([[output.name, output.kind] for output in self.outputs])
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **columns)
        partial.replace(path)


def load(path: Path) -> tuple[HeldOut, dict[str, str]]:
    """Read what `HeldOut.save` wrote, and the facts."""
    try:
        with np.load(path, allow_pickle=False) as file:
            outputs = tuple(Output(name, kind, tuple(file[f"{name}.names"].tolist())) for name, kind in file["outputs"].tolist())
            values, targets = ({o.name: file[f"{o.name}.{part}"] for o in outputs} for part in ("values", "targets"))
            facts = {name: str(file[name]) for name in file.files if file[name].ndim == 0}
            return HeldOut(outputs, file["sample"], file["fold"], file["group"], values, targets), facts
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as predictions of a fold ({error}); remove it, it is written again") from error


def concat(parts: Sequence[HeldOut]) -> HeldOut:
    """Put folds one after another. Raises InputError where two of them hold the same sample out."""
    outputs, columns = parts[0].outputs, {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    if any(part.outputs != outputs for part in parts):
        raise InputError("the folds have learned different outputs; train them on the same labels")
    sample, count = np.unique(columns["sample"], return_counts=True)
    if (count > 1).any():
        raise InputError(f"{int((count > 1).sum())} samples are held out by more than one fold, first {sample[count > 1][0]}")
    values, targets = (
        {o.name: np.concatenate([getattr(p, part)[o.name] for p in parts]) for o in outputs} for part in ("values", "targets")
    )
    return HeldOut(outputs, columns["sample"], columns["fold"], columns["group"], values, targets)


def cached_predictions(folder: Path, name: str, fold: int, dataset: Dataset, rows: np.ndarray) -> HeldOut:
    """Return `predict` of these rows, cached in the run's folder as `name` while model, dataset and rows stay the same."""
    facts = {"model": file_sha256(folder / BEST), "calibration": file_sha256(folder / CALIBRATION), "index": dataset.index_sha256}
    path = folder / name
    if path.is_file():
        try:
            cached, cached_facts = load(path)
        except InputError:
            cached_facts = {}
        if cached_facts == facts and np.array_equal(cached.sample, rows):
            return cached
    predicted = predict(folder, fold, dataset, rows)
    predicted.save(path, **facts)
    return predicted


def predict(folder: Path, fold: int, dataset: Dataset, rows: np.ndarray, order: str | None = None) -> HeldOut:
    """Predict rows (ascending) with a run's best model, in float32, calibrated as the run is; a clip is the mean of its windows.

    order: of a clip's frames, in place of the one that the model was trained with.
    """
    run, model, layout = trained_model(folder)
    clip = run.data.clip.model_copy(update={"order": order}) if run.data.clip and order else run.data.clip
    calibration, first = read_calibration(folder), layout.first_classes
    device, outputs = choose_device(run.train.device), layout.outputs
    loader = eval_loader(
        dataset, rows, run.preprocess, (), device, clip=clip, kind=run.data.loader, workers=run.data.workers, side=run.data.side,
    )  # fmt: skip
    with Progress(f"fold {fold}", len(loader.order.rows), "windows" if clip else "samples") as progress:
        values = predict_all(in_torch(model.to(device)), loader, progress.advance)
    if loader.windows:
        _, values = pooled(loader.windows.sample, values)
    if first:
        values[first.name] = calibration.apply(values[first.name])
    codes, names = dataset.coded("group")
    group = np.array([*names, ""], dtype=str)[codes[rows]]
    targets = {output.name: dataset.targets(output.name)[rows] for output in outputs}
    return HeldOut(outputs, rows.astype(np.int64), np.full(len(rows), fold), group, values, targets)


def training_means(dataset: Dataset, output: str, rows: Mapping[int, np.ndarray], fold: np.ndarray) -> np.ndarray:
    """Return (N, C), for each row the mean target of its fold's training rows: the prediction of a model that sees no picture."""
    targets = dataset.targets(output)
    of_fold = {number: np.nanmean(targets[train], axis=0) for number, train in rows.items()}
    return np.stack([of_fold[number] for number in fold.tolist()])
