"""Checkpoints: tensors and plain values only, whole on disk or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from affect.engine.runs.files import BEST, LAST
from affect.engine.system.log import say
from affect.shards.errors import InputError
from affect.shards.schema import Output


def save(path: Path, state: dict[str, Any]) -> None:
    """Write beside the target, then put it in place: a kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def copy_whole(path: Path, to: Path) -> None:
    """Copy a file as `save` writes one: whole or not at all."""
    partial = to.with_name(f".{to.name}.partial")
    shutil.copyfile(path, partial)
    partial.replace(to)


def load(path: Path) -> dict[str, Any]:
    """The state on the CPU. Raises InputError where the file is missing or not one of ours."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; expected a run with {LAST} and {BEST}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise kinds of theirs on a damaged file
        raise InputError(f"{path}: not readable as a checkpoint ({type(error).__name__}); take a copy, or train anew") from error
    if not isinstance(state, dict) or "model" not in state or "task" not in state:
        raise InputError(f"{path}: not a checkpoint of this engine")
    return state


def initialise(model: nn.Module, path: Path, outputs: Sequence[Output]) -> dict[str, Any]:
    """Take the weights of another run, a folder or a .pt file, as far as names and shapes agree; return where they are from.

    Raises: InputError where the classes are others, or no weight of the backbone fits.
    """
    path = path / BEST if path.is_dir() else path
    state = load(path)
    theirs = {output["name"]: tuple(output["names"]) for output in state["outputs"]}
    for output in outputs:
        if output.name in theirs and theirs[output.name] != output.names:
            raise InputError(
                f"{path}: its classes of {output.name!r} are {', '.join(theirs[output.name])}; here they are "
                f"{', '.join(output.names)}: they must be the same, in this order; pack the data with the first run's classes"
            )
    ours = model.state_dict()
    taken = {name: value for name, value in state["model"].items() if name in ours and ours[name].shape == value.shape}
    backbone = [name for name in ours if name.startswith("backbone.")]
    if missing := [name for name in backbone if name not in taken]:
        raise InputError(
            f"{path}: {len(missing)} of {len(backbone)} tensors of the backbone are not in it, first {missing[0]}; "
            "start from a run of the same model.backbone"
        )
    model.load_state_dict(taken, strict=False)
    fresh = sorted({name.rpartition(".")[0] for name in ours if name not in taken})
    say(f"init: {len(taken)} of {len(ours)} tensors from {path}" + (f"; new: {', '.join(fresh)}" if fresh else ""))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": str(path), "sha256": digest, "task": state["task"], "fingerprint": state["fingerprint"]}
