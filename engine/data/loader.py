"""Batches on the device, from any step on, without end."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from affect.engine.config.data import ClipConfig
from affect.engine.config.preprocess import Preprocess, too_large
from affect.engine.config.run import RunConfig
from affect.engine.data import opencv as plain
from affect.engine.data.batch import Batch
from affect.engine.data.batch_plan import Plan, Planner
from affect.engine.data.clip_view import Windows, clip_view
from affect.engine.data.mixup import draw_mix
from affect.engine.data.selection import sampling_weights, spread_of, train_rows
from affect.engine.data.side_signals import side_values
from affect.engine.data.watchdog import Watchdog
from affect.engine.system.distributed import Ranks
from affect.engine.system.log import say
from affect.engine.tasks.spec import TaskSpec
from affect.shards.clip import clip_sha256
from affect.shards.dataset import Dataset
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError, first
from affect.shards.images import decode, pixel_sha256
from affect.shards.sampler import Order
from affect.shards.selection import Selection
from affect.shards.tar_stream import StreamOrder, StreamReader

EVALUATED, EVALUATED_FRAMES = 128, 512  # pictures a batch, and of clips frames


class Loader:
    """Makes the batches of an order through DALI or the plain pipeline. side: columns of the index that come with clips."""

    def __init__(
        self, planner: Planner, outputs: tuple[str, ...], device: torch.device, kind: str, workers: int,
        side: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.planner, self.device, self.workers = planner, device, workers or default_workers(device)
        self.kind = _choose(kind, planner, self.device)
        self.targets = {name: torch.from_numpy(planner.dataset.targets(name)) for name in outputs}
        self.weight = torch.tensor(planner.dataset.column("weight"))
        self.side = torch.from_numpy(side_values(planner.dataset, side)) if side else None

    @property
    def windows(self) -> Windows | None:
        """Of an evaluation of clips: what each row of it shows, in its order; else None."""
        planner = self.planner
        return planner.windows.of_rows(planner.order.rows) if planner.windows else None

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
        if self.kind == "plain":
            return plain.pictures(self.planner.plan, self.planner.preprocess, self.workers, step)
        from affect.engine.data import dali

        return dali.pictures(self.planner, self.workers, step, self.device)

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
            plan.start,
            None if self.side is None else move(self.side[sample]),
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
            for sample in self.planner.samples_of(self.planner.order.step(ahead)[0]):
                try:
                    if _sha256(dataset, int(sample)) == dataset.column("sha256")[sample]:
                        continue
                    reason = "its pixels have changed"
                except BadImage as damage:
                    reason = str(damage)
                bad.append(f"{dataset.column('shard')[sample]}: {dataset.column('key')[sample]}: {reason}")
        if not bad:
            return error
        return InputError(f"{dataset.folder}: damaged since it was packed:\n{first(bad)}\nRun: affect verify {dataset.folder}")


def _sha256(dataset: Dataset, sample: int) -> bytes:
    """As it was when it was packed, of a picture or of all frames of a clip. Raises BadImage."""
    each = [pixel_sha256(decode(frame)) for frame in dataset.frames(sample)]
    return each[0] if len(dataset.times_s(sample)) == 0 else clip_sha256(each)


def _choose(kind: str, planner: Planner, device: torch.device) -> str:
    """`dali` or `plain`, saying why where the choice was ours."""
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


def train_loader(run: RunConfig, task: TaskSpec, dataset: Dataset, ranks: Ranks) -> Loader:
    """Random views of the training rows, in the order that the sampler gives; of each update this process's share."""
    _check_input(task, run.data.clip)
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
    clip = clip_view(run.data.clip, dataset, rows)
    augment = run.data.augment
    spread = spread_of(augment, dataset, rows)
    planner = Planner(dataset, order, run.preprocess, augment, run.seed, stream, clip, spread=spread)
    loader = Loader(planner, task.outputs, ranks.device, run.data.loader, run.data.workers, run.data.side)
    if run.data.sampler == "weighted":
        loader.weight = torch.ones_like(loader.weight)  # the order has it already
    return loader


def _check_input(task: TaskSpec, clip: ClipConfig | None) -> None:
    if task.input == "clip" and clip is None:
        raise InputError(f"data.clip: null, and {task.name} sees clips; say how many frames, e.g. --set data.clip.frames=32")
    if task.input == "frame" and clip is not None:
        raise InputError(f"data.clip: {task.name} sees single pictures; --set data.clip=null, or take a task of clips")


def eval_loader(
    dataset: Dataset,
    wanted: Selection | str | np.ndarray,
    preprocess: Preprocess,
    outputs: tuple[str, ...],
    device: torch.device,
    *,
    clip: ClipConfig | None = None,
    batch: int | None = None,
    kind: str = "auto",
    workers: int = 0,
    most: int | None = None,
    share: tuple[int, int] = (0, 1),
    side: Sequence[str] = (),
) -> Loader:
    """The evaluation view of a selection, a whole split or given rows, in their order; of at most `most`, evenly spread.

    clip: which frames of clips are seen; every window of a clip is a row then, and `Loader.windows` says whose.
    batch: rows; default: 128 pictures, and of clips as many as have 512 frames.
    share: (rank, world), every world-th row from `rank` on; each of several processes takes its own.
    side: columns of the index that come with clips (`side.py`).
    """
    rows = wanted if isinstance(wanted, np.ndarray) else dataset.rows(wanted)
    view = clip_view(clip, dataset, rows)
    windows = view.windows(rows) if view else None
    numbers = np.arange(len(windows.sample)) if windows else rows
    if most and len(numbers) > most:
        numbers = numbers[np.linspace(0, len(numbers) - 1, most).astype(np.int64)]
    batch = batch or (max(1, EVALUATED_FRAMES // clip.frames) if clip else EVALUATED)
    order = Order(numbers[share[0] :: share[1]], seed=0, batch=min(batch, len(numbers)), shuffle=False)
    planner = Planner(dataset, order, preprocess, None, 0, clip=view, windows=windows)
    return Loader(planner, outputs, device, kind, workers, side)


def default_workers(device: torch.device) -> int:
    """On a CPU the model needs the cores; beside a GPU the loader has them. Processes of one machine share them."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, cores // 2 if device.type == "cpu" else min(cores, 16))
