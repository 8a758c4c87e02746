"""Trained runs as members of an ensemble: the logits of each for every row of a dataset, and which rows it was trained on.

Axes: N rows of the dataset by sample number, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affect.engine.calibration.calibration import Calibration, read_calibration
from affect.engine.config.run import Precision, RunConfig
from affect.engine.data.build import eval_loader
from affect.engine.data.selection import train_selection
from affect.engine.distill.softlabels import Scale
from affect.engine.evaluation.class_order import same_classes
from affect.engine.evaluation.evaluated_model import in_torch
from affect.engine.evaluation.predictions import Advance, predict_all
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST
from affect.engine.runs.trained import trained_model
from affect.engine.system.device import autocast, choose_device, choose_precision
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

BATCH = {"cuda": 256}  # pictures at once; 128 elsewhere


@dataclass(frozen=True)
class Member:
    """A trained run whose predictions are combined with those of others.

    names: of its classes. columns: of these, the one for each of the dataset's classes.
    trained_on: (N,) bool; None where it was trained on another dataset. started: from the weights of another run.
    """

    folder: Path
    run: RunConfig
    model: nn.Module
    output: str
    names: tuple[str, ...]
    columns: list[int]
    calibration: Calibration
    trained_on: np.ndarray | None
    started: bool

    def scaled(self, logits: np.ndarray, scale: Scale) -> np.ndarray:
        """Return its (N, C) logits in the dataset's order of classes. Raises InputError where they are not finite."""
        bad = ~np.isfinite(logits).all(1)
        if bad.any():
            raise InputError(
                f"{self.folder}: {bad.sum():,} of {len(bad):,} rows have logits that are not finite, first sample "
                f"{bad.argmax()}; take --precision off, or train it anew"
            )
        return (self.calibration.apply(logits) if scale == "calibrated" else logits)[:, self.columns]


def open_members(runs: Sequence[Path], dataset: Dataset) -> list[Member]:
    """Open the runs. Raises InputError where one is no run, or is of another task or of other classes than the dataset's."""
    members = [_open(folder, dataset) for folder in runs]
    for member in members:
        if member.output != members[0].output:
            raise InputError(
                f"{member.folder}: was trained for {member.output!r}, {members[0].folder} for {members[0].output!r}; "
                "take runs of one task"
            )
    return members


def _open(folder: Path, dataset: Dataset) -> Member:
    run, model, layout = trained_model(folder)
    output = layout.outputs[0]
    has = [o.name for o in dataset.info.layout.outputs if o.kind == "classes"]
    if output.kind != "classes" or output.name not in has:
        raise InputError(
            f"{folder}: a run of {run.task}, trained for {output.name!r} ({output.kind}); {dataset.folder} has the classes of "
            f"{', '.join(has) or 'nothing'}; take a run of those, or pack the data with such labels"
        )
    trained_on, origins = None, load(folder / BEST)["fingerprint"]
    if origins["index"] == dataset.index_sha256:
        trained_on = np.zeros(dataset.info.num_samples, bool)
        trained_on[dataset.rows(train_selection(run.data))] = True
    columns, calibration = same_classes(layout, dataset, output.name, folder), read_calibration(folder)
    return Member(folder, run, model, output.name, output.names, columns, calibration, trained_on, "init" in origins)


def infer(members: list[Member], dataset: Dataset, precision: Precision, *, flip: bool = False) -> tuple[list[np.ndarray], str]:
    """Return each member's logits (N, C) float32 of its evaluation view, and the floating-point types they were computed in.

    flip: the mean over the view and its mirror image.
    Members that see the same pictures share a pass over the dataset.
    """
    passes: dict[Any, list[int]] = {}
    for i, member in enumerate(members):
        run = member.run
        passes.setdefault((run.preprocess, run.train.device, run.data.loader, run.data.workers), []).append(i)
    of_member: dict[int, np.ndarray] = {}
    dtypes = set()
    with Progress("softlabels", dataset.info.num_samples * len(passes), "images") as progress:
        for group in passes.values():
            logits, dtype = _pass([members[i] for i in group], dataset, precision, flip, progress.advance)
            of_member |= dict(zip(group, logits, strict=True))
            dtypes.add(dtype)
    return [of_member[i] for i in range(len(members))], "+".join(sorted(dtypes))


def _pass(
    members: list[Member], dataset: Dataset, precision: Precision, flip: bool, advance: Advance
) -> tuple[list[np.ndarray], str]:
    run = members[0].run
    device = choose_device(run.train.device)
    dtype, why = choose_precision(precision, device)
    name = str(dtype or torch.float32).removeprefix("torch.")
    if precision != "off":
        say(f"softlabels: computed in {name} ({why})")
    loader = eval_loader(
        dataset,
        np.arange(dataset.info.num_samples),
        run.preprocess,
        (),
        device,
        batch=BATCH.get(device.type, 128),
        kind=run.data.loader,
        workers=run.data.workers,
    )
    logits = predict_all(_together(members, dtype, device, flip), loader, advance)
    return [logits[str(i)] for i in range(len(members))], name


def _together(
    members: list[Member], dtype: torch.dtype | None, device: torch.device, flip: bool
) -> Callable[[torch.Tensor], dict[str, np.ndarray]]:
    """Return a function of pictures to the logits of several models, by their positions."""
    each = [in_torch(member.model.to(device)) for member in members]

    def predict(images: torch.Tensor) -> dict[str, np.ndarray]:
        views = [images, images.flip(2)] if flip else [images]
        with autocast(dtype, device):
            logits = {str(i): [one(view)[members[i].output] for view in views] for i, one in enumerate(each)}
        return {name: np.mean(of, axis=0) for name, of in logits.items()}

    return predict
