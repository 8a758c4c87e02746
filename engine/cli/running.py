"""affect run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    source: Annotated[str, typer.Argument(help="a picture, a folder, an image sequence, a video, a camera number or rtsp://...")],
    package: Annotated[Path, typer.Option(help="a package folder, an exported run or one of our .onnx files")],
    out: Annotated[Path, typer.Option(help="predictions.csv goes here")] = Path("predictions"),
) -> None:
    """Answer for every frame of a source. A frame is taken as one face, cropped already."""
    from affect.engine.progress import Progress
    from affect.engine.runtime.frame import Engine
    from affect.engine.runtime.video import run_source

    engine = Engine.load(package)
    with Progress("run", None, "frames") as progress:
        path, counts = run_source(engine, source, out, progress.advance)
    print(f"{path}: {sum(counts.values()):,} frames; " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
