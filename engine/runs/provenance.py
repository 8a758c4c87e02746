"""What a run was made from, said so that it can be checked later: files by sha256, switches, the conda environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from affect.engine.config.loss_terms import term_settings
from affect.engine.config.run import RunConfig
from affect.engine.runs.files import BEST, CONDA, SOFT_LABELS
from affect.engine.system.log import say

CONDA_SECONDS = 60.0


def named_files(run: RunConfig) -> dict[str, tuple[str, Path]]:
    """Key in fingerprint.json -> (config key, file) of what a run reads besides the dataset."""
    teacher, folds = run.loss.teacher, run.data.folds
    found = dict[str, tuple[str, Path]]()
    if folds and folds.file:
        found["folds"] = ("data.folds.file", Path(folds.file))
    if teacher and teacher.soft_labels:
        found["soft_labels"] = ("loss.teacher.soft_labels", Path(teacher.soft_labels) / SOFT_LABELS)
    if teacher and teacher.features:
        found["features"] = ("loss.teacher.features", Path(teacher.features))
    if teacher and teacher.run:
        found["teacher"] = ("loss.teacher.run", Path(teacher.run) / BEST)
    for name, settings in run.loss.terms.items():
        found |= {key: (f"loss.{name}.{key}", Path(path)) for key, path in settings.files.items()}
    return found


def ablation(run: RunConfig, origins: dict[str, str]) -> dict[str, Any]:
    """ablation_fingerprint.json: which of the terms that a configuration can add are on, how, and from what."""
    terms = run.loss.terms
    read = {key: path for settings in terms.values() for key, path in settings.files.items()}
    return {
        "switches": {name: name in terms for name in term_settings()},
        "weights": {"cross_entropy": run.loss.cross_entropy} | {name: settings.weight for name, settings in terms.items()},
        "settings": {name: settings.model_dump(mode="json") for name, settings in terms.items()},
        "teacher": run.loss.teacher.model_dump(mode="json") if run.loss.teacher else None,
        "epochs": run.optim.epochs,
        "prototypes": {"path": path, "sha256": origins.get("prototypes")} if (path := read.get("prototypes")) else None,
        "config": origins["config"],
        "git_commit": origins["git_commit"],
    }


def write_conda(out: Path) -> None:
    """env_conda.yml, where this runs in a conda environment; a failure is said."""
    conda, prefix = shutil.which("conda"), os.environ.get("CONDA_PREFIX")
    if not conda or not prefix:
        return
    try:
        command = [conda, "env", "export", "--prefix", prefix]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=CONDA_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        say(f"{CONDA}: not written: {' '.join(command[:3])}: {said[-1] if said else error}")
        return
    (out / CONDA).write_text(found.stdout)
