"""`backend="auto"`: the fastest backend that loads on this machine, timed once and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np

from affect.engine.package.graphs import INT8
from affect.engine.runtime.backends.backend import Backend, Choice, Precision
from affect.engine.system.log import say
from affect.shards.errors import InputError

SECONDS = 1.0  # of timing, all together
ROUNDS = 4
LIBRARIES = ("onnxruntime-gpu", "onnxruntime", "openvino", "tensorrt-rtx", "tensorrt")

Open = Callable[[Choice], Backend]


@dataclass(frozen=True)
class Candidates:
    """The backends that may run a graph. row: shape of one row of its uint8 input. precisions: those allowed."""

    graph: Path
    row: tuple[int, ...]
    device: str
    threads: int | None = None
    precisions: tuple[Precision, ...] = ("float32",)

    @property
    def choices(self) -> list[Choice]:
        """Return the choices in the order in which they are tried. On a GPU OpenVINO is none of them."""
        choices = [Choice("onnxruntime"), Choice("openvino" if self.device == "cpu" else "tensorrt")]
        if self.device == "cpu" and "bf16" in self.precisions:
            choices.append(Choice("openvino", "bf16"))
        if "int8" in self.precisions:
            choices += [Choice(choice.backend, "int8") for choice in choices[:2]]
        return choices

    def open(self, open_choice: Open) -> Backend:
        """Open the remembered choice, or the fastest, which is then remembered. Raises InputError where none loads."""
        path, key = cache_file(), self.key
        cached = _read(path).get(key)
        if cached and (backend := self._reopen(cached, open_choice)):
            return backend
        ready, failed = self._load(open_choice)
        if not ready:
            raise InputError(f"{self.graph}: no backend loads: {'; '.join(failed)}")
        times = timed(ready, self.row, SECONDS)
        best = min(times, key=lambda choice: times[choice])
        for choice, backend in ready.items():
            if choice != best:
                backend.close()
        table = {str(choice): round(ms, 3) for choice, ms in times.items()}
        if not failed:  # what fails today may load tomorrow
            _write(path, key, {"choice": str(best), "ms": table})
        listed = ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(table.items(), key=lambda item: item[1]))
        reason = f"the fastest of {listed} ms a call" if len(table) > 1 else "the only one that loads"
        say(f"backend: {ready[best].description}: {reason}; not tried: {self._untried()}")
        return ready[best]

    def _load(self, open_choice: Open) -> tuple[dict[Choice, Backend], list[str]]:
        ready: dict[Choice, Backend] = {}
        failed = []
        for choice in self.choices:
            try:
                backend = open_choice(choice)
                backend.run(np.zeros((1, *self.row), np.uint8))
                ready[choice] = backend
            except (InputError, RuntimeError) as error:
                failed.append(f"{choice}: {error}")
                say(f"backend: {choice} does not load: {error}")
        return ready, failed

    def _reopen(self, cached: dict[str, object], open_choice: Open) -> Backend | None:
        try:
            choice = Choice.parse(str(cached["choice"]))
            if choice not in self.choices:
                return None
            backend = open_choice(choice)
        except (InputError, RuntimeError, KeyError) as error:
            say(f"backend: the choice of an earlier time does not load: {error}; choosing anew")
            return None
        say(f"backend: {backend.description}: the fastest when it was timed on this machine ({cache_file()})")
        return backend

    def _untried(self) -> str:
        """Why there are not more."""
        lacking = [name for name in ("bf16", "int8") if name not in self.precisions]
        reasons = [f"{' and '.join(lacking)} (not measured in the manifest)"] if lacking else []
        return ", ".join([*reasons, "torch (only when named)"])

    @property
    def key(self) -> str:
        """Hash of the graph, the choices, the machine and the versions of the libraries."""
        sha256 = hashlib.sha256(self.graph.read_bytes())
        if "int8" in self.precisions:
            sha256.update(self.graph.with_name(INT8).read_bytes())
        about = [sha256.hexdigest(), *map(str, self.choices), self.device, self.threads, machine(), versions()]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def timed(ready: dict[Choice, Backend], row: tuple[int, ...], seconds: float = SECONDS) -> dict[Choice, float]:
    """Median milliseconds of a call with one row, in interleaved rounds, so that other load meets all alike.

    In a round each has its calls one after the other, the first of which does not count: threads of the one before may still be
    spinning, which made a call of the next twice as long.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, *row), np.uint8)
    times: dict[Choice, list[float]] = {choice: [] for choice in ready}
    for _ in range(ROUNDS):
        for choice, backend in ready.items():
            backend.run(image)
            end = time.perf_counter() + seconds / (ROUNDS * len(ready))
            began = time.perf_counter()
            while not times[choice] or began < end:
                backend.run(image)
                ended = time.perf_counter()
                times[choice].append(1e3 * (ended - began))
                began = ended
    return {choice: median(values) for choice, values in times.items()}


def machine() -> str:
    """Processor, cores that may be used, GPUs."""
    cpu, gpus = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")][:1]
    for about in sorted(gpus.glob("*/information")) if gpus.is_dir() else ():
        names += [line.partition(":")[2].strip() for line in about.read_text().splitlines() if line.startswith("Model")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{', '.join(names)}, {cores} cores"


def versions() -> dict[str, str]:
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "affect" / "backends.json"


def _read(path: Path) -> dict[str, dict[str, object]]:
    """Empty where there is none, or it cannot be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {key: cached for key, cached in value.items() if isinstance(cached, dict)} if isinstance(value, dict) else {}


def _write(path: Path, key: str, cached: dict[str, object]) -> None:
    """Replace the file at once: several processes may choose at the same time. What cannot be written is timed anew."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(_read(path) | {key: cached}, indent=1))
        partial.replace(path)
    except OSError as error:
        say(f"backend: {path} cannot be written ({error.strerror or error}); the choice is not remembered")
