"""Providers of training steps: ours, and timm's with its own model, loss, optimiser, scaler, clipping and normalisation.

The settings add up: float32 in NCHW, channels-last, mixed precision, torch.compile. timm's step is that of its train.py without
what only reports.

Axes: B batch, H W pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import timm
import torch
from timm.data.loader import PrefetchLoader
from timm.loss import SoftTargetCrossEntropy
from timm.models import model_parameters
from timm.optim import create_optimizer_v2
from timm.utils import NativeScaler, dispatch_clip_grad
from torch import Tensor

from affect.bench.peers import Files, PeerPicture, files_and_opencv
from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.data.batch_plan import Plan
from affect.engine.data.loader import default_workers
from affect.engine.models.heads import LinearHead
from affect.engine.system.device import choose_precision
from affect.engine.system.distributed import Ranks
from affect.engine.tasks import TASKS
from affect.engine.training.trainer import Trainer
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.sampler import Order

TASK = TASKS["emotion_student"]
LR, EPOCHS = 1e-4, 1000  # so many that the rate stays what it is


@dataclass(frozen=True)
class Level:
    """Settings of a step. dtype: of autocast, float32 without."""

    name: str
    channels_last: bool = False
    dtype: torch.dtype = torch.float32
    compile: bool = False

    @property
    def autocast(self) -> torch.dtype | None:
        return None if self.dtype == torch.float32 else self.dtype

    def train(self, device: torch.device) -> dict[str, Any]:
        """The settings `train.*` of a run."""
        precision = {torch.float32: "off", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]
        mode = "default" if self.compile else "off"
        return {"device": str(device), "channels_last": self.channels_last, "precision": precision, "compile": mode}


def levels(device: torch.device, *, compile: bool) -> tuple[list[Level], dict[str, str]]:
    """Each adds one setting to the one before; and those left out with the reason."""
    plain = Level("eager float32 NCHW")
    chosen, skipped = [plain, replace(plain, name="channels-last", channels_last=True)], {}
    dtype, reason = choose_precision("auto", device)
    if dtype:
        chosen.append(replace(chosen[-1], name="amp", dtype=dtype))
    else:
        skipped["amp"] = reason
    if compile:
        chosen.append(replace(chosen[-1], name="compile", compile=True))
    else:
        skipped["compile"] = "--no-compile"
    return chosen, skipped


@dataclass(frozen=True)
class Work:
    """The task of every provider."""

    dataset: Dataset
    device: torch.device
    folder: Path  # for the pictures as files
    backbone: str = "resnet18"
    image_size: int = 64
    batch: int = 64
    workers: int = 0  # 0: as a run takes them
    most_steps: int | None = None

    def run(self, train: dict[str, Any]) -> RunConfig:
        return RunConfig.model_validate(
            {
                "task": TASK.name,
                "data": {"dataset": self.dataset.folder, "batch_size": self.batch, "workers": self.threads},
                "model": {"backbone": self.backbone, "image_size": self.image_size},
                "optim": {"epochs": EPOCHS, "lr": LR, "warmup_epochs": 0.0},
                "train": train,
            }
        )

    @property
    def threads(self) -> int:
        """Threads or processes that decode."""
        return self.workers or default_workers(self.device)

    def trainer(self, train: dict[str, Any]) -> Trainer:
        """A new one has the weights that every new one has."""
        return Trainer(
            self.run(train), TASK, self.dataset, self.folder, Ranks(self.device), lambda model, ranks: {}, lambda line: None, None
        )

    @cached_property
    def definition(self) -> Trainer:
        """Never stepped: the weights to start from, the order, the batch."""
        return self.trainer(Level("").train(self.device))

    @cached_property
    def first(self) -> Batch:
        """The first batch, on the device."""
        return next(self.definition.loader.from_step(0))

    @property
    def whole(self) -> int:
        """Whole steps of an epoch."""
        return len(self.definition.order.rows) // self.batch

    @property
    def steps(self) -> int:
        """Those of them that are timed."""
        if not self.whole:
            rows = len(self.definition.order.rows)
            raise InputError(f"bench: {rows} training pictures are less than a batch; take --batch {rows} or less")
        return min(self.most_steps or self.whole, self.whole)

    @cached_property
    def samples(self) -> np.ndarray:
        """(N,) sample numbers of the steps that are timed, in their order."""
        return np.concatenate([self.definition.order.step(step)[0] for step in range(self.steps)])

    @cached_property
    def views(self) -> Plan:
        """Return the views of `samples` in the first epoch, without bytes."""
        in_order = Order(self.samples, seed=0, batch=len(self.samples), shuffle=False)
        return replace(replace(self.definition.loader.planner, order=in_order).plan(0), data=[])

    @cached_property
    def files(self) -> Files:
        """The pictures of `samples` as files, decoded by OpenCV."""
        folder = self.folder / "files"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{sample:09d}" for sample in self.samples.tolist()]
        for sample, path in zip(self.samples.tolist(), paths, strict=True):
            path.write_bytes(self.dataset.image(sample).tobytes())
        return Files(paths, PeerPicture(self.views, self.definition.run.preprocess, "uint8"))

    @cached_property
    def targets(self) -> Tensor:
        """(N, C) float32 of `samples`."""
        return self.definition.loader.targets[TASK.outputs[0]][torch.from_numpy(self.samples)]


class Provider(Protocol):
    """Takes steps. The iterators have no end."""

    level: Level

    def one_batch(self) -> Iterator[Any]:
        """The first batch, over and over, without a loader."""

    def batches(self) -> Iterator[Any]:
        """The batches of an epoch, one after the other."""

    def step(self, batch: Any) -> Tensor:
        """Take one update; return its loss, on the device."""


class Ours:
    """The trainer and loader of a run."""

    def __init__(self, work: Work, level: Level) -> None:
        self.first, self.level = work.first, level
        self.trainer = work.trainer(level.train(work.device))
        self.trainer.model.train()

    def one_batch(self) -> Iterator[Batch]:
        return repeat(self.first)

    def batches(self) -> Iterator[Batch]:
        return self.trainer.loader.from_step(0)

    def step(self, batch: Batch) -> Tensor:
        """Take one update as `Trainer.run_to_the_end` does."""
        parts, state = self.trainer.step(batch), self.trainer.state
        state.meter.add(state.step, parts, 0.0, 0.0)
        state.step += 1
        return parts["total"]


class Timm:
    """timm's train.py at its defaults but for the settings of a run."""

    def __init__(self, work: Work, level: Level) -> None:
        self.work, self.level = work, level
        start, optim = work.definition.model, work.definition.run.optim
        assert isinstance(start.head, LinearHead)
        model = timm.create_model(work.backbone, num_classes=work.targets.shape[1])
        model.load_state_dict(start.backbone.state_dict(), strict=False)  # all but the classifier
        model.get_classifier().load_state_dict(start.head.outputs[TASK.outputs[0]].state_dict())
        self.model = model.to(work.device)
        if level.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer = create_optimizer_v2(self.model, opt="adamw", lr=LR, weight_decay=optim.weight_decay)
        self.clip_norm, self.loss = optim.clip_norm, SoftTargetCrossEntropy().to(work.device)
        self.scaler = NativeScaler(device=work.device.type) if level.dtype == torch.float16 else None
        self.model.train()
        self.forward = torch.compile(self.model) if level.compile else self.model

    def one_batch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, 3, H, W) as its fast_collate makes them."""
        first = self.work.first
        images = first.inputs.permute(0, 3, 1, 2).contiguous()
        return self._normalised(repeat((images, first.targets[TASK.outputs[0]])))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._normalised(self._from_files())

    def _from_files(self) -> Iterator[tuple[Tensor, Tensor]]:
        work, files = self.work, self.work.files
        for place, images in files_and_opencv(files.paths, files.picture, work.batch, work.threads):
            images = images.permute(0, 3, 1, 2)
            yield images if self.level.channels_last else images.contiguous(), work.targets[place]

    def _normalised(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(PrefetchLoader(batches, device=self.work.device))

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, target = batch
        if self.level.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            loss = self.loss(self.forward(images), target)
        parameters = model_parameters(self.model)
        if self.scaler:
            self.scaler(loss, self.optimizer, clip_grad=self.clip_norm, parameters=parameters)
        else:
            loss.backward()
            dispatch_clip_grad(parameters, self.clip_norm)
            self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.work.device.type, self.level.dtype) if self.level.autocast else nullcontext()
