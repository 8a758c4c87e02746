"""affect tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(tables)


def tables(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="folders of runs with a reliabilitymetrics.json")],
    out: Annotated[Path, typer.Option(help="where teachers.md and teachers.tex go")] = Path("viz"),
) -> None:
    """Runs side by side: accuracy, F1, calibration; the seeds' teachers below them."""
    from affect.engine.report.tables import write_tables

    text, paths = write_tables(runs, out)
    print(text)
    print(", ".join(map(str, paths)))
