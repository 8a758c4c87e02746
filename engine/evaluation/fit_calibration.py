"""The calibration of a run: temperature, thresholds and conformal sets, fitted on the calib rows alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from affect.engine.calibration.calibration import Calibration, fixed
from affect.engine.calibration.conformal import fit_conformal
from affect.engine.calibration.temperature import fit_temperature
from affect.engine.config.run import CalibrationConfig, RunConfig
from affect.engine.evaluation.predictions import LabelledPredictions, Predictions
from affect.engine.metrics.classification import softmax
from affect.engine.metrics.multilabel import FEW_POSITIVES, tuned_thresholds
from affect.engine.system.log import say
from affect.shards.dataset import Dataset
from affect.shards.schema import Output


def fit_calibration(config: CalibrationConfig, dataset: Dataset, first: Output | None, calib: Predictions | None) -> Calibration:
    """Fit all but conformal sets, for which see `with_sets`. first: output of classes. calib: predictions."""
    calibration = Calibration.none("nothing to calibrate: no output of classes")
    if first:
        calibration = calibrated(config, str(dataset.folder), calib.labelled(first) if calib else None)
    return replace(calibration, thresholds=thresholds_of(calib) if calib else {})


def calibrated(config: CalibrationConfig, where: str, calib: LabelledPredictions | None) -> Calibration:
    """The temperature, fitted on the rows that the run may use for it; without such rows it is 1, and the reason is logged."""
    if config.mode == "fixed":
        return fixed(config.temperature)
    if config.mode == "none":
        return Calibration.none("not asked for")
    if calib is None:
        reason = f"{where} has no calib rows to fit on: T = 1. Carve some out of val: affect pack ... --calib 0.3"
        say(f"calibrate: {reason}")
        return Calibration.none(reason)
    return fit_temperature(calib.logits, calib.target, calib.names, config.mode, split="calib")


def thresholds_of(calib: Predictions) -> dict[str, float]:
    """Return the threshold of every unit, by its best F1 on the calib rows; units of too few positives are logged."""
    thresholds: dict[str, float] = {}
    for output in calib.outputs:
        if output.kind == "multilabel":
            target = calib.targets[output.name]
            thresholds |= tuned_thresholds(calib.values[output.name], target, output.names)
            positives = zip(output.names, np.nansum(target, 0), strict=True)
            if few := [name for name, count in positives if count < FEW_POSITIVES]:
                say(f"calibrate: threshold .5 for {', '.join(few)}: fewer than {FEW_POSITIVES} positives on the calib rows")
    return thresholds


def why_no_sets(run: RunConfig, dataset: Dataset, first: Output | None) -> str:
    """Why conformal sets cannot be fitted; empty where they can."""
    if run.data.clip:
        return "it sees clips, and sets hold for stills; leave the coverage out"
    if first is None:
        return "it has no output of classes; leave the coverage out"
    if not dataset.info.counts.get("calib"):
        return f"{dataset.folder} has no calib rows to fit them on. Carve some out of val: affect pack ... --calib 0.3"
    return ""


def with_sets(calibration: Calibration, coverage: float, output: str, calib: LabelledPredictions) -> Calibration:
    """Return the calibration with conformal sets on its probabilities; a warning about the fit is logged."""
    probs, label = softmax(calibration.apply(calib.logits)), calib.target.argmax(1)
    conformal, warning = fit_conformal(probs, label, coverage, output, split="calib")
    if warning:
        say(f"calibrate: {warning}")
    return replace(calibration, conformal=conformal)
