"""The teacher of a student: soft labels in a table on the device, or a trained run that predicts every batch.

Axes: B batch, C classes, D features, N samples of the dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affect.engine.calibration.calibration import read_calibration
from affect.engine.config.loss import TeacherConfig
from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.data.selection import train_selection
from affect.engine.distill.features import feature_table
from affect.engine.distill.softlabels import SoftLabels
from affect.engine.evaluation.class_order import same_classes
from affect.engine.losses.base import TeacherOutput
from affect.engine.runs.files import BEST
from affect.engine.runs.trained import trained_model
from affect.engine.system.device import autocast, choose_precision
from affect.engine.system.log import say
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.selection import select


def open_teacher(run: RunConfig, dataset: Dataset, output: str) -> Callable[[torch.device], StoredTeacher | LiveTeacher] | None:
    """Return a function that makes the teacher of a run on a device; None where no term learns from one.

    Raises: InputError where soft labels or features miss a training row, or are of other data or classes.
    """
    config = run.loss.teacher
    if not config:
        return None
    if config.run:
        return lambda device: LiveTeacher(config, run, dataset, output, device)
    logits = features = None
    origins = {}
    if config.soft_labels:
        labels = SoftLabels.read(Path(config.soft_labels), dataset, output)
        logits = _whole(labels.table(config.scale, config.standardize), run, dataset, config.soft_labels)
        origins["soft_labels"] = labels.sha256
    if config.features:
        features = _whole(feature_table(Path(config.features), dataset), run, dataset, config.features)
        origins["features"] = file_sha256(Path(config.features))
    return lambda device: StoredTeacher(logits, features, origins, device)


def _whole(table: np.ndarray, run: RunConfig, dataset: Dataset, path: str) -> np.ndarray:
    """Return the table. Raises InputError where it misses a row that is trained on."""
    rows = select(dataset, train_selection(run.data))
    missing = rows[~np.isfinite(table[rows]).all(1)]
    if len(missing):
        raise InputError(
            f"{path}: {len(missing):,} of {len(rows):,} training rows are not in it, first sample {missing[0]}; write it anew "
            f"from all rows of {dataset.folder}"
        )
    return table


class StoredTeacher:
    """A teacher read from tables: logits (N, C) and features (N, D) by sample number, gathered for each batch."""

    def __init__(
        self, logits: np.ndarray | None, features: np.ndarray | None, origins: dict[str, str], device: torch.device
    ) -> None:
        self.origins, self.device = origins, device
        self.logits = None if logits is None else torch.from_numpy(logits).to(device)
        self.features = None if features is None else torch.from_numpy(features).to(device)

    def __call__(self, batch: Batch) -> TeacherOutput:
        rows = torch.from_numpy(batch.sample).to(self.device, non_blocking=True)
        return TeacherOutput(self.logits, rows, None if self.features is None else self.features[rows])


class LiveTeacher:
    """A teacher that is a trained run: it predicts the very pictures that the student sees."""

    def __init__(self, config: TeacherConfig, run: RunConfig, dataset: Dataset, output: str, device: torch.device) -> None:
        folder = Path(config.run)
        teacher, model, layout = trained_model(folder)
        if (teacher.model.image_size, teacher.data.color) != (run.model.image_size, run.data.color):
            raise InputError(
                f"{folder}: sees {teacher.data.color} pictures of {teacher.model.image_size} px, the student "
                f"{run.data.color} ones of {run.model.image_size}; make them alike, or write soft labels: "
                f"affect softlabels {folder} --data {dataset.folder}"
            )
        if teacher.preprocess.clahe != run.preprocess.clahe:
            say(
                f"warning: {folder} was trained with {teacher.preprocess.clahe}; the student's pictures have "
                f"{run.preprocess.clahe}"
            )
        self.model: nn.Module = model.to(device).requires_grad_(False)
        self.output, self.device, self.standardize = output, device, config.standardize
        self.columns = torch.tensor(same_classes(layout, dataset, output, folder), device=device)
        temperature = read_calibration(folder).temperature if config.scale == "calibrated" else (1.0,)
        self.temperature = torch.tensor(temperature, device=device)
        self.dtype, _ = choose_precision(run.train.precision, device)
        self.origins = {"teacher": file_sha256(folder / BEST)}

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TeacherOutput:
        with autocast(self.dtype, self.device):
            features, outputs = self.model(batch.inputs)
        logits = (outputs[self.output].float() / self.temperature)[:, self.columns]
        return TeacherOutput(_standardized(logits) if self.standardize else logits, None, features.float())


def _standardized(logits: Tensor) -> Tensor:
    """Scale each row to mean 0 and deviation 1, as `SoftLabels.table` does."""
    deviation, mean = torch.std_mean(logits, 1, correction=0, keepdim=True)
    return (logits - mean) / deviation.clamp_min(1e-6)
