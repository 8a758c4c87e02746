"""The description of a run in its folder: its settings, what it was made from, the machine and packages it ran on."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from affect.engine.config.run import RunConfig
from affect.engine.runs.files import ABLATION, CONFIG, FINGERPRINT
from affect.engine.runs.folder import write_json
from affect.engine.runs.git import git_commit
from affect.engine.runs.provenance import ablation, write_conda
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset

ENVIRONMENT, FREEZE, COMMIT = "environment.json", "pip_freeze.txt", "git_commit.txt"
PACKAGES = (
    "torch",
    "timm",
    "triton",
    "numpy",
    "opencv-python-headless",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "onnxruntime-gpu",
)


def describe_run(out: Path, run: RunConfig, origins: dict[str, str], device: str) -> None:
    """Write the files that describe the run and the machine it runs on."""
    (out / CONFIG).write_text(run.dump())
    write_json(out / FINGERPRINT, origins)
    if run.loss.terms:
        write_json(out / ABLATION, ablation(run, origins))
    write_json(out / ENVIRONMENT, environment(device))
    (out / COMMIT).write_text(f"{git_commit()}\n")
    installed = {f"{package.metadata['Name']}=={package.version}" for package in metadata.distributions()}
    (out / FREEZE).write_text("".join(f"{line}\n" for line in sorted(installed, key=str.lower)))
    write_conda(out)


def fingerprint(run: RunConfig, dataset: Dataset) -> dict[str, str]:
    """The origins of the weights, by sha256."""
    folds = {"folds": file_sha256(Path(run.data.folds.file))} if run.data.folds and run.data.folds.file else {}
    return {"config": run.digest, "index": dataset.index_sha256, "git_commit": git_commit(), **folds}


def environment(device: str) -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": sys.version.split()[0], "platform": platform.platform(), "device": device, "packages": versions}
