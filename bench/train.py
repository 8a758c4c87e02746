"""What a training step and an epoch cost: ours beside timm's, at the same settings, on the same pictures, from the same weights.

The settings add up: float32 in NCHW, channels-last, mixed precision, torch.compile. timm's step is that of its train.py with
its own model, loss, optimiser, scaler, clipping and normalisation, without what only reports. Before anything is timed the
losses of the first steps are compared. Rounds are interleaved, so that what else the machine does meets all alike.

Axes: B batch, H W pixels, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import islice, repeat
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

from affect.bench import record
from affect.bench.loader import BUFFERED, MAX_DIFFERENCE, Case, Timing, packed
from affect.bench.peers import Files, PeerPicture, files_and_opencv
from affect.engine.config import RunConfig, TrainConfig
from affect.engine.data.loader import Batch, default_workers
from affect.engine.data.plan import Plan
from affect.engine.data.preprocess import Preprocess
from affect.engine.device import choose_precision
from affect.engine.models.heads import LinearHead
from affect.engine.ranks import Ranks
from affect.engine.tasks import TASKS
from affect.engine.train import Trainer, compile_mode
from affect.shards.errors import InputError
from affect.shards.order import Order
from affect.shards.read import Dataset

TASK = TASKS["emotion_student"]
LR, EPOCHS = 1e-4, 1000  # so many that the rate stays what it is
COMPARED = 3  # first steps whose losses are compared: the first knows the forward pass, the next two know the update
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # relative; a rate of 1.5 LR is 1.6e-2 off


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
        """As `train.*` of a run says it."""
        precision = {torch.float32: "off", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]
        mode = "default" if self.compile else "off"
        return {"device": str(device), "channels_last": self.channels_last, "precision": precision, "compile": mode}


def levels(device: torch.device, *, compile: bool) -> tuple[list[Level], dict[str, str]]:
    """Each adds one setting to the one before; and those left out with the reason."""
    plain = Level("eager float32 NCHW")
    found, skipped = [plain, replace(plain, name="channels-last", channels_last=True)], {}
    dtype, reason = choose_precision(TrainConfig(), device)
    if dtype:
        found.append(replace(found[-1], name="amp", dtype=dtype))
    else:
        skipped["amp"] = reason
    if compile:
        found.append(replace(found[-1], name="compile", compile=True))
    else:
        skipped["compile"] = "--no-compile"
    return found, skipped


@dataclass(frozen=True)
class Work:
    """What every provider is given."""

    dataset: Dataset
    device: torch.device
    folder: Path  # for the pictures as files
    backbone: str = "resnet18"
    image_size: int = 64
    batch: int = 64
    workers: int = 0  # 0: as a run takes them
    most_steps: int | None = None

    def run(self, train: dict[str, Any]) -> RunConfig:
        return RunConfig.model_validate({
            "task": TASK.name,
            "data": {"dataset": self.dataset.folder, "batch_size": self.batch, "workers": self.threads},
            "model": {"backbone": self.backbone, "image_size": self.image_size},
            "optim": {"epochs": EPOCHS, "lr": LR, "warmup_epochs": 0.0},
            "train": train,
        })  # fmt: skip

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
        """Of `samples`, as the first epoch has them; without bytes."""
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
    """Who takes steps. The iterators have no end."""

    level: Level

    def one_batch(self) -> Iterator[Any]:
        """The first batch, over and over, without a loader."""

    def batches(self) -> Iterator[Any]:
        """What an epoch feeds."""

    def step(self, batch: Any) -> Tensor:
        """One update; its loss, on the device."""


class Ours:
    """A run's own trainer and loader."""

    def __init__(self, work: Work, level: Level) -> None:
        self.first, self.level = work.first, level
        self.trainer = work.trainer(level.train(work.device))
        self.trainer.model.train()

    def one_batch(self) -> Iterator[Batch]:
        return repeat(self.first)

    def batches(self) -> Iterator[Batch]:
        return self.trainer.loader.from_step(0)

    def step(self, batch: Batch) -> Tensor:
        """As `Trainer.run_to_the_end` does it."""
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
            yield images.permute(0, 3, 1, 2), work.targets[place]

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


@dataclass(frozen=True)
class Ready:
    """Providers that compute the same.

    off: how far the first losses are from ours in float32, relative. skipped: provider or level -> why it is not measured.
    """

    providers: dict[str, Provider]
    off: dict[str, float]
    skipped: dict[str, str]

    @property
    def peers(self) -> list[str]:
        return [name for name, provider in self.providers.items() if isinstance(provider, Timm)]

    def own(self, compiles: bool) -> str:
        """Ours as a run takes it by itself: all settings, torch.compile only where `compiles`."""
        names = [name for name, p in self.providers.items() if isinstance(p, Ours) and (compiles or not p.level.compile)]
        return names[-1]


def ready(work: Work, *, compile: bool = True) -> Ready:
    """Build every provider and let it take the first steps. Raises InputError where two do not compute the same."""
    check_pictures(work)
    found, skipped = levels(work.device, compile=compile)
    built = Ready({}, {}, skipped)
    want: np.ndarray | None = None
    for level in found:
        for name, make in ((level.name, Ours), (f"timm {level.name}", Timm)):
            try:
                provider: Provider = make(work, level)
                losses = first_losses(provider)
            except RuntimeError as error:  # of the compiler, or for want of one
                if not level.compile:
                    raise
                skipped[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                continue
            want = losses if want is None else want
            built.off[name] = check_losses(name, losses, want, level.dtype)
            built.providers[name] = provider
    return built


def check_pictures(work: Work) -> None:
    """Raises InputError where OpenCV makes other pictures of the first batch than our loader."""
    assert np.array_equal(work.first.sample, work.samples[: work.batch])
    theirs = np.stack([work.files[place][1].numpy() for place in range(work.batch)])
    off = float(np.abs(work.first.inputs.cpu().numpy().astype(int) - theirs).mean())
    if off > MAX_DIFFERENCE:
        raise InputError(
            f"bench: OpenCV makes other pictures than our loader: {off:.2f} levels off on average, at most {MAX_DIFFERENCE} "
            "expected; nothing was timed. Mend it: tests/data/test_pipelines_agree.py, tests/bench/test_train_bench.py"
        )


def first_losses(provider: Provider) -> np.ndarray:
    """(COMPARED,) on the first batch."""
    return np.array([float(provider.step(batch)) for batch in islice(provider.one_batch(), COMPARED)])


def check_losses(name: str, losses: np.ndarray, want: np.ndarray, dtype: torch.dtype) -> float:
    """The largest relative difference. Raises InputError where it is more than rounding."""
    off = float(np.max(np.abs(losses - want) / np.abs(want)))
    if not off <= TOLERANCE[dtype]:
        raise InputError(
            f"bench: {name} computes something else: its first losses are {losses.round(4).tolist()}, expected "
            f"{want.round(4).tolist()} within {TOLERANCE[dtype]:.1%}; nothing was timed. Every training row must have its label "
            "and weight 1, and the backbone no random layers; else mend bench/train.py"
        )
    return off


def rounds(timed: Mapping[str, Callable[[], float]], count: int, advance: Callable[[int], None]) -> dict[str, list[float]]:
    """Images a second of each, a number a round; the first round warms up and is not kept."""
    found: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(count + 1):
        for name, rate in timed.items():
            found[name].append(rate())
            advance(1)
    return {name: values[1:] for name, values in found.items()}


def step_rate(provider: Provider, batches: Iterator[Any], work: Work, seconds: float) -> float:
    done, start = 0, _now(work.device)
    while time.perf_counter() - start < seconds:
        provider.step(next(batches))
        done += work.batch
    return done / (_now(work.device) - start)


def epoch_rate(provider: Provider, batches: Iterator[Any], work: Work) -> float:
    """Over the steps of an epoch, once the batches that were held ready are used up."""
    for _ in islice(batches, BUFFERED):
        pass
    start = _now(work.device)
    for batch in islice(batches, work.steps):
        provider.step(batch)
    rate = work.steps * work.batch / (_now(work.device) - start)
    time.sleep(BUFFERED * work.batch / rate)  # its loader fills its buffers; the next one should have the machine alone
    return rate


def _now(device: torch.device) -> float:
    """When all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def bench_steps(work: Work, built: Ready, timing: Timing, advance: Callable[[int], None]) -> list[dict[str, Any]]:
    """One batch on the device over and over: a line a provider."""
    timed = {name: partial(step_rate, p, p.one_batch(), work, timing.seconds) for name, p in built.providers.items()}
    return _lines("train.step", work, built, rounds(timed, timing.rounds, advance), asdict(timing))


def bench_epoch(
    work: Work, built: Ready, steps: list[dict[str, Any]], timing: Timing, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Ours as a run takes it by itself, and timm's fastest of `steps` behind torch's DataLoader and OpenCV."""
    own = built.own(compile_mode(work.run({}), work.device) is not None)
    best = max((line for line in steps if line["provider"] in built.peers), key=lambda line: line["images_per_s"]["p50"])
    chosen = {name: built.providers[name] for name in (own, best["provider"])}
    timed = {name: partial(epoch_rate, p, p.batches(), work) for name, p in chosen.items()}
    settings = {"rounds": timing.rounds, "steps": work.steps, "workers": work.threads, "loader": work.definition.loader.kind}
    return _lines("train.epoch", work, built, rounds(timed, timing.rounds, advance), settings)


def _lines(op: str, work: Work, built: Ready, found: dict[str, list[float]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    best = max((found[name] for name in built.peers if name in found), key=np.median)
    about = {"backbone": work.backbone, "image_size": work.image_size, "batch": work.batch, "device": work.device.type}
    lines = []
    for name, values in found.items():
        level = built.providers[name].level
        own = {"channels_last": level.channels_last, "dtype": str(level.dtype).removeprefix("torch."), "compile": level.compile}
        ratio = float(np.median(np.array(values) / np.array(best)))  # round by round: both met the same disturbance
        about_one = {**about, **settings, **own, "loss_off": round(built.off[name], 5)}
        lines.append(
            record.line(op, name, about_one, "images_per_s", values, ratio, packages=("torch", "timm", "dali", "opencv"))
        )
    return lines


def drawn(image_size: int, pictures: int, folder: Path) -> Dataset:
    """Faces a little larger than the model takes them, as JPEG."""
    case = Case(round(1.15 * image_size), 95, Preprocess(image_size), None)
    return packed(case, pictures, folder)
