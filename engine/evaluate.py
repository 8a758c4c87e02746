"""Figures of a model on a split: the same code scores an epoch, a run and a package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affect.engine.calibrate import read_calibration
from affect.engine.config import RunConfig
from affect.engine.data.loader import Loader, eval_loader
from affect.engine.data.plan import Planner
from affect.engine.data.preprocess import Preprocess
from affect.engine.data.selection import open_dataset, val_selection
from affect.engine.device import autocast, choose_precision
from affect.engine.metrics import classification
from affect.engine.models.build import build_model
from affect.engine.package import ModelPackage
from affect.engine.ranks import Ranks
from affect.engine.report.plots import confusion_plot
from affect.engine.run import CONFIG, METRICS, open_run, write_json
from affect.engine.runtime.backends import OnnxBackend
from affect.engine.task import TaskSpec
from affect.engine.tasks import TASKS
from affect.shards.class_maps import canonical
from affect.shards.errors import InputError
from affect.shards.order import Order
from affect.shards.read import Dataset
from affect.shards.schema import TargetLayout

Predict = Callable[[torch.Tensor], dict[str, np.ndarray]]  # (B, H, W, 3) uint8 -> output -> (B, C) logits
Advance = Callable[[int], None]  # told how many rows are done


def collect(predict: Predict, loader: Loader, advance: Callable[[int], None] = lambda count: None) -> dict[str, np.ndarray]:
    """output -> (N, C) float32 logits of every row of the loader's order, in its order."""
    order = loader.planner.order
    gathered: dict[str, list[np.ndarray]] = {}
    batches = loader.from_step(0)
    for done in range(0, len(order.rows), order.batch):
        batch = next(batches)
        for name, values in predict(batch.inputs).items():
            gathered.setdefault(name, []).append(values.astype(np.float32))
        advance(min(order.batch, len(order.rows) - done))
    return {name: np.concatenate(parts)[: len(order.rows)] for name, parts in gathered.items()}


def scorer(run: RunConfig, task: TaskSpec, dataset: Dataset) -> Callable[[nn.Module, Ranks], dict[str, float]]:
    """What `fit` calls at the end of an epoch: model -> accuracy, macro_f1, bacc, nll on the validation rows.

    Several processes take a share of the rows each, and all get the figures of the whole.
    """
    data, output = run.data, task.outputs[0]
    rows = dataset.rows(val_selection(data))
    target = dataset.targets(output)[rows]
    labelled = ~np.isnan(target).any(1)
    if not labelled.any():
        raise InputError(f"{dataset.folder}: no row of {data.val_split!r} is labelled for {output!r}; nothing to select by")
    loaders: list[Loader] = []

    def score(model: nn.Module, ranks: Ranks) -> dict[str, float]:
        dtype, _ = choose_precision(run.train, ranks.device)
        if not loaders:
            share = Order(rows[ranks.rank :: ranks.world], seed=0, batch=min(data.batch_size, len(rows)), shuffle=False)
            planner = Planner(dataset, share, run.preprocess, None, 0)
            loaders.append(Loader(planner, task.outputs, ranks.device, data.loader, data.workers))
        model.eval()

        @torch.inference_mode()
        def predict(images: torch.Tensor) -> dict[str, np.ndarray]:
            with autocast(dtype, ranks.device):
                _, outputs = model(images)
            return {name: values.float().cpu().numpy() for name, values in outputs.items()}

        parts = ranks.gather(collect(predict, loaders[0])[output])
        logits = np.empty((len(rows), parts[0].shape[1]), np.float32)
        for rank, part in enumerate(parts):
            logits[rank :: ranks.world] = part
        values = classification(logits[labelled], target[labelled], dataset.info.layout.output(output).names)
        way = values[f"{logits.shape[1]}way"]
        return {"accuracy": way["acc"], "macro_f1": way["macro_f1"], "bacc": way["bacc"], "nll": values["nll"]}

    return score


def trained_model(folder: Path) -> tuple[RunConfig, nn.Module, TargetLayout]:
    """The best model of a run, in float32 on the CPU, evaluating."""
    run, state = open_run(folder)
    task, layout = TASKS[state["task"]], TargetLayout.from_json(state["outputs"])
    unfetched = run.model.model_copy(update={"pretrained": False})
    model = build_model(run.model_copy(update={"model": unfetched}), task, layout)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise InputError(f"{folder}: the checkpoint does not fit its configuration: {error}") from error
    return run, model.eval(), layout


@dataclass(frozen=True)
class Predictions:
    """What a model says of rows, and what they are: logits, target (N, C), labelled rows only; sources (N,) names."""

    logits: np.ndarray
    target: np.ndarray
    sources: np.ndarray
    names: tuple[str, ...]


def predictions(predict: Predict, loader: Loader, output: str, advance: Advance) -> Predictions:
    """Of one output over the loader's rows; those without a label are left out."""
    dataset, rows = loader.planner.dataset, loader.planner.order.rows
    target = loader.targets[output].numpy()[rows]
    labelled = ~np.isnan(target).any(1)
    if not labelled.any():
        raise InputError(f"{dataset.folder}: no row of the split is labelled for {output!r}; nothing to evaluate")
    logits = collect(predict, loader, advance)[output]
    codes, sources = dataset.coded("source")
    named = np.array([*sources, ""], object)[codes[rows]]
    return Predictions(logits[labelled], target[labelled], named[labelled], dataset.info.layout.output(output).names)


def evaluate(
    model: Path, data: Path, split: str, out: Path, advance: Callable[[int], None] = lambda count: None
) -> dict[str, Any]:
    """Write metrics.json, confmat.png and confmat_present.png of a run or package on a split; return the metrics.

    split: several are read as one, as in `val+calib`. In float32, whatever the run was trained in, and calibrated, if the run
    is: it is what the exported package computes.
    """
    dataset = open_dataset(data)
    subject = _run(model) if (model / CONFIG).is_file() else _package(model)
    output = subject.layout.outputs[0].name
    columns = _same_classes(subject.layout, dataset, output, model)
    loader = eval_loader(dataset, _rows_of(dataset, split), subject.preprocess, (output,), torch.device("cpu"))
    found = predictions(subject.predict, loader, output, advance)
    metrics = classification(found.logits[:, columns], found.target, found.names)
    metrics |= {"model": str(model), "dataset": str(data), "split": split, "label_protocol": dataset.info.label_protocol}
    metrics["calibration"] = subject.calibration
    out.mkdir(parents=True, exist_ok=True)
    write_metrics(metrics, found.names, out)
    return metrics


def write_metrics(metrics: dict[str, Any], names: tuple[str, ...], out: Path) -> None:
    """metrics.json and the confusions, of all classes and of those that occur."""
    write_json(out / METRICS, metrics)
    confusion_plot(np.array(metrics["confusion"]), names, out / "confmat.png")
    present = metrics["present_only"]
    confusion_plot(np.array(present["confusion"]), present["present_names"], out / "confmat_present.png")


def _rows_of(dataset: Dataset, splits: str) -> np.ndarray:
    return np.sort(np.concatenate([dataset.rows(split) for split in splits.split("+")]))


@dataclass(frozen=True)
class _Subject:
    """What is evaluated, a run or a package."""

    predict: Predict
    preprocess: Preprocess
    layout: TargetLayout
    calibration: dict[str, Any]


def in_torch(model: nn.Module) -> Predict:
    """In float32, on the device where the model is."""

    @torch.inference_mode()
    def predict(images: torch.Tensor) -> dict[str, np.ndarray]:
        return {name: values.float().cpu().numpy() for name, values in model(images)[1].items()}

    return predict


def _run(folder: Path) -> _Subject:
    run, model, layout = trained_model(folder)
    predict, output = in_torch(model), layout.outputs[0].name
    calibration = read_calibration(folder)

    def calibrated(images: torch.Tensor) -> dict[str, np.ndarray]:
        logits = predict(images)
        return logits | {output: calibration.apply(logits[output])}

    return _Subject(calibrated, run.preprocess, layout, calibration.to_json())


def _package(folder: Path) -> _Subject:
    package = ModelPackage.open(folder)
    backend = OnnxBackend(package)

    def predict(images: torch.Tensor) -> dict[str, np.ndarray]:
        values = backend.run(images.numpy())
        return {output.name: values[f"{output.name}.logits"] for output in package.layout.outputs}

    return _Subject(predict, package.preprocess, package.layout, package.manifest.calibration)


def _same_classes(layout: TargetLayout, dataset: Dataset, output: str, model: Path) -> list[int]:
    """The model's column for each of the dataset's classes: by name, synonyms included, never by position."""
    ours = [canonical(name) for name in layout.output(output).names]
    theirs = [canonical(name) for name in dataset.info.layout.output(output).names]
    if set(ours) != set(theirs):
        raise InputError(
            f"{model} knows the classes {', '.join(layout.output(output).names)}; {dataset.folder} has "
            f"{', '.join(dataset.info.layout.output(output).names)}: not the same"
        )
    return [ours.index(name) for name in theirs]
