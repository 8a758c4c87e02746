"""Figures of a model on a split of a packed dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.engine.calibration.calibration import Calibration
from affect.engine.data.build import eval_loader
from affect.engine.data.selection import open_dataset
from affect.engine.evaluation.class_figures import judge
from affect.engine.evaluation.class_order import class_order
from affect.engine.evaluation.evaluated_model import EvaluatedModel, open_model
from affect.engine.evaluation.output_folder import default_out
from affect.engine.evaluation.predictions import LabelledPredictions, pooled, predict_all, sources_of
from affect.engine.metrics.output_metrics import further_metrics
from affect.engine.runs.files import METRICS
from affect.engine.runs.folder import write_json
from affect.engine.system.progress import Progress
from affect.shards.class_maps import ClassMap
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
    dataset, evaluated = open_dataset(data), open_model(model)
    rows = np.sort(np.concatenate([dataset.rows(name) for name in split.split("+")]))
    what = {"model": str(model), "dataset": str(data), "split": split, "class_map": class_map.name if class_map else None}
    what["label_protocol"] = dataset.info.label_protocol
    if evaluated.layout.first_classes is None:
        return _evaluate_numbers(evaluated, dataset, rows, what | {"class_map": None}, out, progress)
    target, unlabelled = _class_targets(evaluated, dataset, rows, split, class_map)
    known = ~np.isnan(target).any(1)
    further = {name: values[rows] for name, values in further_targets(evaluated.layout, dataset).items()}
    wanted = known | np.any([~np.isnan(values).all(1) for values in further.values()] or [known], axis=0)
    values = _predict(evaluated, dataset, rows[wanted], progress)
    logits = values[evaluated.output.name][known[wanted]]
    predictions = LabelledPredictions(logits, target[known], sources_of(dataset, rows[known]), evaluated.output.names)
    left_out = {"not labelled": unlabelled, "label not in the class map": len(rows) - len(logits) - unlabelled}
    left_out = {reason: count for reason, count in left_out.items() if count}
    outputs = _further_metrics(evaluated, values, {name: of[wanted] for name, of in further.items()})
    return judge(predictions, evaluated, what, {"left_out": left_out, "rejected": 0, "outputs": outputs}, out)


def _class_targets(
    evaluated: EvaluatedModel, dataset: Dataset, rows: np.ndarray, split: str, class_map: ClassMap | None
) -> tuple[np.ndarray, int]:
    """(N, C) targets of the rows in the model's classes, NaN where a row is left out; and how many rows have no label at all."""
    output = dataset.info.layout.output(evaluated.output.name)
    target = dataset.targets(output.name)[rows]
    counts = dict(zip(output.names, (target > 0).sum(0).tolist(), strict=True))
    unlabelled = int(np.isnan(target).any(1).sum())
    target = class_order(evaluated.output, output, counts, str(dataset.folder), class_map)(target)
    if np.isnan(target).any(1).all():
        raise InputError(f"{dataset.folder}: no row of {split} is labelled with a class of the model; nothing to evaluate")
    return target, unlabelled


def _evaluate_numbers(
    evaluated: EvaluatedModel,
    dataset: Dataset,
    rows: np.ndarray,
    what: dict[str, Any],
    out: Path | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """Evaluate a model without classes: only metrics.json is written."""
    targets = {name: values[rows] for name, values in further_targets(evaluated.layout, dataset).items()}
    known = np.any([~np.isnan(values).all(1) for values in targets.values()] or [np.zeros(len(rows), bool)], axis=0)
    if not known.any():
        names = ", ".join(output.name for output in evaluated.layout.outputs)
        raise InputError(f"{dataset.folder}: no row of {what['split']} is labelled for {names}; nothing to evaluate")
    values = _predict(evaluated, dataset, rows[known], progress)
    metrics = what | {"rows": int(known.sum()), "left_out": {"not labelled": int((~known).sum())} if not known.all() else {}}
    metrics["outputs"] = _further_metrics(evaluated, values, {name: of[known] for name, of in targets.items()})
    out = out or default_out(Path(what["model"]), what)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / METRICS, metrics)
    return metrics | {"out": str(out)}


def _predict(evaluated: EvaluatedModel, dataset: Dataset, rows: np.ndarray, progress: Progress | None) -> dict[str, np.ndarray]:
    """output -> (N, C) of these samples; of clips the means over their windows."""
    device = torch.device("cpu")
    loader = eval_loader(dataset, rows, evaluated.preprocess, (), device, clip=evaluated.clip, side=evaluated.side)
    with progress or Progress("evaluate", None, "images", shown=False) as shown:
        shown.total = len(loader.order.rows)
        values = predict_all(evaluated.predict, loader, shown.advance)
    return pooled(loader.windows.sample, values)[1] if loader.windows else values


def _further_metrics(
    evaluated: EvaluatedModel, values: dict[str, np.ndarray], targets: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    thresholds = Calibration.from_json(evaluated.calibration).thresholds
    return further_metrics([evaluated.layout.output(name) for name in targets], values, targets, thresholds)


def further_targets(layout: TargetLayout, dataset: Dataset) -> dict[str, np.ndarray]:
    """Output besides the first one of classes -> (N, C) targets of the dataset in the model's columns, NaN where it has none."""
    targets = {}
    theirs = {output.name: output for output in dataset.info.layout.outputs}
    for output in layout.outputs:
        if output is layout.first_classes:
            continue
        if output.name in theirs and theirs[output.name].kind == output.kind:
            names, values = theirs[output.name].names, dataset.targets(output.name)
            columns = [names.index(name) if name in names else -1 for name in output.names]
            targets[output.name] = np.column_stack([values, np.full(len(values), np.nan)])[:, columns].astype(np.float32)
    return targets
