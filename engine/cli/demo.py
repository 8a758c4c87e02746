"""affect demo, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(doctor)


def demo(
    source: Annotated[
        str | None, typer.Option(help="your own picture, folder, video or camera number, read by the built-in model")
    ] = None,
    out: Annotated[Path, typer.Option(help="everything goes here; replaced if a demo made it")] = Path("demo"),
) -> None:
    """Pack, verify, train, evaluate, export and predict on synthetic faces: four minutes on a CPU, with --source seconds."""
    if source is not None:
        from affect.engine.demo.source_demo import show

        show(source, out)
        return
    from affect.engine.demo.synthetic_demo import demo

    demo(out)


def doctor() -> None:
    """Print what is installed, what works, and what will be used."""
    from affect.engine.system.doctor import report

    for name, finding in report():
        print(f"{name:22s} {finding}")
