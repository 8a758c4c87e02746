"""All figures of class predictions on a set, written into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.evaluation.evaluated_model import EvaluatedModel
from affect.engine.evaluation.output_folder import beside_validation, default_out, is_validation
from affect.engine.evaluation.predictions import LabelledPredictions
from affect.engine.metrics.classification import classification, macro_f1_interval, reliability
from affect.engine.report.mcnemar import write_predictions
from affect.engine.report.plots import confusion_plot
from affect.engine.report.run_figures import CHOSEN_MARK, Figures, chosen_on, mark
from affect.engine.runs.files import METRICS
from affect.engine.runs.folder import write_json


def judge(
    predictions: LabelledPredictions, evaluated: EvaluatedModel, what: dict[str, Any], counts: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """Write and return the figures. what: see `output_folder.WHAT`. counts: of the rows left out and rejected.

    out: default: see `default_out`.
    """
    logits, target, names = predictions.logits, predictions.target, predictions.names
    metrics = classification(logits, target, names) | what | counts
    honesty = reliability(logits, target, names)
    metrics |= {name: honesty[name] for name in ("nll_majority", "ece", "ece_votes")}
    metrics["macro_f1_interval"] = macro_f1_interval(np.array(metrics["confusion"]))
    metrics |= {"calibration": evaluated.calibration, "sources": figures_by_source(predictions)}
    if evaluated.run:
        of_set = Figures.of(metrics, str(what["dataset"]))
        metrics["used_to_choose"] = mark(Path(str(what["dataset"])).stem, of_set, chosen_on(evaluated.run)) == CHOSEN_MARK
        if not is_validation(evaluated.run, what["dataset"], what["split"] or ""):
            metrics["beside_validation"] = beside_validation(evaluated.run, metrics)
    out = out or default_out(Path(what["model"]), what)
    out.mkdir(parents=True, exist_ok=True)
    write_metrics(metrics, logits, target, out)
    return metrics | {"out": str(out)}


def figures_by_source(predictions: LabelledPredictions) -> dict[str, dict[str, float]]:
    """source -> its rows and figures; macro-F1 is over the classes that it has."""
    names, codes = np.unique(predictions.sources.astype(str), return_inverse=True)
    figures = {}
    for i, name in enumerate(names.tolist()):
        logits, target = predictions.logits[codes == i], predictions.target[codes == i]
        values = reliability(logits, target, predictions.names, present_only=True)
        figures[name] = {key: values[key] for key in ("rows", "accuracy", "macro_f1", "macro_f1_classes", "bacc")}
    return figures


def write_metrics(metrics: dict[str, Any], logits: np.ndarray, target: np.ndarray, out: Path) -> None:
    """Write metrics.json, the label and the prediction of each row, and the confusions, of all classes and of those that occur.

    logits: (N, C), calibrated. target: (N, C).
    """
    names = tuple(metrics["per_class"])
    write_json(out / METRICS, metrics)
    write_predictions(out, target.argmax(1), logits.argmax(1), names)
    confusion_plot(np.array(metrics["confusion"]), names, out / "confmat.png")
    present = metrics["present_only"]
    confusion_plot(np.array(present["confusion"]), present["present_names"], out / "confmat_present.png")
