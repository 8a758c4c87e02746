"""`affect demo --source`: the built-in model on the user's own faces, in seconds. Needs neither torch nor DALI."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from affect.engine.package.builtin import DEFAULT_MODEL
from affect.engine.runtime.engine import Engine
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.vision.subject import HUMAN, Search
from affect.engine.runtime.writers.result_folder import run_source
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.shards.errors import InputError

MARK = ".made-by-affect-demo"
DETECT_EVERY, DETECT_WIDTH = 3, 480  # frames, pixels


def show(source: str, out: Path) -> None:
    """Run the built-in model on a picture, folder, video or camera; `out` is replaced if a demo made it."""
    opened = open_source(source)
    if out.resolve() in (Path(source).resolve(), *Path(source).resolve().parents):
        raise InputError(f"{source}: lies in {out}, which is replaced; name another folder: affect demo --source ... --out DIR")
    start_over(out)
    search = Search(HUMAN[0], DETECT_EVERY if opened.moving else 1, detect_width=DETECT_WIDTH)
    with Engine.load(DEFAULT_MODEL) as engine, Progress("run", None, "frames") as progress:
        summary = run_source([engine], opened, out, search=search, video=True, advance=progress.advance)
        backend = engine.description
    table = Table("", "result", title=f"affect demo --source {source}")
    for label, count in summary["packages"][engine.name]["labels"].items():
        table.add_row(label, f"{count:,} of {summary['faces']:,} faces ({100 * count / summary['faces']:.0f} %)")
    table.add_row(
        "frames", f"{summary['frames']:,}, {summary['frames_without_a_face']:,} without a face; {summary['fps']:,.0f} a second"
    )
    table.add_row("inference backend", backend)
    for path in sorted(out.iterdir()):
        if path.name != MARK:
            table.add_row("", str(path))
    Console(width=max(120, Console().width)).print(table)
    if not summary["faces"]:
        say("no face: the built-in face detector sees upright, frontal ones; another: affect run --subject yunet:FILE.onnx")


def start_over(out: Path) -> None:
    """Make an empty folder in place of an earlier demo's; raises InputError where something else is there."""
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already and no demo made it; name another: affect demo --out DIR")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
