"""affect tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(tables)


def tables(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="folders of runs, and of sweeps")],
    out: Annotated[Path, typer.Option(help="where the tables go")] = Path("viz"),
    main: Annotated[
        Path | None,
        typer.Option(help="the run of xval_main; default: the first with figures on other sets, else the chosen one of a sweep"),
    ] = None,
) -> None:
    """Tabulate runs side by side, across datasets and without their parts: Markdown and LaTeX, from the folders' files alone."""
    from affect.engine.report.paper import write_all

    text, paths = write_all(folders, out, main)
    print(text)
    print(", ".join(map(str, paths)))
