"""The training loop: the only one."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.data.build import train_loader
from affect.engine.data.side_signals import side_scale
from affect.engine.losses.base import Teacher, TrainingRows
from affect.engine.losses.build import LossFunction
from affect.engine.metrics.output_metrics import OF_CLASS
from affect.engine.models.build import build_model
from affect.engine.models.side_signals import set_scale
from affect.engine.runs.checkpoint import copy_whole, initialise, save
from affect.engine.runs.files import BEST, HISTORY, LAST
from affect.engine.runs.folder import begin, describe_run, fingerprint, locked, taken_over, write_json
from affect.engine.system.device import autocast, choose_precision, describe
from affect.engine.system.distributed import Ranks, joined
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.engine.tasks.spec import TaskSpec
from affect.engine.training.data_report import REPORT, alignment
from affect.engine.training.diagnostics import loss_ratio
from affect.engine.training.early_stopping import merit, stale_epochs
from affect.engine.training.interrupt import Interrupt
from affect.engine.training.meter import Meter
from affect.engine.training.optim import build_optimizer, learning_rate, parameters_of
from affect.engine.training.out_of_memory import out_of_memory
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

Score = Callable[[nn.Module, Ranks], dict[str, float]]
OpenTeacher = Callable[[torch.device], Teacher]  # on the device of this process
AGREE_STEPS = 20  # several processes ask each other this often whether to save or to stop


@dataclass
class TrainState:
    """Where the run stands."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf
    meter: Meter = field(default_factory=Meter)


def fit(
    run: RunConfig, task: TaskSpec, dataset: Dataset, out: Path, score: Score, *,
    resume: bool = False, init_from: Path | None = None, log: Callable[[dict[str, Any]], None] = lambda line: None,
    open_teacher: OpenTeacher | None = None, continue_from: Path | None = None,
) -> Path:  # fmt: skip
    """Train `task` for `run.optim.epochs` epochs into the folder `out`; return the checkpoint that `score` liked best.

    optim.keep: last: the one of the last epoch instead.

    Resuming equals not stopping: order, augmentation, weights, optimiser and random state are those of the undisturbed run.
    continue_from: another run, from whose last epoch this one goes on under its own settings.
    """
    with joined(run.train.device) as ranks, locked(out) if ranks.first else nullcontext():
        saved = begin(out, run, dataset, resume=resume)
        ranks.gather(None)  # all have looked before the first one writes
        teacher = open_teacher(ranks.device) if open_teacher else None
        trainer = Trainer(run, task, dataset, out, ranks, score, log, init_from if saved is None else None, teacher)
        if saved:
            trainer.restore(saved)
        elif continue_from:
            trainer.take_over(continue_from)
        else:
            trainer.describe()
        try:
            trainer.run_to_the_end()
        except torch.OutOfMemoryError as error:
            raise InputError(out_of_memory(run, ranks.device)) from error
    return out / BEST


class Trainer:
    """Everything that a step changes, the step, and what happens between steps."""

    def __init__(
        self, run: RunConfig, task: TaskSpec, dataset: Dataset, out: Path, ranks: Ranks, score: Score,
        log: Callable[[dict[str, Any]], None], init_from: Path | None, teacher: Teacher | None = None,
    ) -> None:  # fmt: skip
        self.run, self.task, self.dataset, self.out, self.ranks = run, task, dataset, out, ranks
        self.score, self.log, self.device = score, log, ranks.device
        torch.manual_seed(run.seed)
        self.loader = train_loader(run, task, dataset, ranks)
        self.order = self.loader.order
        self.steps = min(self.order.first_step_of(run.optim.epochs), run.optim.steps or sys.maxsize)
        self.model = build_model(run, task, dataset.info.layout).to(self.device)
        self.outputs = [dataset.info.layout.output(name) for name in task.outputs]
        for output in self.outputs:
            if output.kind == "scalars":
                rows = self.loader.targets[output.name][torch.from_numpy(self.loader.samples)]
                self.model.head.start_at(output.name, rows.nanmean(0).nan_to_num(0.0).to(self.device))
        self.lineage = initialise(self.model, init_from, self.outputs) if init_from else None
        if self.loader.side is not None:  # after the weights of another run, whose clips had another mean
            values = self.loader.side[torch.from_numpy(self.loader.samples)]
            scale = side_scale(dataset, run.data.side, values.numpy())
            set_scale(self.model, *map(torch.from_numpy, scale))
        last = self.epoch(self.steps - 1)
        if not self.model.head.is_final(last):
            raise InputError(
                f"optim.steps: {self.steps} updates end in epoch {last}, before the cosine head is trained; give more, or "
                f"--set loss.arcface.from_epoch={last}"
            )
        self.model.normalise.channels_last = run.train.channels_last
        if run.train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        learned = TrainingRows(dataset, self.loader.targets, self.order.rows, self.device)
        self.loss = LossFunction(run, task, learned, self.model.head.width, teacher)
        self.optimizer = build_optimizer([self.model, self.loss], run.optim)
        self.dtype, reason = choose_precision(run.train.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.parallel = ranks.parallel(self.model)
        mode = compile_mode(run, self.device)
        self.forward = torch.compile(self.parallel, mode=mode) if mode else self.parallel
        self.ema = ModelEmaV3(self.model, run.optim.ema, use_warmup=True, warmup_power=3 / 4) if run.optim.ema else None
        if ranks.rank:
            torch.manual_seed(run.seed + ranks.rank)  # dropout differs
        self.state = TrainState()
        if ranks.first:
            say(
                f"train: {task.name}, {run.model.backbone} at {run.model.image_size} px on {describe(self.device)}"
                + (f", {ranks.world} processes" if ranks.world > 1 else "")
                + f"; {self.dtype or 'float32'} ({reason}); compile {mode or 'off'}; loader {self.loader.kind}; "
                f"{self.loss.implementation()}; "
                f"{len(self.order.rows):,} samples, {self.steps:,} steps of {self.order.batch}"
            )

    def describe(self) -> None:
        """What a new run is, in its folder."""
        if self.ranks.first:
            describe_run(self.out, self.run, self.origins, describe(self.device))
            write_json(self.out / REPORT, alignment(self.run, self.dataset, self.order.rows, self.lineage))

    @property
    def origins(self) -> dict[str, str]:
        lineage = {"init": self.lineage["sha256"]} if self.lineage else {}
        return fingerprint(self.run, self.dataset) | self.loss.origins | lineage

    def run_to_the_end(self) -> None:
        run, state, order = self.run, self.state, self.order
        self.model.train()
        saved_at, shown, what = time.monotonic(), self.ranks.first, "clips" if run.data.clip else "images"
        if self.stopped():
            return
        with (
            Interrupt() as interrupt,
            Progress("train", self.steps * order.batch, what, run.train.log_every_s, shown) as progress,
        ):
            progress.skip(state.step * order.batch)
            for batch, waited in _timed(self.loader.from_step(state.step)):
                if state.step >= self.steps:
                    break
                started = time.monotonic()
                parts = self.step(batch)
                state.meter.add(state.step, parts, waited + time.monotonic() - started, waited)
                state.step += 1
                progress.advance(order.batch, note=self.note)
                ended = state.step in (order.first_step_of(len(state.history) + 1), self.steps)
                due = interrupt.seen or time.monotonic() - saved_at > run.train.checkpoint_every_s
                if ended:
                    self.end_epoch()
                if ended or self.agreed(due):
                    self.check_finite()
                    self.save(LAST)
                    saved_at = time.monotonic()
                if self.agreed(interrupt.seen):
                    raise KeyboardInterrupt
                if ended and self.stopped():
                    break

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update; the parts of its loss and the norm of its gradient, on the device. In bf16 nothing here waits for it."""
        run, optim, state = self.run, self.run.optim, self.state
        epoch = self.epoch(state.step)
        self.model.head.at_epoch(epoch)
        self.loss.at_epoch(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(state.step)
        counts = self.ranks.add(self.loss.counts(batch))
        pieces = batch.split(optim.accumulate)
        parts: dict[str, Tensor] = {}
        for i, piece in enumerate(pieces):
            if self.forward is not self.parallel:  # the call imports torch._inductor: seconds
                torch.compiler.cudagraph_mark_step_begin()
            with self.ranks.quiet(self.parallel, last=i == len(pieces) - 1):
                with autocast(self.dtype, self.device):
                    features, outputs = self.forward(*piece.args)
                losses = self.loss(features, outputs, piece, counts)  # in float32
                self.scaler.scale(losses.total * self.ranks.world).backward()  # DDP takes the mean over the processes
            for name, value in {**losses.parts, "total": losses.total}.items():
                parts[name] = parts.get(name, 0.0) + value.detach()
        self.ranks.mean_gradients(self.loss)
        self.scaler.unscale_(self.optimizer)  # disabled for bf16, where it is the identity: one path
        if optim.clip_norm:
            norm = clip_grad_norm_(parameters_of(self.optimizer), optim.clip_norm)
            if not self.scaler.is_enabled():  # a scaler tries factors until no gradient overflows
                parts["gradient"] = norm
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model, state.step + 1)
        return parts

    def epoch(self, step: int) -> int:
        return step * self.order.batch // len(self.order.rows)

    def rate(self, step: int) -> float:
        epoch = (step + 1) * self.order.batch / len(self.order.rows)
        merits = [merit(self.task.select_by, line["val"][self.task.select_by]) for line in self.state.history]
        return learning_rate(self.run.optim, min(epoch, self.run.optim.epochs), merits)

    def agreed(self, wish: bool) -> bool:
        """Alone: the wish. Several processes must do the same in the same step, and ask each other now and then."""
        if self.ranks.world > 1 and self.state.step % AGREE_STEPS:
            return False
        return self.ranks.agree(wish)

    def note(self) -> str:
        meter = self.state.meter
        if not meter.steps:  # an epoch has just ended and said its own line
            return ""
        loss = self.ranks.world * meter.mean()
        return f"epoch {len(self.state.history)}, loss {loss:.4f}, waiting {100 * meter.waiting_share:.1f} %"

    def check_finite(self) -> None:
        """Raises InputError naming the first step, part and samples that were not finite."""
        found = self.state.meter.first_bad()
        if not found:
            return
        step, part = found
        samples = self.order.step(step)[0]
        codes, paths = self.dataset.coded("path")
        keys = [paths[code] for code in codes[samples[:6]]]
        raise InputError(
            f"loss: {part} is not finite since step {step}, whose {len(samples)} samples are "
            f"{', '.join(map(str, samples[:6].tolist()))}, ... ({', '.join(keys)}, ...); the checkpoints from before are "
            "kept. Try a lower rate: --set optim.lr=..., or --set train.precision=off"
        )

    def end_epoch(self) -> None:
        """Score the epoch, write its line, keep the model if it is the best so far, or the last is kept."""
        self.check_finite()
        state, epoch = self.state, len(self.state.history)
        meter = state.meter.over_all(self.ranks)
        values = self.score(self.scored, self.ranks)
        self.model.train()
        losses = {name: meter.mean(name) for name in meter.sums if name not in ("total", "gradient")}
        weighted = {name: weight * losses[name] for name, weight in self.loss.weight_of.items()}
        line = {
            "epoch": epoch,
            "train_loss": meter.mean(),
            "losses": losses,
            "weighted_losses": weighted,
            **self.loss.at_epoch(epoch),
            "lr": self.rate(state.step - 1),
            "seconds": meter.seconds,
            "images_per_s": meter.steps * self.order.batch / max(meter.seconds, 1e-9),
            "waiting_share": meter.waiting_share,
            "final_head": self.model.head.is_final(epoch),
            "val": values,
        }
        ratio = loss_ratio(line)
        line |= {} if ratio is None else {"loss_ratio": ratio}
        state.history.append(line)
        state.meter = Meter()
        reached = merit(self.task.select_by, values[self.task.select_by])
        last = self.run.optim.keep == "last"
        if best := line["final_head"] and (last or reached > state.best or state.best == -math.inf):
            state.best = reached
            self.save(BEST)
        if self.ranks.first:
            aside = ("train_", OF_CLASS)
            said = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if not name.startswith(aside))
            say(
                f"epoch {epoch}: loss {line['train_loss']:.4f}, {said}; {meter.seconds:.0f} s, waiting "
                f"{100 * meter.waiting_share:.1f} %" + (", the best so far" if best and not last else "")
            )
            write_json(self.out / HISTORY, state.history)
            self.log(line)

    @property
    def scored(self) -> nn.Module:
        """What is scored, kept and exported."""
        return self.ema.module if self.ema else self.model

    def stopped(self) -> bool:
        """Whether early stopping ends the run here; it says so."""
        rule, history = self.run.optim.early_stopping, self.state.history
        if not rule or len(history) < rule.min_epochs:
            return False
        stale = stale_epochs(history, self.task.select_by, rule.min_delta)
        if stale < rule.patience:
            return False
        if self.ranks.first:
            say(f"train: ended after epoch {len(history) - 1}: {self.task.select_by} has not improved for {stale} epochs")
        return True

    def save(self, name: str) -> None:
        """BEST: what it takes to use the model; LAST: what it takes to go on, too."""
        state = {
            "task": self.task.name,
            "model": (self.scored if name == BEST else self.model).state_dict(),
            "outputs": [asdict(output) for output in self.outputs],
            "fingerprint": self.origins,
            "history": self.state.history,
        }
        if name == LAST:
            state |= self.moving_parts()
        if self.ranks.first:
            save(self.out / name, state)

    def moving_parts(self) -> dict[str, Any]:
        random = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        return {
            "step": self.state.step,
            "best": self.state.best,
            "meter": self.state.meter.over_all(self.ranks).plain(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": self.loss.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "lineage": self.lineage,
            "rng": self.ranks.gather(random),
        }

    def take_over(self, folder: Path) -> None:
        """Go on from the last epoch of another run: its weights, optimiser, history and best model, this run's settings.

        With another loss only what that one has learned is taken. An interrupt leaves a run that can be started again.
        """
        saved = taken_over(folder, self.run, self.dataset)
        decay, own = [group["weight_decay"] for group in self.optimizer.param_groups], self.loss.state_dict()
        learned = dict(self.loss.named_parameters())
        if not saved["same_loss"]:
            saved["loss"] = own | {name: value for name, value in saved["loss"].items() if name in learned}
        try:
            self.restore(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: its state does not fit the model or loss of these settings: {error}") from error
        for group, value in zip(self.optimizer.param_groups, decay, strict=True):
            group["weight_decay"] = value
        self.state.step = self.order.first_step_of(len(self.state.history))
        self.lineage = {key: saved[key] for key in ("path", "sha256", "task", "fingerprint")}
        self.lineage["epochs"] = len(self.state.history)
        self.describe()
        if self.ranks.first:
            copy_whole(folder / BEST, self.out / BEST)
            write_json(self.out / HISTORY, self.state.history)
        self.save(LAST)

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint made by as many processes."""
        if len(saved["rng"]) != self.ranks.world:
            raise InputError(
                f"{self.out}: was trained by {len(saved['rng'])} processes, now there are {self.ranks.world}; start as many"
            )
        for name, digest in self.loss.origins.items():
            if saved["fingerprint"].get(name) != digest:
                raise InputError(f"{self.out}: its {name} is another file by now; put the old one back, or train anew")
        self.model.load_state_dict(saved["model"])
        self.loss.load_state_dict(saved["loss"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.ema:
            self.ema.module.load_state_dict(saved["ema"])
        random = saved["rng"][self.ranks.rank]
        torch.set_rng_state(random["cpu"])
        if random["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)
        self.lineage = saved["lineage"]
        meter = Meter(**saved["meter"])
        if not self.ranks.first:
            meter.sums = dict.fromkeys(meter.sums, 0.0)  # the first process has everyone's
        self.state = TrainState(saved["step"], saved["history"], saved["best"], meter)
        say(f"train: resumed at step {self.state.step:,}")


def compile_mode(run: RunConfig, device: torch.device) -> str | None:
    """The mode of torch.compile, None for eager."""
    if run.train.compile == "auto":
        return "default" if device.type == "cuda" else None
    return None if run.train.compile == "off" else run.train.compile


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds it was waited for."""
    while True:
        started = time.monotonic()
        batch = next(batches)
        yield batch, time.monotonic() - started
