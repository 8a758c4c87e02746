"""One JSON line per measurement, in a file per kind of machine: bench/results/<machine>.jsonl.

A line says what was measured, on which processor, with which versions: no host names, no paths.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.engine.run import git_commit

RESULTS = Path(__file__).parent / "results"
VERSIONS = {
    "torch": ("torch",),
    "timm": ("timm",),
    "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "opencv": ("opencv-python-headless",),
    "webdataset": ("webdataset",),
}


def line(
    op: str, provider: str, settings: dict[str, Any], unit: str, values: Sequence[float], ratio_to_best_peer: float,
    packages: Sequence[str] = ("torch", "dali", "opencv", "webdataset"),
) -> dict[str, Any]:  # fmt: skip
    """One measurement: 20th, 50th and 80th percentile of `values` under the name of their unit, and where they were taken.

    packages: that did the work, of VERSIONS.
    """
    low, middle, high = np.percentile(values, (20, 50, 80)).round(2).tolist()
    return {
        "op": op,
        "provider": provider,
        "settings": settings,
        unit: {"p20": low, "p50": middle, "p80": high},
        "ratio_to_best_peer": round(ratio_to_best_peer, 3),
        **machine(),
        "versions": versions(packages),
        "commit": git_commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def append(lines: Sequence[dict[str, Any]], folder: Path = RESULTS) -> Path:
    """Add the lines to this machine's file and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{machine_name()}.jsonl"
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(entry) + "\n" for entry in lines)
    return path


def machine() -> dict[str, Any]:
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"cpu": _cpu_model(), "cores": os.cpu_count(), **gpu}


def machine_name() -> str:
    """What the machine is, as a file name: `intel-xeon-processor-2-cores`."""
    found = machine()
    text = f"{found['cpu']} {found['cores']} cores {found.get('gpu', '')}".lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text)).strip("-")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """One that is not installed is left out."""
    found = {}
    for name in packages:
        for distribution in VERSIONS[name]:
            try:
                found[name] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    return found


def _cpu_model() -> str:
    """The processor's name as Linux gives it, elsewhere the architecture."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()
