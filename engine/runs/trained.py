"""The trained model of a run, or of one of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import nn

from affect.engine.config.run import RunConfig
from affect.engine.models.build import build_model
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import CONFIG
from affect.engine.runs.folder import open_run
from affect.engine.tasks import TASKS
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout


def trained_model(path: Path) -> tuple[RunConfig, nn.Module, TargetLayout]:
    """The best model of a run, or one of its checkpoints, in float32 on the CPU, evaluating."""
    run, state = _checkpoint(path) if path.suffix == ".pt" else open_run(path)
    layout = TargetLayout.from_json(state["outputs"])
    task = TASKS[state["task"]].limited_to(tuple(output.name for output in layout.outputs))
    unfetched = run.model.model_copy(update={"pretrained": False})
    model = build_model(run.model_copy(update={"model": unfetched}), task, layout)
    try:
        model.load_state_dict(state.get("ema") or state["model"])
    except RuntimeError as error:
        raise InputError(f"{path}: the checkpoint does not fit its configuration: {error}") from error
    return run, model.eval(), layout


def _checkpoint(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    config = path.parent / CONFIG
    if path.is_file() and not config.is_file():
        raise InputError(f"{path}: no {CONFIG} beside it, which describes the model; leave a checkpoint in its run")
    state = load(path)
    return RunConfig.model_validate(yaml.safe_load(config.read_text())), state
