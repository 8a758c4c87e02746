"""What the best model of each fold says of rows that it was not trained on. Axes: N samples, C columns of an output."""

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
from affect.engine.evaluation.predictions import collect, pooled
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
    fold (N,): whose model said it. group (N,) str, '' where there is none.
    """

    outputs: tuple[Output, ...]
    sample: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    values: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]

    def save(self, path: Path, **facts: str) -> None:
        """As npz: these columns, and of each output NAME.values, NAME.targets, NAME.names. facts: kept beside them."""
        held: dict[str, Any] = {name: getattr(self, name) for name in COLUMNS} | facts
        for output in self.outputs:
            held |= {f"{output.name}.values": self.values[output.name], f"{output.name}.targets": self.targets[output.name]}
            held[f"{output.name}.names"] = np.array(output.names)
        held["outputs"] = np.array([[output.name, output.kind] for output in self.outputs])
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **held)
        partial.replace(path)


def load(path: Path) -> tuple[HeldOut, dict[str, str]]:
    """Of `HeldOut.save`, and the facts."""
    try:
        with np.load(path, allow_pickle=False) as held:
            outputs = tuple(Output(name, kind, tuple(held[f"{name}.names"].tolist())) for name, kind in held["outputs"].tolist())
            values, targets = ({o.name: held[f"{o.name}.{part}"] for o in outputs} for part in ("values", "targets"))
            facts = {name: str(held[name]) for name in held.files if held[name].ndim == 0}
            return HeldOut(outputs, held["sample"], held["fold"], held["group"], values, targets), facts
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as what a fold says ({error}); remove it, it is made again") from error


def concat(parts: Sequence[HeldOut]) -> HeldOut:
    """Folds one after another. Raises InputError where two of them hold the same sample out."""
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


def kept(folder: Path, name: str, fold: int, dataset: Dataset, rows: np.ndarray) -> HeldOut:
    """`said`, kept in the run's folder as `name` for as long as model, dataset and rows are the same."""
    facts = {"model": file_sha256(folder / BEST), "calibration": file_sha256(folder / CALIBRATION), "index": dataset.index_sha256}
    path = folder / name
    if path.is_file():
        try:
            found, of = load(path)
        except InputError:
            of = {}
        if of == facts and np.array_equal(found.sample, rows):
            return found
    made = said(folder, fold, dataset, rows)
    made.save(path, **facts)
    return made


def said(folder: Path, fold: int, dataset: Dataset, rows: np.ndarray) -> HeldOut:
    """Of a run's best model, in float32 and calibrated as the run is; of clips the mean over windows. rows: ascending."""
    run, model, layout = trained_model(folder)
    calibration, first = read_calibration(folder), layout.first_classes
    device, outputs = choose_device(run.train.device), layout.outputs
    loader = eval_loader(
        dataset, rows, run.preprocess, (), device, clip=run.data.clip, kind=run.data.loader, workers=run.data.workers,
        side=run.data.side,
    )  # fmt: skip
    with Progress(f"fold {fold}", len(loader.order.rows), "samples" if run.data.clip is None else "windows") as progress:
        values = collect(in_torch(model.to(device)), loader, progress.advance)
    if loader.windows:
        _, values = pooled(loader.windows.sample, values)
    if first:
        values[first.name] = calibration.apply(values[first.name])
    codes, names = dataset.coded("group")
    group = np.array([*names, ""], dtype=str)[codes[rows]]
    targets = {output.name: dataset.targets(output.name)[rows] for output in outputs}
    return HeldOut(outputs, rows.astype(np.int64), np.full(len(rows), fold), group, values, targets)


def means(dataset: Dataset, output: str, rows: Mapping[int, np.ndarray], fold: np.ndarray) -> np.ndarray:
    """(N, C) for each row the mean target of its fold's training rows: what a model says that knows no picture."""
    targets = dataset.targets(output)
    of_fold = {number: np.nanmean(targets[train], axis=0) for number, train in rows.items()}
    return np.stack([of_fold[number] for number in fold.tolist()])
