"""The lines of `affect bench` as tables on the terminal."""

from __future__ import annotations

from typing import Any


def show_latency(op: str, lines: list[dict[str, Any]]) -> None:
    unit = next(name for name in ("ms", "frames_per_s", "mb") if name in lines[0])
    digits = 1 if unit != "ms" else 3
    extra = {"ms_p95": "p95", "gflop_per_s": "GFLOP/s", "share_of_matmul": "of torch's matmul", "growth_mb": "growth"}
    extra = {name: title for name, title in extra.items() if name in lines[0]}
    rows = []
    for line in lines:
        what = ", ".join(f"{key} {line['settings'][key]}" for key in ("batch", "frames") if key in line["settings"])
        figures = ["" if line[name] is None else f"{line[name]:g}" for name in extra]
        times = [f"{line[unit][p]:.{digits}f}" for p in ("p20", "p50", "p80")]
        rows.append([what, line["provider"], *times, f"{line['ratio_to_best_peer']:.2f}x", *figures])
    show(f"{op}: {unit}", ["", "provider", "p20", "p50", "p80", "to best peer", *extra.values()], rows)


def show_loaders(title: str, lines: list[dict[str, Any]]) -> None:
    rows = [
        [line["settings"]["variant"], line["provider"], *_figures(line), f"{line['settings']['mean_difference']:.3f}"]
        for line in lines
    ]
    show(title, ["", "provider", "p20", "p50", "p80", "to best peer", "levels off"], rows)


def show_steps(title: str, lines: list[dict[str, Any]], skipped: dict[str, str]) -> None:
    rows = [
        [
            line["provider"], *_figures(line), f"{1000 * line['settings']['batch'] / line['images_per_s']['p50']:.1f}",
            f"{100 * line['settings']['loss_off']:.2f} %",
        ]
        for line in lines
    ]  # fmt: skip
    show(title, ["provider", "images/s p20", "p50", "p80", "to timm's best", "ms a step", "loss off"], rows)
    for name, reason in skipped.items():
        print(f"{name}: not measured: {reason}")


def _figures(line: dict[str, Any]) -> list[str]:
    rate = line["images_per_s"]
    digits = 0 if rate["p50"] >= 100 else 1
    return [*(f"{rate[p]:,.{digits}f}" for p in ("p20", "p50", "p80")), f"{line['ratio_to_best_peer']:.2f}x"]


def show(title: str, headers: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    columns = [Column(header, no_wrap=header in ("", "provider")) for header in headers]
    table = Table(*columns, title=title, collapse_padding=True)
    for row in rows:
        table.add_row(*row)
    Console(width=max(120, Console().width)).print(table)
