"""affect bench."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

bench_app = typer.Typer(no_args_is_help=True, help="Measure alternatives side by side.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(bench_app, name="bench")
    bench_app.callback()(lambda: None)  # so that one command alone keeps its name


@bench_app.command()
def loader(
    case: Annotated[
        Literal["all", "photo-eval", "photo-crop", "gray"],
        typer.Option(help="256 px JPEG to 224 px, whole or a random part; 48 px gray to 64 px"),
    ] = "all",
    data: Annotated[Path | None, typer.Option(help="the pictures are kept here; default: a temporary folder")] = None,
    pictures: Annotated[int, typer.Option(min=16)] = 2000,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    workers: Annotated[int, typer.Option(min=1, help="threads or processes of each provider")] = 2,
    seconds: Annotated[float, typer.Option(min=0.01, help="of a round")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    results: Annotated[Path | None, typer.Option(help="where <machine>.jsonl grows; default: bench/results")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one machine-readable line at the end")] = False,
) -> None:
    """Images a second of our loader and of those that people use."""
    from affect.bench import record
    from affect.bench.loader import CASES, Timing, bench_loader, packed, providers
    from affect.engine.progress import Progress

    names = list(CASES) if case == "all" else [case]
    lines: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="affect-bench-")))
        for name in names:
            dataset = packed(CASES[name], pictures, folder)
            with Progress(f"bench {name}", 2 * len(providers()) * (rounds + 1), "rounds") as progress:
                measured = bench_loader(name, dataset, batch, workers, Timing(seconds, rounds), progress.advance)
            _show(f"{name}: images/s, {workers} workers", measured)
            lines += measured
    print(record.append(lines, results or record.RESULTS))
    if as_json:
        print(json.dumps({"bench": "loader", "measurements": lines}))


def _show(title: str, lines: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    names = [Column(header, no_wrap=True) for header in ("", "provider")]
    table = Table(*names, "p20", "p50", "p80", "to best peer", "levels off", title=title, collapse_padding=True)
    for line in lines:
        rate, settings = line["images_per_s"], line["settings"]
        figures = [f"{rate[p]:,.0f}" for p in ("p20", "p50", "p80")]
        table.add_row(
            settings["variant"], line["provider"], *figures, f"{line['ratio_to_best_peer']:.2f}x",
            f"{settings['mean_difference']:.3f}",
        )  # fmt: skip
    Console().print(table)
