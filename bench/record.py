"""One JSON line per measurement, in a file per kind of machine: bench/results/<machine>.jsonl.

A line holds the measurement, the processor and the versions: no host names, no paths.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.engine.runs.git import git_commit

RESULTS = Path(__file__).parent / "results"
VERSIONS = {
    "torch": ("torch",),
    "triton": ("triton", "pytorch-triton"),
    "timm": ("timm",),
    "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "opencv": ("opencv-python-headless",),
    "av": ("av",),
    "webdataset": ("webdataset",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt-rtx", "tensorrt"),
}


def line(
    op: str, provider: str, settings: dict[str, Any], unit: str, values: Sequence[float], ratio_to_best_peer: float,
    packages: Sequence[str] = ("torch", "dali", "opencv", "webdataset"), figures: dict[str, Any] | None = None, digits: int = 2,
) -> dict[str, Any]:  # fmt: skip
    """One measurement: 20th, 50th and 80th percentile of `values` under the name of their unit, and where they were taken.

    packages: that did the work, of VERSIONS. figures: what else was measured.
    Where a copy of the code has no git, BENCH_COMMIT in the environment says which commit it is of.
    """
    low, middle, high = np.percentile(values, (20, 50, 80)).round(digits).tolist()
    return {
        "op": op,
        "provider": provider,
        "settings": settings,
        unit: {"p20": low, "p50": middle, "p80": high},
        "ratio_to_best_peer": round(ratio_to_best_peer, 3),
        **(figures or {}),
        **machine(),
        "versions": versions(packages),
        "commit": os.environ.get("BENCH_COMMIT") or git_commit(),
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
    gpu = {"gpu": torch.cuda.get_device_name(), **_driver()} if torch.cuda.is_available() else {}
    return {"cpu": _cpu_model(), "cores": os.cpu_count(), **gpu}


def machine_name() -> str:
    """Return the machine's name for a file: `h200`, or without a GPU `intel-xeon-processor-2-cores`."""
    facts = machine()
    text = facts.get("gpu") or f"{facts['cpu']} {facts['cores']} cores"
    text = re.sub(r"\((r|tm)\)", "", text.lower()).removeprefix("nvidia ")
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    installed = {}
    for name in packages:
        for distribution in VERSIONS[name]:
            try:
                installed[name] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    return installed


@cache
def _driver() -> dict[str, Any]:
    """The driver's version and the power limit of the GPU in use; without nvidia-smi neither, without a limit the first."""
    query = ["nvidia-smi", "--query-gpu=uuid,driver_version,power.limit", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return driver_of(text, str(torch.cuda.get_device_properties(0).uuid))


def driver_of(text: str, uuid: str) -> dict[str, Any]:
    """text: nvidia-smi's lines `GPU-<uuid>, driver, watts`. uuid: of the GPU in use, as torch has it; of an only GPU any."""
    rows = [re.split(r",\s*", row) for row in text.strip().splitlines()]
    for gpu, driver, watts in rows:
        if len(rows) == 1 or gpu.removeprefix("GPU-") == uuid.removeprefix("GPU-"):
            limit = {"power_limit_w": float(watts)} if re.fullmatch(r"[\d.]+", watts) else {}
            return {"driver": driver, **limit}
    return {}


def _cpu_model() -> str:
    """The processor's name as Linux gives it, elsewhere the architecture."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.is_file() else ""
    line = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return line[1].strip() if line else platform.machine()
