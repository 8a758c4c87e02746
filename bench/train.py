"""What a training step and an epoch cost: ours beside timm's, at the same settings, on the same pictures, from the same weights.

The providers are in steps.py. Before anything is timed the losses of the first steps are compared. Rounds are interleaved,
so that what else the machine does meets all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.bench import record
from affect.bench.loader import BUFFERED, MAX_DIFFERENCE, Case, Timing, packed
from affect.bench.steps import Ours, Provider, Timm, Work, levels
from affect.engine.config.preprocess import Preprocess
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

COMPARED = 3  # first steps whose losses are compared: the first knows the forward pass, the next two know the update
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 1e-2}  # relative; a rate of 1.5 LR is 1.6e-2 off


@dataclass(frozen=True)
class Ready:
    """Providers that compute the same.

    off: how far the first losses are from ours in float32, relative. skipped: provider or level -> why it is not measured.
    """

    providers: dict[str, Provider]
    off: dict[str, float]
    skipped: dict[str, str]

    @property
    def ours(self) -> list[str]:
        return [name for name, provider in self.providers.items() if isinstance(provider, Ours)]

    @property
    def peers(self) -> list[str]:
        return [name for name, provider in self.providers.items() if isinstance(provider, Timm)]


def ready(work: Work, *, compile: bool = True) -> Ready:
    """Build every provider and let it take the first steps. Raises InputError where two do not compute the same."""
    check_pictures(work)
    chosen, skipped = levels(work.device, compile=compile)
    built = Ready({}, {}, skipped)
    want: np.ndarray | None = None
    for level in chosen:
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
            "expected; nothing was timed. Mend it: tests/engine/data/test_pipelines_agree.py, tests/bench/test_train_bench.py"
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
            "and weight 1, and the backbone no random layers; else mend bench/steps.py"
        )
    return off


def rounds(timed: Mapping[str, Callable[[], float]], count: int, advance: Callable[[int], None]) -> dict[str, list[float]]:
    """Images a second of each, a number a round; the first round warms up and is left out."""
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(count + 1):
        for name, rate in timed.items():
            rates[name].append(rate())
            advance(1)
    return {name: values[1:] for name, values in rates.items()}


def step_rate(provider: Provider, batches: Iterator[Any], work: Work, seconds: float) -> float:
    done, start = 0, _now(work.device)
    while time.perf_counter() - start < seconds:
        provider.step(next(batches))
        done += work.batch
    return done / (_now(work.device) - start)


def epoch_rate(provider: Provider, batches: Iterator[Any], work: Work) -> float:
    """Over the steps of an epoch, once the buffered batches are used up."""
    for _ in islice(batches, BUFFERED):
        pass
    start = _now(work.device)
    for batch in islice(batches, work.steps):
        provider.step(batch)
    rate = work.steps * work.batch / (_now(work.device) - start)
    time.sleep(BUFFERED * work.batch / rate)  # its loader fills its buffers; the next one should have the machine alone
    return rate


def _now(device: torch.device) -> float:
    """The time, once the device has done all its work."""
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
    """Ours at every setting, and timm's fastest of `steps` behind torch's DataLoader and OpenCV."""
    best = max((line for line in steps if line["provider"] in built.peers), key=lambda line: line["images_per_s"]["p50"])
    chosen = {name: built.providers[name] for name in (*built.ours, best["provider"])}
    timed = {name: partial(epoch_rate, p, p.batches(), work) for name, p in chosen.items()}
    settings = {"rounds": timing.rounds, "steps": work.steps, "workers": work.threads, "loader": work.definition.loader.kind}
    return _lines("train.epoch", work, built, rounds(timed, timing.rounds, advance), settings)


def _lines(op: str, work: Work, built: Ready, rates: dict[str, list[float]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    best = max((rates[name] for name in built.peers if name in rates), key=np.median)
    about = {"backbone": work.backbone, "image_size": work.image_size, "batch": work.batch, "device": work.device.type}
    lines = []
    for name, values in rates.items():
        level = built.providers[name].level
        of_level = {
            "channels_last": level.channels_last,
            "dtype": str(level.dtype).removeprefix("torch."),
            "compile": level.compile,
        }
        ratio = float(np.median(np.array(values) / np.array(best)))  # round by round: both met the same disturbance
        about_one = {**about, **settings, **of_level, "loss_off": round(built.off[name], 5)}
        lines.append(
            record.line(op, name, about_one, "images_per_s", values, ratio, packages=("torch", "timm", "dali", "opencv"))
        )
    return lines


def drawn(image_size: int, pictures: int, folder: Path) -> Dataset:
    """Faces a little larger than the model takes them, as JPEG."""
    case = Case(round(1.15 * image_size), 95, Preprocess(image_size), None)
    return packed(case, pictures, folder)
