"""`affect crossval --dry-run`: a full-size step of a fold, its memory, and the time that each strategy would take."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from affect.engine.config.run import RunConfig
from affect.engine.crossval.plan import CrossPlan, FoldRun
from affect.engine.data.selection import open_dataset, val_selection
from affect.engine.evaluation.scorer import Scorer
from affect.engine.runs.folder import read_history, state_of
from affect.engine.system.distributed import joined
from affect.engine.training.auto_batch_size import with_batch_size
from affect.engine.training.task_outputs import task_of
from affect.engine.training.trainer import Trainer
from affect.shards.errors import InputError


@dataclass(frozen=True)
class Trial:
    """batch: samples. peak: bytes, of the GPU, or of the process on a CPU. seconds: of a step, of validation."""

    batch: int
    device: str
    peak: int
    step_s: float
    validation_s: float
    steps_an_epoch: int

    @property
    def epoch_s(self) -> float:
        return self.steps_an_epoch * self.step_s + self.validation_s

    def __str__(self) -> str:
        return (
            f"a step on {self.batch} samples: {self.step_s:.2f} s on {self.device}, at most {self.peak / 2**30:.2f} GiB; an "
            f"epoch: {self.steps_an_epoch} steps and validation, {clock(self.epoch_s)}"
        )


def try_step(run: RunConfig, steps: int = 1, *, validate: bool = True) -> Trial:
    """Time some updates, after one that warms up, and a validation, as training does them; nothing stays on disk.

    validate: else a row that validates is taken to cost a third of one that trains.
    """
    dataset = open_dataset(run.data.dataset)
    task = task_of(run, dataset)
    run = with_batch_size(run, task, dataset.info.layout, None)
    with joined(run.train.device) as ranks, tempfile.TemporaryDirectory() as folder:
        on_gpu = ranks.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(ranks.device)
        score = Scorer(run, task, dataset)
        trainer = Trainer(run, task, dataset, Path(folder), ranks, score, lambda line: None, None)
        trainer.model.train()
        batches = trainer.loader.from_step(0)
        trainer.step(next(batches))
        started = time.monotonic()
        for _ in range(steps):
            trainer.step(next(batches))
        if on_gpu:
            torch.cuda.synchronize(ranks.device)
        step_s = (time.monotonic() - started) / steps
        validation_s = step_s / 3 * len(dataset.rows(val_selection(run.data))) / trainer.order.batch
        if validate:
            started = time.monotonic()
            score(trainer.model, ranks)
            validation_s = time.monotonic() - started
        peak = (
            torch.cuda.max_memory_allocated(ranks.device) if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        order = trainer.order
        return Trial(order.batch, str(ranks.device), peak, step_s, validation_s, -(-len(order.rows) // order.batch))


def dry_run(plan: CrossPlan) -> Iterator[str]:
    """Yield the lines to print."""
    general = plan.runs("all")[0].run
    yield f"folds: {', '.join(map(str, plan.folds))}; to run: {', '.join(map(str, plan.wanted))}"
    rows = open_dataset(general.data.dataset).rows(val_selection(general.data))
    yield f"fold {general.data.fold}: {len(rows):,} rows validate"
    trials = {"": try_step(general)}
    yield f"{plan.name}: {trials['']}"
    for strategy in plan.strategies:
        try:
            runs = plan.runs(strategy)
        except InputError as error:
            yield f"{strategy}: {error}"
            continue
        if strategy == "specialist":
            trials[strategy] = try_step(runs[0].run)
            yield f"{strategy}: {trials[strategy]}"
        yield f"{strategy}: {_time(runs, trials.get(strategy, trials['']))}"


def _time(runs: list[FoldRun], trial: Trial) -> str:
    ahead = [one for one in runs if one.trained and state_of(one.folder) != "finished"]
    least = most = 0
    for one in ahead:
        done, rule = len(read_history(one.continue_from)) if one.continue_from else 0, one.run.optim.early_stopping
        most += max(one.run.optim.epochs - done, 0)
        soonest = max(rule.min_epochs, rule.patience + 1) if rule else one.run.optim.epochs
        least += max(min(soonest, one.run.optim.epochs) - done, 0)
    text = f"{len(ahead)} folds, {least} to {most} epochs, {clock(least * trial.epoch_s)} to {clock(most * trial.epoch_s)}"
    return text + (f"; {len(runs) - len(ahead)} of {len(runs)} folds are there or stay" if len(ahead) < len(runs) else "")


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} h" if minutes >= 60 else f"{minutes}:{seconds:02d} min"
