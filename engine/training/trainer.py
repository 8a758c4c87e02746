"""The training loop: the only one."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.data.build import train_loader
from affect.engine.losses.base import Teacher
from affect.engine.runs.checkpoint import copy_whole, save
from affect.engine.runs.description import describe_run
from affect.engine.runs.files import ALIGNMENT, BEST, HISTORY, LAST
from affect.engine.runs.folder import begin, locked, taken_over, write_json
from affect.engine.system.device import autocast, describe
from affect.engine.system.distributed import Ranks, joined
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.engine.tasks.spec import TaskSpec
from affect.engine.training.checkpointing import best_checkpoint, last_checkpoint, restore, take_over
from affect.engine.training.data_report import alignment
from affect.engine.training.early_stopping import merit, stale_epochs
from affect.engine.training.interrupt import Interrupt
from affect.engine.training.learner import Learner, TrainState
from affect.engine.training.meter import Meter
from affect.engine.training.optim import learning_rate, parameters_of
from affect.engine.training.out_of_memory import out_of_memory
from affect.engine.training.run_log import epoch_line, history_line, start_line
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

Score = Callable[[nn.Module, Ranks], dict[str, float]]
OpenTeacher = Callable[[torch.device], Teacher]  # on the device of this process
AGREE_STEPS = 20  # several processes ask each other this often whether to save or to stop


def fit(
    run: RunConfig,
    task: TaskSpec,
    dataset: Dataset,
    out: Path,
    score: Score,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    log: Callable[[dict[str, Any]], None] = lambda line: None,
    open_teacher: OpenTeacher | None = None,
    continue_from: Path | None = None,
) -> Path:
    """Train `task` for `run.optim.epochs` epochs into the folder `out`; return the checkpoint that `score` liked best.

    optim.keep: last: the one of the last epoch instead.

    Resuming equals not stopping: order, augmentation, weights, optimiser and random state are those of the undisturbed run.
    continue_from: another run, from whose last epoch this one goes on under the settings of `run`.
    """
    with joined(run.train.device) as ranks, locked(out) if ranks.first else nullcontext():
        saved = begin(out, run, dataset, resume=resume)
        ranks.gather(None)  # all have looked before the first one writes
        teacher = open_teacher(ranks.device) if open_teacher else None
        trainer = Trainer(run, task, dataset, out, ranks, score, log, init_from if saved is None else None, teacher)
        if saved:
            trainer.resume(saved)
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
    """The loop: the step, and what happens between steps. score: of a model, called after every epoch."""

    def __init__(
        self,
        run: RunConfig,
        task: TaskSpec,
        dataset: Dataset,
        out: Path,
        ranks: Ranks,
        score: Score,
        log: Callable[[dict[str, Any]], None],
        init_from: Path | None,
        teacher: Teacher | None = None,
    ) -> None:
        self.run, self.task, self.dataset, self.out, self.ranks = run, task, dataset, out, ranks
        self.score, self.log = score, log
        torch.manual_seed(run.seed)
        self.loader = train_loader(run, task, dataset, ranks)
        self.order = self.loader.order
        self.steps = min(self.order.first_step_of(run.optim.epochs), run.optim.steps or sys.maxsize)
        self.learner = Learner(run, task, self.loader, ranks, init_from, teacher)
        self.model, self.loss = self.learner.model, self.learner.loss
        self._check_last_epoch()
        if ranks.rank:
            torch.manual_seed(run.seed + ranks.rank)  # dropout differs
        if ranks.first:
            say(start_line(self.learner, self.steps))

    def _check_last_epoch(self) -> None:
        last = self.epoch(self.steps - 1)
        if not self.model.head.is_final(last):
            raise InputError(
                f"optim.steps: {self.steps} updates end in epoch {last}, before the cosine head is trained; give more, or "
                f"--set loss.arcface.from_epoch={last}"
            )

    @property
    def state(self) -> TrainState:
        return self.learner.state

    def describe(self) -> None:
        """Write into its folder what a new run is."""
        if self.ranks.first:
            describe_run(self.out, self.run, self.learner.origins, describe(self.ranks.device))
            write_json(self.out / ALIGNMENT, alignment(self.run, self.dataset, self.order.rows, self.learner.lineage))

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from this run's last checkpoint."""
        restore(self.learner, saved, self.out)

    def take_over(self, folder: Path) -> None:
        """Go on from the last epoch of another run. An interrupt leaves a run that can be started again."""
        take_over(self.learner, taken_over(folder, self.run, self.dataset), folder, self.out)
        self.describe()
        if self.ranks.first:
            copy_whole(folder / BEST, self.out / BEST)
            write_json(self.out / HISTORY, self.state.history)
        self.save(LAST)

    def run_to_the_end(self) -> None:
        run, state, order = self.run, self.state, self.order
        self.model.train()
        saved_at, shown, unit = time.monotonic(), self.ranks.first, "clips" if run.data.clip else "images"
        if self.stopped():
            return
        with (
            Interrupt() as interrupt,
            Progress("train", self.steps * order.batch, unit, run.train.log_every_s, shown) as progress,
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
        """Take one update; return the parts of its loss and the gradient's norm, on the device. In bf16 nothing waits for it."""
        learner, optim = self.learner, self.run.optim
        self.at_step(self.state.step)
        counts = self.ranks.add(self.loss.counts(batch))
        pieces = batch.split(optim.accumulate)
        parts: dict[str, Tensor] = {}
        for i, piece in enumerate(pieces):
            if learner.forward is not learner.parallel:  # the call imports torch._inductor: seconds
                torch.compiler.cudagraph_mark_step_begin()
            with self.ranks.quiet(learner.parallel, last=i == len(pieces) - 1):
                with autocast(learner.dtype, self.ranks.device):
                    features, outputs = learner.forward(*piece.args)
                losses = self.loss(features, outputs, piece, counts)  # in float32
                learner.scaler.scale(losses.total * self.ranks.world).backward()  # DDP takes the mean over the processes
            for name, value in {**losses.parts, "total": losses.total}.items():
                parts[name] = parts.get(name, 0.0) + value.detach()
        self.ranks.mean_gradients(self.loss)
        learner.scaler.unscale_(learner.optimizer)  # disabled for bf16, where it is the identity: one path
        if optim.clip_norm:
            norm = clip_grad_norm_(parameters_of(learner.optimizer), optim.clip_norm)
            if not learner.scaler.is_enabled():  # a scaler tries factors until no gradient overflows
                parts["gradient"] = norm
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
        learner.optimizer.zero_grad(set_to_none=True)
        if learner.ema:
            learner.ema.update(self.model, self.state.step + 1)
        return parts

    def at_step(self, step: int) -> None:
        """Switch head, loss and rate to what they are in a step."""
        epoch = self.epoch(step)
        self.model.head.at_epoch(epoch)
        self.loss.at_epoch(epoch)
        for group in self.learner.optimizer.param_groups:
            group["lr"] = self.rate(step)

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
        if not meter.steps:  # an epoch has just ended and logged its line
            return ""
        loss = self.ranks.world * meter.mean()
        return f"epoch {len(self.state.history)}, loss {loss:.4f}, waiting {100 * meter.waiting_share:.1f} %"

    def check_finite(self) -> None:
        """Raises InputError naming the first step, part and samples that were not finite."""
        first_bad = self.state.meter.first_bad()
        if not first_bad:
            return
        step, part = first_bad
        samples = self.order.step(step)[0]
        codes, paths = self.dataset.coded("path")
        keys = [paths[code] for code in codes[samples[:6]]]
        raise InputError(
            f"loss: {part} is not finite since step {step}, whose {len(samples)} samples are "
            f"{', '.join(map(str, samples[:6].tolist()))}, ... ({', '.join(keys)}, ...); the checkpoints from before "
            "remain. Try a lower rate: --set optim.lr=..., or --set train.precision=off"
        )

    def end_epoch(self) -> None:
        """Score the epoch, write its line, save the model if it is the best so far, or optim.keep is `last`."""
        self.check_finite()
        state = self.state
        meter = state.meter.over_all(self.ranks)
        values = self.score(self.learner.scored, self.ranks)
        self.model.train()
        line = history_line(self.learner, meter, self.rate(state.step - 1), values)
        state.history.append(line)
        state.meter = Meter()
        reached, last = merit(self.task.select_by, values[self.task.select_by]), self.run.optim.keep == "last"
        if best := line["final_head"] and (last or reached > state.best or state.best == -math.inf):
            state.best = reached
            self.save(BEST)
        if self.ranks.first:
            say(epoch_line(line, best=best and not last))
            write_json(self.out / HISTORY, state.history)
            self.log(line)

    def stopped(self) -> bool:
        """Return whether early stopping ends the run here; it is logged."""
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
        """BEST or LAST, by the first process."""
        checkpoint = best_checkpoint(self.learner) if name == BEST else last_checkpoint(self.learner)
        if self.ranks.first:
            save(self.out / name, checkpoint)


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds it was waited for."""
    while True:
        started = time.monotonic()
        batch = next(batches)
        yield batch, time.monotonic() - started
