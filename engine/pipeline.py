"""A run from its configuration to everything that its folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from affect.engine.calibration.calibration import CALIBRATION, Calibration, read_calibration
from affect.engine.config.run import CalibrationConfig, RunConfig
from affect.engine.data.build import eval_loader
from affect.engine.data.selection import calib_selection, open_dataset, val_selection
from affect.engine.distill.teacher import open_teacher
from affect.engine.evaluation.evaluated_model import in_torch
from affect.engine.evaluation.fit_calibration import fit_calibration, why_no_sets, with_sets
from affect.engine.evaluation.predictions import Predictions, predict_samples
from affect.engine.evaluation.run_reports import run_metrics, write_reports
from affect.engine.evaluation.scorer import Scorer
from affect.engine.export.export_run import export_run
from affect.engine.package.model_package import ModelPackage
from affect.engine.runs.files import METRICS
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
from affect.shards.schema import Output, TargetLayout


def train(
    run: RunConfig, out: Path, *, resume: bool = False, init_from: Path | None = None, continue_from: Path | None = None
) -> None:
    """Train, then `complete` the run's folder. init_from, continue_from: see `fit`."""
    dataset = open_dataset(run.data.dataset)
    task = task_of(run, dataset)
    run = with_batch_size(run, task, dataset.info.layout, out if resume else None)
    hints = Hints(run)
    with tracker([*run.train.track], out, out.name, run.model_dump(mode="json")) as track:

        def log(line: dict[str, Any]) -> None:
            track.log(line)
            hints.log(line)

        teacher = open_teacher(run, dataset, task.outputs[0])
        fit(
            run,
            task,
            dataset,
            out,
            Scorer(run, task, dataset),
            resume=resume,
            init_from=init_from,
            log=log,
            open_teacher=teacher,
            continue_from=continue_from,
        )
    if first_process():
        complete(out)


def complete(folder: Path, calibration: CalibrationConfig | None = None) -> ModelPackage:
    """Write what a run holds besides its checkpoints: calibration, figures, plots, graphs and the package.

    calibration: in place of the run's own. What is fitted is fitted on the calib rows, the figures are of the validation rows.
    Raises: InputError, with nothing written, where it asks for conformal sets that cannot be fitted.
    """
    trained = TrainedRun(folder, *trained_model(folder))
    trained.check_coverage(calibration)
    calib, val = predict(trained)
    fitted = calibrate(trained, calibration or trained.run.calibration, calib)
    metrics = measure(trained, val, fitted)
    write_reports(folder, trained.run.task, val, fitted, metrics, trained.history)
    return export_run(folder)


@dataclass(frozen=True)
class TrainedRun:
    """The folder of a run that has been trained, opened. model: the best, on the CPU."""

    folder: Path
    run: RunConfig
    model: nn.Module
    layout: TargetLayout

    @cached_property
    def dataset(self) -> Dataset:
        return open_dataset(self.run.data.dataset)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        return read_history(self.folder)

    @property
    def first(self) -> Output | None:
        """The output that is calibrated."""
        return self.layout.first_classes

    @property
    def best_epoch(self) -> int:
        optim = self.run.optim
        return best_epoch(self.history, optim.select_by or TASKS[self.run.task].select_by, optim.keep)

    def check_coverage(self, config: CalibrationConfig | None) -> None:
        """Raises InputError where conformal sets are wanted and cannot be fitted."""
        reason = why_no_sets(self.run, self.dataset, self.first)
        if config and config.coverage and reason:
            raise InputError(f"{self.folder}: no conformal sets: {reason}")


def predict(trained: TrainedRun) -> tuple[Predictions | None, Predictions]:
    """Predictions of the calib rows, None where there are none, and of the validation rows."""
    run, dataset, device = trained.run, trained.dataset, choose_device(trained.run.train.device)
    model, outputs = in_torch(trained.model.to(device)), trained.layout.outputs
    names = tuple(output.name for output in outputs)

    def predictions(rows: np.ndarray, verb: str) -> Predictions:
        loader = eval_loader(
            dataset,
            rows,
            run.preprocess,
            names,
            device,
            clip=run.data.clip,
            kind=run.data.loader,
            workers=run.data.workers,
            side=run.data.side,
        )
        with Progress(verb, len(loader.order.rows), "clips" if run.data.clip else "images") as progress:
            return predict_samples(model, loader, outputs, progress.advance)

    has_calib = dataset.info.counts.get("calib")
    calib = predictions(dataset.rows(calib_selection(run.data)), "calibrate") if has_calib else None
    return calib, predictions(dataset.rows(val_selection(run.data)), "evaluate")


def calibrate(trained: TrainedRun, config: CalibrationConfig, calib: Predictions | None) -> Calibration:
    """Fit on the calib rows, and write calibration.json."""
    first, reason = trained.first, why_no_sets(trained.run, trained.dataset, trained.first)
    fitted = fit_calibration(config, trained.dataset, first, calib)
    if config.coverage and reason:
        say(f"calibrate: no conformal sets: {reason}")
    elif config.coverage and first and calib:
        fitted = with_sets(fitted, config.coverage, first.name, calib.labelled(first))
    if not fitted.conformal and (before := read_calibration(trained.folder).conformal):
        say(f"calibrate: the conformal sets for coverage {before.coverage:g} held under the old temperature, and are left out")
    write_json(trained.folder / CALIBRATION, fitted.to_json())
    return fitted


def measure(trained: TrainedRun, val: Predictions, calibration: Calibration) -> dict[str, Any]:
    """The figures of the validation rows, written as metrics.json."""
    best = trained.best_epoch
    about = {
        "model": str(trained.folder),
        "epoch": best,
        "split": trained.run.data.val_split,
        "label_protocol": trained.dataset.info.label_protocol,
    }
    metrics = run_metrics(val, calibration, about)
    if "gap" in trained.history[best]["val"]:
        metrics["gap"] = trained.history[best]["val"]["gap"]
    write_json(trained.folder / METRICS, metrics)
    return metrics
