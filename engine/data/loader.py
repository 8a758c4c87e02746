"""Batches on the device, from any step on, without end."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from affect.engine.config import RunConfig
from affect.engine.data import plain
from affect.engine.data.mix import Mix, draw_mix
from affect.engine.data.plan import Plan, Planner
from affect.engine.data.preprocess import Preprocess, too_large
from affect.engine.data.selection import sampling_weights, train_rows
from affect.engine.data.watchdog import Watchdog
from affect.engine.log import say
from affect.engine.ranks import Ranks
from affect.engine.task import TaskSpec
from affect.shards.errors import InputError, first
from affect.shards.images import BadImage, decode, pixel_sha256
from affect.shards.order import Order
from affect.shards.read import Dataset
from affect.shards.select import Selection
from affect.shards.stream import StreamOrder, StreamReader


@dataclass(frozen=True)
class Batch:
    """B samples on the device.

    inputs: (B, H, W, 3) uint8 RGB; the model casts, normalises and turns it to channels-last, so nothing is copied.
    targets: output -> (B, C) float32, 0 where not labelled. mask: output -> (B, C) float32, 1 where labelled.
    weight: (B,) float32. sample: (B,) int64 on the CPU.
    """

    inputs: Tensor
    targets: dict[str, Tensor]
    mask: dict[str, Tensor]
    weight: Tensor
    sample: np.ndarray

    def mixed(self, mix: Mix) -> Batch:
        """Each sample blended with its partner."""
        targets = {name: mix.blend(values) for name, values in self.targets.items()}
        mask = {name: mix.both(values) for name, values in self.mask.items()}
        return Batch(mix.images(self.inputs), targets, mask, mix.blend(self.weight), self.sample)

    def split(self, pieces: int) -> list[Batch]:
        """As so many batches of B / pieces samples each; views, nothing is copied."""
        if pieces == 1:
            return [self]
        size = len(self.sample) // pieces
        cut = [slice(i * size, (i + 1) * size) for i in range(pieces)]
        return [
            Batch(
                self.inputs[c],
                {name: values[c] for name, values in self.targets.items()},
                {name: values[c] for name, values in self.mask.items()},
                self.weight[c],
                self.sample[c],
            )
            for c in cut
        ]


class Loader:
    """Makes the batches of an order through DALI or the plain pipeline."""

    def __init__(self, planner: Planner, outputs: tuple[str, ...], device: torch.device, kind: str, workers: int) -> None:
        self.planner, self.device, self.workers = planner, device, workers or default_workers(device)
        self.kind = _choose(kind, planner)
        self.targets = {name: torch.from_numpy(planner.dataset.targets(name)) for name in outputs}
        self.weight = torch.tensor(planner.dataset.column("weight"))

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches of step, step + 1, ... without end."""
        images, stream = self._pictures(step), self.planner.stream
        with Watchdog() as watchdog, stream.reading(step) if stream else nullcontext():
            while True:
                watchdog.stage = f"pictures of step {step}, by the {self.kind} loader from {self.planner.dataset.folder}"
                try:
                    plan, inputs = next(images)
                except (RuntimeError, BadImage) as error:
                    raise self._named(error, step) from error
                watchdog.stage = ""
                batch = self._batch(plan, inputs, step)
                step += 1
                yield batch

    def _pictures(self, step: int) -> Iterator[tuple[Plan, Tensor]]:
        plan, preprocess = self.planner.plan, self.planner.preprocess
        if self.kind == "plain":
            return plain.pictures(plan, preprocess, self.workers, step)
        from affect.engine.data import dali

        order = self.planner.order
        share = order.batch // order.world
        return dali.pictures(plan, preprocess, self.planner.augment, self.workers, step, self.device, share)

    def _batch(self, plan: Plan, inputs: Tensor, step: int) -> Batch:
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
        )
        augment = self.planner.augment
        mix = draw_mix(augment, self.planner.seed, step, self.planner.preprocess.size) if augment else None
        return batch.mixed(mix) if mix else batch

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def _named(self, error: Exception, step: int) -> Exception:
        """The samples whose pictures are not what was packed; the error itself where there is none."""
        dataset = self.planner.dataset
        bad = []
        for ahead in range(step, step + 4):
            for sample in self.planner.order.step(ahead)[0]:
                try:
                    if pixel_sha256(decode(dataset.image(int(sample)))) == dataset.column("sha256")[sample]:
                        continue
                    reason = "its pixels have changed"
                except BadImage as damage:
                    reason = str(damage)
                bad.append(f"{dataset.column('shard')[sample]}: {dataset.column('key')[sample]}: {reason}")
        if not bad:
            return error
        return InputError(f"{dataset.folder}: damaged since it was packed:\n{first(bad)}\nRun: affect verify {dataset.folder}")


def _choose(kind: str, planner: Planner) -> str:
    """`dali` or `plain`, saying why where the choice was ours."""
    if kind == "auto":
        has_dali = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
        kind = "dali" if has_dali else "plain"
        if not has_dali:
            say("loader: plain (nvidia.dali is not installed; it decodes on a GPU, and small pictures faster on a CPU)")
    if kind == "dali":
        _refuse_large(planner)
    return kind


def _refuse_large(planner: Planner) -> None:
    """DALI has no area averaging as OpenCV's: pictures that need it must be packed smaller."""
    dataset, rows = planner.dataset, planner.order.rows
    shapes = np.unique(dataset.column("height")[rows].astype(np.int64) << 32 | dataset.column("width")[rows])
    for h, w in zip((shapes >> 32).tolist(), (shapes & 0xFFFFFFFF).tolist(), strict=True):
        to = planner.preprocess.resized_shape(h, w)
        if too_large(h, w, *to):
            side = 2 * max(to)
            raise InputError(
                f"{dataset.folder}: pictures of {w}x{h} pixels are more than twice too large for model.image_size "
                f"{planner.preprocess.size}. Pack with --max-side {side}, or read them slowly: --set data.loader=plain"
            )


def train_loader(run: RunConfig, task: TaskSpec, dataset: Dataset, ranks: Ranks) -> Loader:
    """Random views of the training rows, in the order that the sampler gives; of each update this process's share."""
    rows = train_rows(run.data, dataset)
    weights = sampling_weights(run, task, dataset, rows)
    batch, settings, stream = run.data.batch_size, run.data.stream, None
    order = Order(rows, seed=run.seed, batch=batch, rank=ranks.rank, world=ranks.world, weights=weights)
    if batch // ranks.world % run.optim.accumulate:
        raise InputError(
            f"optim.accumulate: {batch} samples per update in {ranks.world} processes do not divide into "
            f"{run.optim.accumulate} equal micro-batches each"
        )
    if settings and ranks.world > 1:
        raise InputError("data.stream: reads in one process; with several take --set data.stream=null")
    if settings:
        order = StreamOrder(dataset, rows, seed=run.seed, batch=batch, buffer=settings.buffer)
        stream = StreamReader(dataset, order, settings.tars)
    planner = Planner(dataset, order, run.preprocess, run.data.augment, run.seed, stream)
    loader = Loader(planner, task.outputs, ranks.device, run.data.loader, run.data.workers)
    if run.data.sampler == "weighted":
        loader.weight = torch.ones_like(loader.weight)  # the order has it already
    return loader


def eval_loader(
    dataset: Dataset,
    wanted: Selection | str | np.ndarray,
    preprocess: Preprocess,
    outputs: tuple[str, ...],
    device: torch.device,
    *,
    batch: int = 128,
    kind: str = "auto",
    workers: int = 0,
    most: int | None = None,
) -> Loader:
    """The evaluation view of a selection, a whole split or given rows, in their order; of at most `most`, evenly spread."""
    rows = wanted if isinstance(wanted, np.ndarray) else dataset.rows(wanted)
    if most and len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    order = Order(rows, seed=0, batch=min(batch, len(rows)), shuffle=False)
    return Loader(Planner(dataset, order, preprocess, None, 0), outputs, device, kind, workers)


def default_workers(device: torch.device) -> int:
    """On a CPU the model needs the cores; beside a GPU the loader has them. Processes of one machine share them."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, cores // 2 if device.type == "cpu" else min(cores, 16))
