"""The contents of a run's checkpoints, and going on from one: resuming equals not stopping."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from affect.engine.system.log import say
from affect.engine.training.learner import Learner, TrainState
from affect.engine.training.meter import Meter
from affect.shards.errors import InputError


def best_checkpoint(learner: Learner) -> dict[str, Any]:
    """The state that using the model takes."""
    return _described(learner) | {"model": learner.scored.state_dict()}


def last_checkpoint(learner: Learner) -> dict[str, Any]:
    """The state that going on takes. Every process must call this at once: random states and sums are those of all."""
    device, state = learner.device, learner.state
    random = {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    return _described(learner) | {
        "model": learner.model.state_dict(),
        "step": state.step,
        "best": state.best,
        "meter": state.meter.over_all(learner.ranks).plain(),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "loss": learner.loss.state_dict(),
        "ema": learner.ema.module.state_dict() if learner.ema else None,
        "lineage": learner.lineage,
        "rng": learner.ranks.gather(random),
    }


def _described(learner: Learner) -> dict[str, Any]:
    return {
        "task": learner.task,
        "outputs": [asdict(output) for output in learner.outputs],
        "fingerprint": learner.origins,
        "history": learner.state.history,
    }


def restore(learner: Learner, saved: dict[str, Any], out: Path) -> None:
    """Go on from a checkpoint of the run `out`, made by as many processes.

    Raises: InputError where the processes, or a file that the loss reads, are others.
    """
    ranks = learner.ranks
    if len(saved["rng"]) != ranks.world:
        raise InputError(f"{out}: was trained by {len(saved['rng'])} processes, now there are {ranks.world}; start as many")
    for name, digest in learner.loss.origins.items():
        if saved["fingerprint"].get(name) != digest:
            raise InputError(f"{out}: its {name} is another file by now; put the old one back, or train anew")
    learner.model.load_state_dict(saved["model"])
    learner.loss.load_state_dict(saved["loss"])
    learner.optimizer.load_state_dict(saved["optimizer"])
    learner.scaler.load_state_dict(saved["scaler"])
    if learner.ema:
        learner.ema.module.load_state_dict(saved["ema"])
    random = saved["rng"][ranks.rank]
    torch.set_rng_state(random["cpu"])
    if random["cuda"] is not None and learner.device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"], learner.device)
    learner.lineage = saved["lineage"]
    meter = Meter(**saved["meter"])
    if not ranks.first:
        meter.sums = dict.fromkeys(meter.sums, 0.0)  # the first process has everyone's
    learner.state = TrainState(saved["step"], saved["history"], saved["best"], meter)
    say(f"train: resumed at step {learner.state.step:,}")


def take_over(learner: Learner, saved: dict[str, Any], folder: Path, out: Path) -> None:
    """Go on from the last epoch of another run, `folder`: its weights, optimiser and history under this learner's settings.

    With another loss only its learned parameters are taken. saved: see `taken_over`.
    """
    decay, loss = [group["weight_decay"] for group in learner.optimizer.param_groups], learner.loss.state_dict()
    learned = dict(learner.loss.named_parameters())
    if not saved["same_loss"]:
        saved["loss"] = loss | {name: value for name, value in saved["loss"].items() if name in learned}
    try:
        restore(learner, saved, out)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: its state does not fit the model or loss of these settings: {error}") from error
    for group, value in zip(learner.optimizer.param_groups, decay, strict=True):
        group["weight_decay"] = value
    learner.state.step = learner.loader.order.first_step_of(len(learner.state.history))
    learner.lineage = {key: saved[key] for key in ("path", "sha256", "task", "fingerprint")}
    learner.lineage["epochs"] = len(learner.state.history)
