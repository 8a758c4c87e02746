"""A run from its configuration to everything that its folder keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.batchsize import with_batch_size
from affect.engine.calibrate import Calibration, fit_temperature, fixed
from affect.engine.config import CalibrationConfig, RunConfig
from affect.engine.data.loader import eval_loader
from affect.engine.data.selection import calib_selection, open_dataset, val_selection
from affect.engine.device import choose_device
from affect.engine.distill.teacher import open_teacher
from affect.engine.evaluation.evaluate import Predictions, in_torch, predictions, scorer, trained_model, write_metrics
from affect.engine.export.export import export_run
from affect.engine.log import say
from affect.engine.metrics import classification, reliability, reliability_bins, softmax
from affect.engine.package import ModelPackage
from affect.engine.progress import Progress
from affect.engine.ranks import first_process
from affect.engine.report.plots import curves_plot, reliability_plot
from affect.engine.report.tables import CALIBRATION, RELIABILITY
from affect.engine.run import read_history, write_json
from affect.engine.tasks import TASKS
from affect.engine.tracking import tracker
from affect.engine.train import fit
from affect.shards.read import Dataset


def train(run: RunConfig, out: Path, *, resume: bool = False, init_from: Path | None = None) -> None:
    """Train, calibrate, evaluate, export: everything a run's folder keeps."""
    task, dataset = TASKS[run.task], open_dataset(run.data.dataset)
    run = with_batch_size(run, task, dataset.info.layout, out if resume else None)
    with tracker([*run.train.track], out, out.name, run.model_dump(mode="json")) as tracked:
        teacher = open_teacher(run, dataset, task.outputs[0])
        fit(
            run, task, dataset, out, scorer(run, task, dataset), resume=resume, init_from=init_from, log=tracked.log,
            open_teacher=teacher,
        )  # fmt: skip
    if first_process():
        complete(out)


def complete(folder: Path, calibration: CalibrationConfig | None = None) -> ModelPackage:
    """What a run keeps besides its checkpoints: calibration, figures, plots, graphs and the package.

    calibration: in place of the run's own. The temperature is fitted on the calib rows, the figures are of the validation rows.
    """
    run, model, layout = trained_model(folder)
    dataset, output, device = open_dataset(run.data.dataset), layout.outputs[0].name, choose_device(run.train.device)
    predict = in_torch(model.to(device))

    def predicted(rows: np.ndarray, what: str) -> Predictions:
        kind, workers = run.data.loader, run.data.workers
        loader = eval_loader(dataset, rows, run.preprocess, (output,), device, kind=kind, workers=workers)
        with Progress(what, len(rows), "images") as progress:
            return predictions(predict, loader, output, progress.advance)

    found = calibrated(calibration or run.calibration, run, dataset, lambda rows: predicted(rows, "calibrate"))
    write_json(folder / CALIBRATION, found.to_json())
    val = predicted(dataset.rows(val_selection(run.data)), "evaluate")
    history = read_history(folder)
    best = best_epoch(history, TASKS[run.task].select_by)
    write_json(folder / RELIABILITY, reliability_report(val, found, best, run.data.val_split, dataset.info.label_protocol))
    logits = found.apply(val.logits)
    metrics = classification(logits, val.target, val.names)
    metrics |= {"model": str(folder), "split": run.data.val_split, "label_protocol": dataset.info.label_protocol}
    metrics["calibration"] = found.to_json()
    write_metrics(metrics, logits, val.target, folder)
    reliability_plot(_bins(val, None), _bins(val, found) if found.mode != "none" else None, folder / "reliability.png")
    curves_plot(history, folder / "curves.png", best)
    return export_run(folder)


def calibrated(
    config: CalibrationConfig, run: RunConfig, dataset: Dataset, predicted: Callable[[np.ndarray], Predictions]
) -> Calibration:
    """Fitted on the rows that the run may use for it; without such rows there is none, and the reason is said."""
    if config.mode == "fixed":
        return fixed(config.temperature)
    if config.mode == "none":
        return Calibration.none("not asked for")
    if not dataset.info.counts.get("calib"):
        found = Calibration.none(
            f"{dataset.folder} has no calib rows to fit on: T = 1. Carve some out of val: affect pack ... --calib 0.3"
        )
        say(f"calibrate: {found.note}")
        return found
    rows = predicted(dataset.rows(calib_selection(run.data)))
    return fit_temperature(rows.logits, rows.target, rows.names, config.mode, split="calib")


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


def best_epoch(history: list[dict[str, Any]], metric: str) -> int:
    """The first of the best, of those whose model could be the result."""
    return max((line for line in history if line["final_head"]), key=lambda line: line["val"][metric])["epoch"]


def _bins(val: Predictions, calibration: Calibration | None) -> dict[str, np.ndarray]:
    probs = softmax(calibration.apply(val.logits) if calibration else val.logits)
    return reliability_bins(probs, probs.argmax(1) == val.target.argmax(1))
