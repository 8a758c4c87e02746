"""Batches on the device, from any step on, without end."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from affect.engine.config.preprocess import too_large
from affect.engine.data import opencv
from affect.engine.data.batch import Batch
from affect.engine.data.batch_plan import Plan, Planner
from affect.engine.data.clip_view import Windows
from affect.engine.data.damage import damage
from affect.engine.data.mixup import mixed
from affect.engine.data.side_signals import side_values
from affect.engine.data.watchdog import Watchdog
from affect.engine.system.log import say
from affect.shards.dataset import Dataset
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.sampler import Order

SUSPECTS = 4  # steps that pipelines are ahead: among their samples is the damaged one


class Loader:
    """Makes the batches of an order. kind: `dali`, `plain` (OpenCV), or `auto`, which chooses.

    targets: output -> (N, C) float32 by sample, NaN where not labelled. side: columns of the index that come with clips.
    """

    def __init__(
        self,
        planner: Planner,
        outputs: tuple[str, ...],
        device: torch.device,
        kind: str,
        workers: int,
        side: Sequence[str] = (),
    ) -> None:
        self.planner, self.device, self.workers = planner, device, workers or default_workers(device)
        self.kind = _choose_kind(kind, planner, self.device)
        self.targets = {name: torch.from_numpy(planner.dataset.targets(name)) for name in outputs}
        self.weight = torch.tensor(planner.dataset.column("weight"))
        self.side = torch.from_numpy(side_values(planner.dataset, side)) if side else None

    @property
    def dataset(self) -> Dataset:
        return self.planner.dataset

    @property
    def order(self) -> Order:
        return self.planner.order

    @property
    def samples(self) -> np.ndarray:
        """(R,) int64 the sample of each row of the order."""
        return self.planner.samples

    @property
    def windows(self) -> Windows | None:
        """The window of each row of the order, where clips are evaluated; else None."""
        planner = self.planner
        return planner.windows.of_rows(planner.order.rows) if planner.windows else None

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches of step, step + 1, ... without end."""
        planned, stream = self._planned(step), self.planner.stream
        with Watchdog() as watchdog, stream.reading(step) if stream else nullcontext():
            while True:
                watchdog.stage = f"pictures of step {step}, by the {self.kind} loader from {self.dataset.folder}"
                try:
                    plan, inputs = next(planned)
                except (RuntimeError, BadImage) as error:
                    raise damage(self.dataset, self._suspects(step)) or error from error
                watchdog.stage = ""
                step += 1
                yield self._batch(plan, inputs)

    def _planned(self, step: int) -> Iterator[tuple[Plan, Tensor]]:
        if self.kind == "plain":
            return opencv.pictures(self.planner.plan, self.planner.preprocess, self.workers, step)
        from affect.engine.data import dali

        return dali.pictures(self.planner, self.workers, step, self.device)

    def _batch(self, plan: Plan, inputs: Tensor) -> Batch:
        sample = torch.from_numpy(plan.sample)
        targets = {name: values[sample] for name, values in self.targets.items()}
        mask = {name: (~values.isnan()).float() for name, values in targets.items()}
        move = self._to_device
        batch = Batch(
            move(inputs),
            {name: move(values.nan_to_num(0.0)) for name, values in targets.items()},
            {name: move(values) for name, values in mask.items()},
            move(self.weight[sample]),
            plan.sample,
            plan.start,
            None if self.side is None else move(self.side[sample]),
        )
        return mixed(batch, plan.mix) if plan.mix else batch

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def _suspects(self, step: int) -> np.ndarray:
        rows = [self.order.step(ahead)[0] for ahead in range(step, step + SUSPECTS)]
        return self.planner.samples_of(np.concatenate(rows))


def _choose_kind(kind: str, planner: Planner, device: torch.device) -> str:
    """Return `dali` or `plain`; a choice that DALI's absence makes is logged."""
    if kind == "auto" and planner.clip and device.type == "cpu":
        kind = "plain"  # DALI resizes small frames in colour more slowly than OpenCV: bench/clips.py
    elif kind == "auto":
        has_dali = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
        kind = "dali" if has_dali else "plain"
        if not has_dali:
            say("loader: plain (nvidia.dali is not installed; it decodes on a GPU, and small pictures faster on a CPU)")
    if kind == "dali":
        _refuse_large(planner)
    return kind


def _refuse_large(planner: Planner) -> None:
    """DALI has no area averaging as OpenCV's: pictures that need it must be packed smaller."""
    dataset, rows = planner.dataset, planner.samples
    shapes = np.unique(dataset.column("height")[rows].astype(np.int64) << 32 | dataset.column("width")[rows])
    for h, w in zip((shapes >> 32).tolist(), (shapes & 0xFFFFFFFF).tolist(), strict=True):
        to = planner.preprocess.resized_shape(h, w)
        if too_large(h, w, *to):
            side = 2 * max(to)
            raise InputError(
                f"{dataset.folder}: pictures of {w}x{h} pixels are more than twice too large for model.image_size "
                f"{planner.preprocess.size}. Pack with --max-side {side}, or read them slowly: --set data.loader=plain"
            )


def default_workers(device: torch.device) -> int:
    """Return how many threads decode, for a process of this machine: half of its cores on a CPU, all of them beside a GPU."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, cores // 2 if device.type == "cpu" else min(cores, 16))
