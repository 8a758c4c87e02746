"""The origins of a run, recorded so that they can be checked later: files by sha256, loss terms, the conda environment."""

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
    """Return {key in fingerprint.json: (config key, file)} of the files that a run reads besides the dataset."""
    teacher, folds = run.loss.teacher, run.data.folds
    files = dict[str, tuple[str, Path]]()
    if folds and folds.file:
        files["folds"] = ("data.folds.file", Path(folds.file))
    if teacher and teacher.soft_labels:
        files["soft_labels"] = ("loss.teacher.soft_labels", Path(teacher.soft_labels) / SOFT_LABELS)
    if teacher and teacher.features:
        files["features"] = ("loss.teacher.features", Path(teacher.features))
    if teacher and teacher.run:
        files["teacher"] = ("loss.teacher.run", Path(teacher.run) / BEST)
    for name, settings in run.loss.terms.items():
        files |= {key: (f"loss.{name}.{key}", Path(path)) for key, path in settings.files.items()}
    return files


def ablation(run: RunConfig, origins: dict[str, str]) -> dict[str, Any]:
    """Return ablation_fingerprint.json: which of the terms that a configuration can add are on, their settings and files."""
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
    """Write env_conda.yml, where this runs in a conda environment; a failure is logged."""
    conda, prefix = shutil.which("conda"), os.environ.get("CONDA_PREFIX")
    if not conda or not prefix:
        return
    try:
        command = [conda, "env", "export", "--prefix", prefix]
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=CONDA_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        say(f"{CONDA}: not written: {' '.join(command[:3])}: {lines[-1] if lines else error}")
        return
    (out / CONDA).write_text(process.stdout)
