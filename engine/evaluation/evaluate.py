"""Figures of a model on a split: the same code scores an epoch, a run and a package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affect.engine.config import RunConfig
from affect.engine.data.loader import Loader, eval_loader
from affect.engine.data.plan import Planner
from affect.engine.data.selection import open_dataset, val_selection
from affect.engine.device import autocast, choose_precision
from affect.engine.evaluation.beside import beside_validation, default_out, is_validation
from affect.engine.evaluation.classes import matched
from affect.engine.evaluation.subject import Predict, Subject, open_subject
from affect.engine.evaluation.subject import in_torch as in_torch  # for whoever asks a model for its answers
from affect.engine.evaluation.subject import trained_model as trained_model
from affect.engine.metrics import classification, reliability
from affect.engine.progress import Progress
from affect.engine.ranks import Ranks
from affect.engine.report.folder import CHOSEN_MARK, Figures, chosen_on, mark
from affect.engine.report.mcnemar import write_answers
from affect.engine.report.plots import confusion_plot
from affect.engine.run import METRICS, write_json
from affect.engine.task import TaskSpec
from affect.shards.class_maps import ClassMap, columns_by_name
from affect.shards.errors import InputError
from affect.shards.order import Order
from affect.shards.read import Dataset
from affect.shards.schema import TargetLayout

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
    names = dataset.info.layout.output(output).names
    return Predictions(logits[labelled], target[labelled], sources_of(dataset, rows[labelled]), names)


def sources_of(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """(len(rows),) the name of each row's source; '' where it has none."""
    codes, names = dataset.coded("source")
    return np.array([*names, ""], object)[codes[rows]]


def evaluate(
    model: Path,
    data: Path,
    split: str,
    out: Path | None = None,
    progress: Progress | None = None,
    class_map: ClassMap | None = None,
) -> dict[str, Any]:
    """Write metrics.json, confmat.png and confmat_present.png of a run, checkpoint or package on a split; return the metrics.

    split: several are read as one, as in `val+calib`. out: default: see `default_out`. class_map: classes that are not in it
    are left out. In float32, whatever the run was trained in, and calibrated, if the run is: what the package computes.
    """
    dataset, subject = open_dataset(data), open_subject(model)
    rows = _rows_of(dataset, split)
    output = dataset.info.layout.output(subject.output.name)
    target = dataset.targets(output.name)[rows]
    counts = dict(zip(output.names, (target > 0).sum(0).tolist(), strict=True))
    match = matched(subject.output, output, counts, str(dataset.folder), class_map)
    unlabelled = int(np.isnan(target).any(1).sum())
    target = match(target)
    labelled = ~np.isnan(target).any(1)
    if not labelled.any():
        raise InputError(f"{dataset.folder}: no row of {split} is labelled with a class of the model; nothing to evaluate")
    loader = eval_loader(dataset, rows[labelled], subject.preprocess, (), torch.device("cpu"))
    with progress or Progress("evaluate", None, "images", shown=False) as shown:
        shown.total = int(labelled.sum())
        logits = collect(subject.predict, loader, shown.advance)[output.name]
    found = Predictions(logits, target[labelled], sources_of(dataset, rows[labelled]), subject.output.names)
    left_out = {"not labelled": unlabelled, "label not in the class map": len(rows) - len(logits) - unlabelled}
    left_out = {reason: count for reason, count in left_out.items() if count}
    what = {"model": str(model), "dataset": str(data), "split": split, "class_map": class_map.name if class_map else None}
    what["label_protocol"] = dataset.info.label_protocol
    return judge(found, subject, what, {"left_out": left_out, "rejected": 0}, out)


def judge(found: Predictions, subject: Subject, what: dict[str, Any], counts: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """Everything that is said of predictions, written and returned. what: see `beside.WHAT`. counts: of rows not judged."""
    metrics = classification(found.logits, found.target, found.names) | what | counts
    metrics |= {"calibration": subject.calibration, "sources": by_source(found)}
    if subject.run:
        of_set = Figures.of(metrics, str(what["dataset"]))
        metrics["used_to_choose"] = mark(Path(str(what["dataset"])).stem, of_set, chosen_on(subject.run)) == CHOSEN_MARK
    if subject.run and not is_validation(subject.run, what["dataset"], what["split"] or ""):
        metrics["beside_validation"] = beside_validation(subject.run, metrics)
    out = out or default_out(Path(what["model"]), what)
    out.mkdir(parents=True, exist_ok=True)
    write_metrics(metrics, found.logits, found.target, out)
    return metrics | {"out": str(out)}


def by_source(found: Predictions) -> dict[str, dict[str, float]]:
    """source -> its rows and figures; macro-F1 is over the classes that it has."""
    names, codes = np.unique(found.sources.astype(str), return_inverse=True)
    figures = {}
    for i, name in enumerate(names.tolist()):
        values = reliability(found.logits[codes == i], found.target[codes == i], found.names, present_only=True)
        figures[name] = {key: values[key] for key in ("rows", "accuracy", "macro_f1", "macro_f1_classes", "bacc")}
    return figures


def write_metrics(metrics: dict[str, Any], logits: np.ndarray, target: np.ndarray, out: Path) -> None:
    """metrics.json, the label and the answer of each row, and the confusions, of all classes and of those that occur.

    logits: (N, C) as the model gives them, calibrated. target: (N, C).
    """
    names = tuple(metrics["per_class"])
    write_json(out / METRICS, metrics)
    write_answers(out, target.argmax(1), logits.argmax(1), names)
    confusion_plot(np.array(metrics["confusion"]), names, out / "confmat.png")
    present = metrics["present_only"]
    confusion_plot(np.array(present["confusion"]), present["present_names"], out / "confmat_present.png")


def _rows_of(dataset: Dataset, splits: str) -> np.ndarray:
    return np.sort(np.concatenate([dataset.rows(split) for split in splits.split("+")]))


def same_classes(layout: TargetLayout, dataset: Dataset, output: str, model: Path) -> list[int]:
    """The model's column for each of the dataset's classes: by name, synonyms included, never by position."""
    ours, theirs = layout.output(output).names, dataset.info.layout.output(output).names
    columns = columns_by_name(theirs, ours)
    if columns is None:
        raise InputError(
            f"{model} knows the classes {', '.join(ours)}; {dataset.folder} has {', '.join(theirs)}: not the same, each once"
        )
    return columns
