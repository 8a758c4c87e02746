"""The losses, forward and backward, side by side: eager torch, the same compiled, Triton: python -m affect.bench.kernels

Before a case is timed, the loss and the gradients of every provider are compared with the float64 reference. Rounds are
interleaved, so that what else the machine does meets all alike. Besides torch, numpy and Triton no package is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affect.bench import record
from affect.bench.kernel_tables import tables
from affect.bench.losses import OPS, Case, cases, compare
from affect.bench.timing import Clock, Step, Timing, captured, copy, empty_kernel, peak_mib
from affect.shards.errors import InputError

NO_GPU = "no GPU here; Triton's interpreter runs the kernels too, but its time is not theirs"


@dataclass(frozen=True)
class Provider:
    """kernels: the environment's KERNELS."""

    name: str
    kernels: str
    compiled: bool = False

    @contextmanager
    def chosen(self) -> Iterator[None]:
        before = os.environ.get("KERNELS")
        os.environ["KERNELS"] = self.kernels
        try:
            yield
        finally:
            del os.environ["KERNELS"]
            if before is not None:
                os.environ["KERNELS"] = before


EAGER, COMPILED, TRITON = Provider("eager", "reference"), Provider("compiled", "reference", True), Provider("triton", "triton")
Key = tuple[Provider, str]  # with the mode: `eager`, or `graph`, the replay of a CUDA graph


def providers(device: torch.device, *, compile: bool = True) -> tuple[list[Provider], dict[str, str]]:
    """Those that can be timed here; and the others with the reason."""
    available, skipped = [EAGER], {}
    if compile:
        available.append(COMPILED)
    else:
        skipped[COMPILED.name] = "--no-compile"
    if device.type != "cuda":
        skipped[TRITON.name] = NO_GPU
    elif not find_spec("triton"):
        skipped[TRITON.name] = "triton is not installed"
    elif os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on"):
        skipped[TRITON.name] = "TRITON_INTERPRET is set, and the interpreter's time is not that of the kernels; unset it"
    else:
        available.append(TRITON)
    return available, skipped


@dataclass
class Ready:
    """Steps of a case that compute the same.

    off: the largest deviation from float64, of the largest value. skipped: what cannot be timed -> why.
    """

    steps: dict[Key, Step] = field(default_factory=dict)
    off: dict[Key, float] = field(default_factory=dict)
    peak_mib: dict[Provider, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def ready(case: Case, chosen: Sequence[Provider], operands: dict[str, Tensor], device: torch.device) -> Ready:
    """Every step has been taken and compared. Raises InputError where one computes something else."""
    with EAGER.chosen():
        want = list(case.step(case.in_float64(operands))())
    built = Ready()
    for provider in chosen:
        with provider.chosen():
            step = case.step(operands, compiled=provider.compiled)
            try:
                got = step()
            except RuntimeError as error:  # of the compiler, or for want of one
                if not provider.compiled:
                    raise
                built.skipped[f"{case}: {provider.name}"] = _first_line(error)
                continue
            built.off[provider, "eager"] = compare(case, provider.name, got, want)
            built.steps[provider, "eager"] = step
            if device.type == "cuda":
                _captured(case, provider, step, want, built)
    return built


def _captured(case: Case, provider: Provider, step: Step, want: list[Tensor], built: Ready) -> None:
    built.peak_mib[provider] = peak_mib(step)
    name = f"{provider.name}, graph"
    try:
        replay, results = captured(step)
    except RuntimeError as error:
        built.skipped[f"{case}: {name}"] = _first_line(error)
        return
    for value in results:
        value.fill_(torch.nan)  # and stays so where a replay does not write
    built.off[provider, "graph"] = compare(case, name, replay(), want)
    built.steps[provider, "graph"] = replay


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def rounds(clock: Clock, steps: dict[Key, Step], timing: Timing) -> dict[Key, list[list[float]]]:
    """Milliseconds of each, a list a round."""
    times_of: dict[Key, list[list[float]]] = {key: [] for key in steps}
    for _ in range(timing.rounds + 1):
        for (provider, mode), step in steps.items():
            with provider.chosen():
                times_of[provider, mode].append(clock.round(step, timing.seconds, launches=mode == "eager"))
    return {key: counted[1:] for key, counted in times_of.items()}


@dataclass(frozen=True)
class Ratios:
    """How many times as fast as peers in the same mode, where they have it; round by round: both met the same disturbance."""

    best_peer: float
    eager: float

    @classmethod
    def of(cls, key: Key, times_of: dict[Key, list[list[float]]]) -> Ratios:
        middle = {key: np.array([np.median(times) for times in counted]) for key, counted in times_of.items()}
        peers = {p: middle.get((p, key[1]), middle[p, "eager"]) for p in (EAGER, COMPILED) if (p, "eager") in middle}
        best = min(peers.values(), key=np.median)
        return cls(float(np.median(best / middle[key])), float(np.median(peers[EAGER] / middle[key])))


@dataclass(frozen=True)
class Bench:
    """copy_gb_per_s: the ceiling of this run, with which the bytes of every case are compared."""

    clock: Clock
    timing: Timing
    providers: list[Provider]
    copy_gb_per_s: float

    def lines(self, case: Case) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """A line a provider and mode, and what could not be timed with the reason. Raises InputError where one is wrong."""
        operands = case.operands(self.clock.device)
        built = ready(case, self.providers, operands, self.clock.device)
        times_of = rounds(self.clock, built.steps, self.timing)
        lines = []
        for (provider, mode), counted in times_of.items():
            times, ratios = np.concatenate(counted), Ratios.of((provider, mode), times_of)
            rate = gb_per_s(case.traffic(operands), times)
            figures = {"gb_per_s": round(rate, 2), "share_of_copy": round(rate / self.copy_gb_per_s, 4)}
            figures |= {"ratio_to_eager": round(ratios.eager, 3), "off": float(f"{built.off[provider, mode]:.2g}")}
            if provider in built.peak_mib:
                figures["peak_mib"] = round(built.peak_mib[provider], 3)
            about = {"mode": mode, "dtype": case.dtype_name, "shape": case.sizes, **asdict(self.timing)}
            lines.append(_line(case.op, provider.name, about, times, figures, ratios.best_peer))
        return lines, built.skipped


def gb_per_s(num_bytes: int, times: np.ndarray) -> float:
    """times: milliseconds."""
    return num_bytes / float(np.median(times)) / 1e6


def _line(
    op: str, provider: str, about: dict[str, Any], times: np.ndarray, figures: dict[str, Any], ratio: float = 1.0
) -> dict[str, Any]:
    return record.line(
        f"kernels.{op}", provider, about, "ms", times.tolist(), ratio, packages=("torch", "triton"), figures=figures, digits=5
    )


def floors(clock: Clock, timing: Timing, *, empty: bool) -> tuple[float, list[dict[str, Any]]]:
    """GB/s of a large copy; its line and, if asked for, those of a kernel that does nothing."""
    step, num_bytes = copy(clock.device)
    seconds, settings = timing.seconds * timing.rounds, asdict(timing)
    clock.round(step, timing.seconds, launches=False)
    times = np.array(clock.round(step, seconds, launches=False))
    rate = gb_per_s(num_bytes, times)
    about = {"mode": "eager", "dtype": "float32", "shape": {"bytes": num_bytes // 2}, **settings}
    lines = [_line("copy", "torch", about, times, {"gb_per_s": round(rate, 2)})]
    if empty:
        launch = empty_kernel(clock.device)
        launch()
        for mode, step in (("eager", launch), ("graph", captured(launch)[0])):
            times = np.array(clock.round(step, seconds, launches=mode == "eager"))
            lines.append(_line("empty_kernel", TRITON.name, {"mode": mode, "dtype": "", "shape": {}, **settings}, times, {}))
    return rate, lines


@dataclass
class Report:
    """lines: of measurements. not_measured: what -> why. wrong: cases that compute something else, and were not timed."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def keep(self, lines: list[dict[str, Any]], folder: Path | None) -> None:
        self.lines += lines
        if folder:
            record.append(lines, folder)

    def check(self) -> None:
        """Raises InputError where a case was wrong."""
        if self.wrong:
            raise InputError("\n".join(self.wrong))


def bench_kernels(
    chosen: Sequence[Case],
    device: torch.device,
    timing: Timing,
    advance: Callable[[int], None],
    *,
    compile: bool = True,
    folder: Path | None = None,
) -> Report:
    """folder: where <machine>.jsonl grows, case by case, so that what ends the run early leaves them; None: nowhere."""
    available, skipped = providers(device, compile=compile)
    clock = Clock(device)
    rate, lines = floors(clock, timing, empty=TRITON in available)
    bench, report = Bench(clock, timing, available, rate), Report(not_measured=skipped)
    report.keep(lines, folder)
    for case in chosen:
        try:
            lines, reasons = bench.lines(case)
        except InputError as error:
            report.wrong.append(str(error))
        else:
            report.keep(lines, folder)
            report.not_measured |= reasons
        advance(1)
    return report


def _print(title: str, headers: list[str], rows: list[list[str]]) -> None:
    """Print tables where rich is not installed."""
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    print(f"\n{title}")
    for first, *others in [headers, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def main(arguments: Sequence[str] | None = None) -> None:
    """`affect bench kernels` for a machine without typer and rich."""
    parser = argparse.ArgumentParser(prog="python -m affect.bench.kernels", description="Losses, forward and backward.")
    parser.add_argument("--op", choices=["all", *OPS], default="all", help="one loss alone")
    parser.add_argument("--seconds", type=float, default=Timing.seconds, help="of a round")
    parser.add_argument("--rounds", type=int, default=Timing.rounds)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--save", action="store_true", help="append to bench/results/<machine>.jsonl")
    parser.add_argument("--json", action="store_true", help="one machine-readable line at the end")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = record.RESULTS if options.save else None
    chosen = cases(OPS if options.op == "all" else [options.op], device)
    report = bench_kernels(
        chosen, device, Timing(options.seconds, options.rounds), lambda count: None, compile=not options.no_compile, folder=folder
    )
    for table in tables(report.lines):
        _print(*table)
    for name, reason in report.not_measured.items():
        print(f"{name}: not measured: {reason}")
    if options.json:
        print(json.dumps({"bench": "kernels", "measurements": report.lines, "not_measured": report.not_measured}))
    try:
        report.check()
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
