"""Figures of a model on a split: the same code scores an epoch, a run and a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.engine.calibration.calibration import Calibration
from affect.engine.data.build import eval_loader
from affect.engine.data.selection import open_dataset
from affect.engine.evaluation.class_order import matched
from affect.engine.evaluation.evaluated_model import Subject, open_subject
from affect.engine.evaluation.output_folder import beside_validation, default_out, is_validation
from affect.engine.evaluation.predictions import Predictions, collect, pooled, sources_of
from affect.engine.metrics.classification import classification, macro_f1_interval, reliability
from affect.engine.metrics.output_metrics import further_metrics
from affect.engine.report.mcnemar import write_predictions
from affect.engine.report.plots import confusion_plot
from affect.engine.report.run_figures import CHOSEN_MARK, Figures, chosen_on, mark
from affect.engine.runs.files import METRICS
from affect.engine.runs.folder import write_json
from affect.engine.system.progress import Progress
from affect.shards.class_maps import ClassMap, columns_by_name
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout


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
    if subject.layout.first_classes is None:
        return evaluate_numbers(model, subject, dataset, data, split, rows, out, progress)
    output = dataset.info.layout.output(subject.output.name)
    target = dataset.targets(output.name)[rows]
    counts = dict(zip(output.names, (target > 0).sum(0).tolist(), strict=True))
    match = matched(subject.output, output, counts, str(dataset.folder), class_map)
    unlabelled = int(np.isnan(target).any(1).sum())
    target = match(target)
    known = ~np.isnan(target).any(1)
    if not known.any():
        raise InputError(f"{dataset.folder}: no row of {split} is labelled with a class of the model; nothing to evaluate")
    further = {name: values[rows] for name, values in further_targets(subject.layout, dataset).items()}
    wanted = known | np.any([~np.isnan(values).all(1) for values in further.values()] or [known], axis=0)
    values = _values(subject, dataset, rows[wanted], progress)
    logits = values[output.name][known[wanted]]
    found = Predictions(logits, target[known], sources_of(dataset, rows[known]), subject.output.names)
    beside = _beside(subject, values, {name: of[wanted] for name, of in further.items()})
    left_out = {"not labelled": unlabelled, "label not in the class map": len(rows) - len(logits) - unlabelled}
    left_out = {reason: count for reason, count in left_out.items() if count}
    what = {"model": str(model), "dataset": str(data), "split": split, "class_map": class_map.name if class_map else None}
    what["label_protocol"] = dataset.info.label_protocol
    return judge(found, subject, what, {"left_out": left_out, "rejected": 0, "outputs": beside}, out)


def evaluate_numbers(
    model: Path, subject: Subject, dataset: Dataset, data: Path, split: str, rows: np.ndarray, out: Path | None,
    progress: Progress | None,
) -> dict[str, Any]:  # fmt: skip
    """As `evaluate`, of a model without classes: only metrics.json is written."""
    targets = {name: values[rows] for name, values in further_targets(subject.layout, dataset).items()}
    known = np.any([~np.isnan(values).all(1) for values in targets.values()] or [np.zeros(len(rows), bool)], axis=0)
    if not known.any():
        names = ", ".join(output.name for output in subject.layout.outputs)
        raise InputError(f"{dataset.folder}: no row of {split} is labelled for {names}; nothing to evaluate")
    values = _values(subject, dataset, rows[known], progress)
    what: dict[str, Any] = {"model": str(model), "dataset": str(data), "split": split, "class_map": None}
    what["label_protocol"] = dataset.info.label_protocol
    metrics = what | {"rows": int(known.sum()), "left_out": {"not labelled": int((~known).sum())} if not known.all() else {}}
    metrics["outputs"] = _beside(subject, values, {name: of[known] for name, of in targets.items()})
    out = out or default_out(model, what)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / METRICS, metrics)
    return metrics | {"out": str(out)}


def _values(subject: Subject, dataset: Dataset, rows: np.ndarray, progress: Progress | None) -> dict[str, np.ndarray]:
    """output -> (N, C) of these samples; of clips the means over their windows."""
    loader = eval_loader(dataset, rows, subject.preprocess, (), torch.device("cpu"), clip=subject.clip, side=subject.side)
    with progress or Progress("evaluate", None, "images", shown=False) as shown:
        shown.total = len(loader.order.rows)
        values = collect(subject.predict, loader, shown.advance)
    return pooled(loader.windows.sample, values)[1] if loader.windows else values


def _beside(subject: Subject, values: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    thresholds = Calibration.from_json(subject.calibration).thresholds
    return further_metrics([subject.layout.output(name) for name in targets], values, targets, thresholds)


def further_targets(layout: TargetLayout, dataset: Dataset) -> dict[str, np.ndarray]:
    """Output besides the first one of classes -> (N, C) targets of the dataset in the model's columns, NaN where it has none."""
    found = {}
    theirs = {output.name: output for output in dataset.info.layout.outputs}
    for output in layout.outputs:
        if output is layout.first_classes:
            continue
        if output.name in theirs and theirs[output.name].kind == output.kind:
            file, values = theirs[output.name].names, dataset.targets(output.name)
            columns = [file.index(name) if name in file else -1 for name in output.names]
            found[output.name] = np.column_stack([values, np.full(len(values), np.nan)])[:, columns].astype(np.float32)
    return found


def judge(found: Predictions, subject: Subject, what: dict[str, Any], counts: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """Everything that is said of predictions, written and returned. what: see `beside.WHAT`. counts: of rows not judged."""
    metrics = classification(found.logits, found.target, found.names) | what | counts
    said = reliability(found.logits, found.target, found.names)
    metrics |= {name: said[name] for name in ("nll_majority", "ece", "ece_votes")}
    metrics["macro_f1_interval"] = macro_f1_interval(np.array(metrics["confusion"]))
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
    write_predictions(out, target.argmax(1), logits.argmax(1), names)
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
