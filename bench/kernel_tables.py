"""The lines of the kernel bench as tables; needs no package besides torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from affect.bench.losses import OPS

SHORT = {"float32": "fp32", "bfloat16": "bf16"}
Table = tuple[str, list[str], list[list[str]]]  # title, headers, rows


def tables(lines: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Return what the machine can do, then a table an op: under each case its providers."""
    ops = {op: list(group) for op, group in groupby(lines, key=lambda line: line["op"].removeprefix("kernels."))}
    copied = ops["copy"][0]
    mib = copied["settings"]["shape"]["bytes"] / 2**20
    floors = [[_name(line, op), *_times(line)] for op in ops if op not in OPS for line in ops[op]]
    yield f"a copy of {mib:,.0f} MiB: {copied['gb_per_s']:,.1f} GB/s", ["", "ms p20", "p50", "p80"], floors
    memory = ["MiB"] if any("peak_mib" in line for line in lines) else []
    for op in [op for op in ops if op in OPS]:
        rows = []
        for case, group in groupby(ops[op], key=lambda line: line["settings"]["shape"] | {"dtype": line["settings"]["dtype"]}):
            *sizes, dtype = case.values()
            rows.append([f"{'x'.join(map(str, sizes))} {SHORT[dtype]}", *[""] * (6 + len(memory))])
            rows += [[f"  {_name(line, line['provider'])}", *_times(line), *_figures(line)] for line in group]
        axes = " x ".join(ops[op][0]["settings"]["shape"])
        headers = [axes, "ms p20", "p50", "p80", "of the copy", "to best peer", "to eager", *memory]
        yield f"{op}, forward and backward", headers, rows


def _name(line: dict[str, Any], name: str) -> str:
    return f"{name}, graph" if line["settings"]["mode"] == "graph" else name


def _times(line: dict[str, Any]) -> list[str]:
    return [f"{line['ms'][p]:.{4 if line['ms'][p] < 1 else 2}f}" for p in ("p20", "p50", "p80")]


def _figures(line: dict[str, Any]) -> list[str]:
    ratios = [f"{line['ratio_to_best_peer']:.2f}x", f"{line['ratio_to_eager']:.2f}x"]
    memory = [f"{line['peak_mib']:,.1f}"] if "peak_mib" in line else []
    return [f"{100 * line['share_of_copy']:.1f} %", *ratios, *memory]
