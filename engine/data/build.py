"""The loaders of a run: random views of the training rows, the evaluation view of any rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from affect.engine.config.data import ClipConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.config.run import RunConfig
from affect.engine.data.batch_plan import Planner
from affect.engine.data.clip_view import clip_view
from affect.engine.data.loader import Loader
from affect.engine.data.selection import sampling_weights, spread_of, train_rows
from affect.engine.system.distributed import Ranks
from affect.engine.tasks.spec import TaskSpec
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.sampler import Order
from affect.shards.selection import Selection
from affect.shards.tar_stream import StreamOrder, StreamReader

EVALUATION_BATCH, EVALUATION_FRAMES = 128, 512  # pictures a batch; frames a batch of clips


def train_loader(run: RunConfig, task: TaskSpec, dataset: Dataset, ranks: Ranks) -> Loader:
    """Random views of the training rows, in the order of the sampler; of each update this process's share."""
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
    """The evaluation view of a selection, a whole split, or rows by number, in their order; of at most `most`, evenly spread.

    clip: which frames of clips are seen; every window of a clip is a row then: see `Loader.windows`.
    batch: rows; default: 128 pictures, and of clips as many as have 512 frames.
    share: (rank, world), every world-th row from `rank` on: the part of one of several processes.
    side: columns of the index that come with clips (`side_signals.py`).
    """
    rows = wanted if isinstance(wanted, np.ndarray) else dataset.rows(wanted)
    view = clip_view(clip, dataset, rows)
    windows = view.windows(rows) if view else None
    numbers = np.arange(len(windows.sample)) if windows else rows
    if most and len(numbers) > most:
        numbers = numbers[np.linspace(0, len(numbers) - 1, most).astype(np.int64)]
    batch = batch or (max(1, EVALUATION_FRAMES // clip.frames) if clip else EVALUATION_BATCH)
    order = Order(numbers[share[0] :: share[1]], seed=0, batch=min(batch, len(numbers)), shuffle=False)
    planner = Planner(dataset, order, preprocess, None, 0, clip=view, windows=windows)
    return Loader(planner, outputs, device, kind, workers, side)
