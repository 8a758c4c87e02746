"""The figures of a finished run on its validation rows, and the files that show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.calibration.calibration import Calibration
from affect.engine.calibration.conformal import coverage_figures
from affect.engine.evaluation.class_figures import write_metrics
from affect.engine.evaluation.predictions import LabelledPredictions, Predictions
from affect.engine.metrics.classification import classification, macro_f1_interval, reliability, reliability_bins, softmax
from affect.engine.metrics.output_metrics import all_figures, further_metrics
from affect.engine.report.criteria import criteria_table
from affect.engine.report.plots import curves_plot, reliability_plot, scalars_plot, units_plot
from affect.engine.report.render import markdown
from affect.engine.runs.files import CRITERIA, RELIABILITY
from affect.engine.runs.folder import write_json
from affect.engine.system.log import say
from affect.engine.tasks import TASKS
from affect.shards.schema import Output


def run_metrics(val: Predictions, calibration: Calibration, about: dict[str, Any]) -> dict[str, Any]:
    """metrics.json. about: which model, epoch and rows the figures are of."""
    first = val.first_classes
    metrics = classes_metrics(val.labelled(first), calibration) if first else {}
    metrics |= about
    metrics["outputs"] = further_metrics(val.further, val.values, val.targets, calibration.thresholds)
    metrics["calibration"] = calibration.to_json()
    if calibration.conformal and first:
        rows = val.labelled(first)
        probs = softmax(calibration.apply(rows.logits))
        metrics["conformal"] = coverage_figures(calibration.conformal, probs, rows.target.argmax(1), rows.names)
    if val.windows:  # beside the figures of whole clips those of each window by itself
        metrics["windows"] = all_figures(val.outputs, val.windows.values, val.windows.targets)
    return metrics


def classes_metrics(val: LabelledPredictions, calibration: Calibration) -> dict[str, Any]:
    metrics = classification(calibration.apply(val.logits), val.target, val.names)
    return metrics | {"macro_f1_interval": macro_f1_interval(np.array(metrics["confusion"]))}


def write_reports(
    folder: Path, task: str, val: Predictions, calibration: Calibration, metrics: dict[str, Any], history: list[dict[str, Any]]
) -> None:
    """Write the files that show the figures: reliability, confusions, criteria, curves, and a plot of each further output."""
    if val.first_classes:
        rows = val.labelled(val.first_classes)
        write_json(folder / RELIABILITY, reliability_report(rows, calibration, metrics))
        write_metrics(metrics, calibration.apply(rows.logits), rows.target, folder)
        scaled = _bins(rows, calibration) if calibration.mode != "none" else None
        reliability_plot(_bins(rows, None), scaled, folder / "reliability.png")
    write_criteria(task, metrics, folder)
    curves_plot(history, folder / "curves.png", metrics["epoch"])
    for output in val.further:
        if output.name in metrics["outputs"]:
            output_plot(output, val, metrics["outputs"][output.name], folder)


def output_plot(output: Output, val: Predictions, figures: dict[str, Any], folder: Path) -> None:
    """`<output>.png`: a bar a unit, or the predicted against the true value of each scalar."""
    path = folder / f"{output.name}.png"
    if output.kind == "multilabel":
        units_plot(figures["units"], path)
    elif output.kind == "scalars":
        scalars_plot(val.values[output.name], val.targets[output.name], output.names, path)


def write_criteria(task: str, metrics: dict[str, Any], folder: Path) -> None:
    """criteria.md of a task that has some; it is logged, too."""
    criteria = TASKS[task].criteria
    if criteria:
        text = markdown(criteria_table(criteria, metrics))
        (folder / CRITERIA).write_text(text, encoding="utf-8")
        say(text.rstrip())


def reliability_report(val: LabelledPredictions, calibration: Calibration, about: dict[str, Any]) -> dict[str, Any]:
    """reliabilitymetrics.json: raw and temperature-scaled, of all rows and of each source, there over the classes it has.

    about: epoch, split and label_protocol.
    """

    def both(rows: np.ndarray, *, present_only: bool) -> dict[str, Any]:
        def figures(logits: np.ndarray) -> dict[str, Any]:
            return reliability(logits, val.target[rows], val.names, present_only=present_only)

        logits, scaled = val.logits[rows], None
        if calibration.mode != "none":
            scaled = figures(calibration.apply(logits)) | {"temperature": list(calibration.temperature)}
        return {"raw": figures(logits), "temperature_scaled": scaled}

    count = len(val.logits)
    return {
        **{key: about[key] for key in ("epoch", "split", "label_protocol")},
        "rows": count,
        **both(np.ones(count, bool), present_only=False),
        "sources": {source: both(val.sources == source, present_only=True) for source in sorted(set(val.sources))},
    }


def _bins(val: LabelledPredictions, calibration: Calibration | None) -> dict[str, np.ndarray]:
    probs = softmax(calibration.apply(val.logits) if calibration else val.logits)
    return reliability_bins(probs, probs.argmax(1) == val.target.argmax(1))
