"""The figures of an output by its kind: at the end of an epoch, and of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from affect.engine.metrics.classification import classification
from affect.engine.metrics.multilabel import unit_figures
from affect.engine.metrics.regression import TOTAL, scalar_figures
from affect.shards.schema import Output

OF_CLASS = "f1."  # and the name of a minority class: its F1, among the figures of an epoch in history.json


def labelled(output: Output, target: np.ndarray) -> np.ndarray:
    """(N,) rows that have a label: a whole distribution of classes, any unit, any scalar."""
    known = ~np.isnan(target)
    return known.all(1) if output.kind == "classes" else known.any(1)


def epoch_figures(output: Output, values: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Name -> number, of labelled rows. values: (N, C) logits, or scalars in their units. target: (N, C).

    classes: accuracy, macro_f1, bacc, nll, min_f1 (of the class that is worst, among those that occur), f1.<name> of
        the minority classes.
    multilabel: macro_f1, macro_auc. scalars: r2, mae, the means over them; total_r2, total_mae where one is the total.
    """
    if output.kind == "classes":
        metrics = classification(values, target, output.names)
        way, f1 = metrics[f"{len(output.names)}way"], {name: of["f1"] for name, of in metrics["per_class"].items()}
        return {
            "accuracy": way["acc"],
            "macro_f1": way["macro_f1"],
            "bacc": way["bacc"],
            "nll": metrics["nll"],
            "min_f1": min(f1[name] for name in metrics["present_only"]["present_names"]),
            **{f"{OF_CLASS}{name}": f1[name] for name in metrics["minority"]},
        }
    if output.kind == "multilabel":
        metrics = unit_figures(values, target, output.names)
        return {name: metrics[name] for name in ("macro_f1", "macro_auc")}
    metrics = scalar_figures(values, target, output.names)
    figures = {name: metrics[name] for name in ("r2", "mae")}
    if TOTAL in output.names:
        figures |= {f"{TOTAL}_{name}": metrics["scalars"][TOTAL][name] for name in ("r2", "mae")}
    return {name: float("nan") if value is None else value for name, value in figures.items()}


def all_figures(
    outputs: Sequence[Output], values: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return the figures of each output with a labelled row: the first one's by their names, the others' as `<output>_<name>`."""
    figures: dict[str, float] = {}
    for i, output in enumerate(outputs):
        rows = labelled(output, targets[output.name])
        if rows.any():
            of_output = epoch_figures(output, values[output.name][rows], targets[output.name][rows])
            figures |= {f"{output.name}_{name}" if i else name: value for name, value in of_output.items()}
    return figures


def further_metrics(
    outputs: Sequence[Output],
    values: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, dict[str, Any]]:
    """Everything of the outputs after the first, by name, for metrics.json; of those with labelled rows."""
    metrics: dict[str, dict[str, Any]] = {}
    for output in outputs:
        value, target = values[output.name], targets[output.name]
        rows = labelled(output, target)
        if rows.any():
            metrics[output.name] = metrics_of(output, value[rows], target[rows], thresholds)
    return metrics


def metrics_of(
    output: Output, values: np.ndarray, target: np.ndarray, thresholds: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the figures of labelled rows."""
    if output.kind == "classes":
        return classification(values, target, output.names)
    if output.kind == "multilabel":
        return unit_figures(values, target, output.names, thresholds)
    return scalar_figures(values, target, output.names)
