"""A run from its configuration to everything that its folder keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.calibration.calibration import CALIBRATION, Calibration, fixed, read_calibration
from affect.engine.calibration.conformal import coverage_figures, fit_conformal
from affect.engine.calibration.temperature import fit_temperature
from affect.engine.config.run import CalibrationConfig, RunConfig
from affect.engine.data.build import eval_loader
from affect.engine.data.selection import calib_selection, open_dataset, val_selection
from affect.engine.distill.teacher import open_teacher
from affect.engine.evaluation.evaluate import write_metrics
from affect.engine.evaluation.evaluated_model import in_torch
from affect.engine.evaluation.predictions import Predicted, Predictions, predicted
from affect.engine.evaluation.scorer import Scorer
from affect.engine.export.export_run import export_run
from affect.engine.metrics.classification import (
    classification,
    macro_f1_interval,
    reliability,
    reliability_bins,
    softmax,
)
from affect.engine.metrics.multilabel import FEW_POSITIVES, tuned_thresholds
from affect.engine.metrics.output_metrics import all_figures, further_metrics
from affect.engine.package.model_package import ModelPackage
from affect.engine.report.criteria import criteria_table
from affect.engine.report.plots import curves_plot, reliability_plot, scalars_plot, units_plot
from affect.engine.report.render import markdown
from affect.engine.runs.files import CRITERIA, METRICS, RELIABILITY
from affect.engine.runs.folder import read_history, write_json
from affect.engine.runs.trained import trained_model
from affect.engine.system.device import choose_device
from affect.engine.system.distributed import first_process
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.engine.tasks import TASKS
from affect.engine.training.auto_batch_size import with_batch_size
from affect.engine.training.diagnostics import Hints
from affect.engine.training.early_stopping import best_epoch
from affect.engine.training.task_outputs import task_of
from affect.engine.training.trackers import tracker
from affect.engine.training.trainer import fit
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.schema import Output


def train(
    run: RunConfig, out: Path, *, resume: bool = False, init_from: Path | None = None, continue_from: Path | None = None
) -> None:
    """Train, calibrate, evaluate, export: everything a run's folder keeps. init_from, continue_from: see `fit`."""
    dataset = open_dataset(run.data.dataset)
    task = task_of(run, dataset)
    run = with_batch_size(run, task, dataset.info.layout, out if resume else None)
    hints = Hints(run)
    with tracker([*run.train.track], out, out.name, run.model_dump(mode="json")) as tracked:

        def log(line: dict[str, Any]) -> None:
            tracked.log(line)
            hints.log(line)

        teacher = open_teacher(run, dataset, task.outputs[0])
        fit(
            run, task, dataset, out, Scorer(run, task, dataset), resume=resume, init_from=init_from, log=log,
            open_teacher=teacher, continue_from=continue_from,
        )  # fmt: skip
    if first_process():
        complete(out)


def complete(folder: Path, calibration: CalibrationConfig | None = None) -> ModelPackage:
    """What a run keeps besides its checkpoints: calibration, figures, plots, graphs and the package.

    calibration: in place of the run's own. What is fitted is fitted on the calib rows, the figures are of the validation rows.
    Raises: InputError, with nothing written, where conformal sets are asked for in it that cannot be fitted.
    """
    run, model, layout = trained_model(folder)
    dataset, outputs, device = open_dataset(run.data.dataset), layout.outputs, choose_device(run.train.device)
    predict, names = in_torch(model.to(device)), tuple(output.name for output in outputs)

    def answers(rows: np.ndarray, what: str) -> Predicted:
        kind, workers = run.data.loader, run.data.workers
        clip = run.data.clip
        loader = eval_loader(
            dataset, rows, run.preprocess, names, device, clip=clip, kind=kind, workers=workers, side=run.data.side
        )
        with Progress(what, len(loader.order.rows), "clips" if clip else "images") as progress:
            return predicted(predict, loader, outputs, progress.advance)

    calib, first, config = None, layout.first_classes, calibration or run.calibration
    why_not = no_sets(run, dataset, first) if config.coverage else ""
    if calibration and why_not:
        raise InputError(f"{folder}: no conformal sets: {why_not}")
    if dataset.info.counts.get("calib"):
        calib = answers(dataset.rows(calib_selection(run.data)), "calibrate")
    found = Calibration.none("nothing to calibrate: no output of classes")
    if first:
        found = calibrated(config, str(dataset.folder), calib.of(first) if calib else None)
    found = replace(found, thresholds=thresholds_of(calib) if calib else {})
    if why_not:
        say(f"calibrate: no conformal sets: {why_not}")
    elif config.coverage and first and calib:
        found = with_sets(found, config.coverage, first.name, calib.of(first))
    if not found.conformal and (before := read_calibration(folder).conformal):
        say(f"calibrate: the conformal sets for coverage {before.coverage:g} held under the old temperature, and are left out")
    write_json(folder / CALIBRATION, found.to_json())
    said, history = answers(dataset.rows(val_selection(run.data)), "evaluate"), read_history(folder)
    best = best_epoch(history, run.optim.select_by or TASKS[run.task].select_by, run.optim.keep)
    metrics = classes_metrics(said.of(first), found) if first else {}
    metrics |= {"model": str(folder), "epoch": best, "split": run.data.val_split, "label_protocol": dataset.info.label_protocol}
    further = [output for output in outputs if output is not first]
    metrics["outputs"] = further_metrics(further, said.values, said.targets, found.thresholds)
    metrics["calibration"] = found.to_json()
    if found.conformal and first:
        rows = said.of(first)
        metrics["conformal"] = coverage_figures(
            found.conformal, softmax(found.apply(rows.logits)), rows.target.argmax(1), rows.names
        )
    if said.windows:  # beside the figures of whole clips those of each window by itself
        metrics["windows"] = all_figures(outputs, said.windows.values, said.windows.targets)
    if "gap" in history[best]["val"]:
        metrics["gap"] = history[best]["val"]["gap"]
    write_json(folder / METRICS, metrics)
    if first:
        val = said.of(first)
        write_json(folder / RELIABILITY, reliability_report(val, found, best, run.data.val_split, dataset.info.label_protocol))
        write_metrics(metrics, found.apply(val.logits), val.target, folder)
        reliability_plot(_bins(val, None), _bins(val, found) if found.mode != "none" else None, folder / "reliability.png")
    write_criteria(run, metrics, folder)
    curves_plot(history, folder / "curves.png", best)
    output_plots(further, said, metrics["outputs"], folder)
    return export_run(folder)


def classes_metrics(val: Predictions, calibration: Calibration) -> dict[str, Any]:
    metrics = classification(calibration.apply(val.logits), val.target, val.names)
    return metrics | {"macro_f1_interval": macro_f1_interval(np.array(metrics["confusion"]))}


def output_plots(outputs: Sequence[Output], said: Predicted, figures: dict[str, dict[str, Any]], folder: Path) -> None:
    """`<output>.png`: a bar a unit, or said against labelled of each scalar."""
    for output in outputs:
        if output.name in figures and output.kind == "multilabel":
            units_plot(figures[output.name]["units"], folder / f"{output.name}.png")
        elif output.name in figures and output.kind == "scalars":
            scalars_plot(said.values[output.name], said.targets[output.name], output.names, folder / f"{output.name}.png")


def calibrated(config: CalibrationConfig, where: str, rows: Predictions | None) -> Calibration:
    """Fitted on the rows that the run may use for it; without such rows there is none, and the reason is said."""
    if config.mode == "fixed":
        return fixed(config.temperature)
    if config.mode == "none":
        return Calibration.none("not asked for")
    if rows is None:
        found = Calibration.none(
            f"{where} has no calib rows to fit on: T = 1. Carve some out of val: affect pack ... --calib 0.3"
        )
        say(f"calibrate: {found.note}")
        return found
    return fit_temperature(rows.logits, rows.target, rows.names, config.mode, split="calib")


def no_sets(run: RunConfig, dataset: Dataset, first: Output | None) -> str:
    """Why conformal sets cannot be fitted; empty where they can."""
    if run.data.clip:
        return "it sees clips, and sets hold for stills; leave the coverage out"
    if first is None:
        return "it has no output of classes; leave the coverage out"
    if not dataset.info.counts.get("calib"):
        return f"{dataset.folder} has no calib rows to fit them on. Carve some out of val: affect pack ... --calib 0.3"
    return ""


def with_sets(found: Calibration, coverage: float, output: str, calib: Predictions) -> Calibration:
    """With conformal sets on its probabilities; what to warn of is said."""
    probs, label = softmax(found.apply(calib.logits)), calib.target.argmax(1)
    conformal, remark = fit_conformal(probs, label, coverage, output, split="calib")
    if remark:
        say(f"calibrate: {remark}")
    return replace(found, conformal=conformal)


def thresholds_of(calib: Predicted) -> dict[str, float]:
    """Of every unit, by its best F1 on the calib rows; those of too few positives are said."""
    found: dict[str, float] = {}
    for output in calib.outputs:
        if output.kind == "multilabel":
            target = calib.targets[output.name]
            found |= tuned_thresholds(calib.values[output.name], target, output.names)
            few = [name for name, held in zip(output.names, np.nansum(target, 0), strict=True) if held < FEW_POSITIVES]
            if few:
                say(f"calibrate: threshold .5 for {', '.join(few)}: fewer than {FEW_POSITIVES} positives on the calib rows")
    return found


def write_criteria(run: RunConfig, metrics: dict[str, Any], folder: Path) -> None:
    """criteria.md of a task that has some; also said."""
    criteria = TASKS[run.task].criteria
    if criteria:
        text = markdown(criteria_table(criteria, metrics))
        (folder / CRITERIA).write_text(text, encoding="utf-8")
        say(text.rstrip())


def reliability_report(val: Predictions, calibration: Calibration, epoch: int, split: str, protocol: str) -> dict[str, Any]:
    """reliabilitymetrics.json: raw and temperature-scaled, of all rows and of each source, there over the classes it has."""

    def both(keep: np.ndarray, *, present_only: bool) -> dict[str, Any]:
        def figures(logits: np.ndarray) -> dict[str, Any]:
            return reliability(logits, val.target[keep], val.names, present_only=present_only)

        logits, scaled = val.logits[keep], None
        if calibration.mode != "none":
            scaled = figures(calibration.apply(logits)) | {"temperature": list(calibration.temperature)}
        return {"raw": figures(logits), "temperature_scaled": scaled}

    rows = len(val.logits)
    return {
        "epoch": epoch, "split": split, "label_protocol": protocol, "rows": rows,
        **both(np.ones(rows, bool), present_only=False),
        "sources": {source: both(val.sources == source, present_only=True) for source in sorted(set(val.sources))},
    }  # fmt: skip


def _bins(val: Predictions, calibration: Calibration | None) -> dict[str, np.ndarray]:
    probs = softmax(calibration.apply(val.logits) if calibration else val.logits)
    return reliability_bins(probs, probs.argmax(1) == val.target.argmax(1))
