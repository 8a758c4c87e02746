"""affect mouse-report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from affect.engine.cli.options import Json

TEXT, FIGURES = "mouse.md", "mouse.json"


def register(app: typer.Typer) -> None:
    app.command("mouse-report")(mouse_report)


def mouse_report(
    model: Annotated[Path, typer.Argument(metavar="CROSSVAL", help="of the temporal model: a folder of affect crossval")],
    set_model: Annotated[Path | None, typer.Option("--set-model", help="of the set model")] = None,
    shuffled: Annotated[Path | None, typer.Option(help="retrained with data.clip.order=shuffled")] = None,
    single: Annotated[Path | None, typer.Option(help="retrained with data.clip.order=single")] = None,
    before: Annotated[Path | None, typer.Option(help="retrained on frames before the stimulus: data.clip.end_s")] = None,
    background: Annotated[Path | None, typer.Option(help="retrained on a dataset packed with --background")] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="NAME=CROSSVAL", help="of the 2x2: baseline, ldl, temporal, both; repeat")
    ] = None,
    high: Annotated[int, typer.Option(min=1, help="the level from which a trial is stress")] = 3,
    out: Annotated[Path | None, typer.Option(help="default: mouse-report/ in the first folder")] = None,
    as_json: Json = False,
) -> None:
    """Report a model of stress of mice, or of its level, beside motion and controls that show other causes."""
    from affect.engine.crossval.mouse_report import mouse_report as report
    from affect.engine.report import mouse_cohorts as mouse
    from affect.engine.report.pain.texts import plain
    from affect.engine.runs.folder import write_json
    from affect.shards.errors import InputError

    folders = {
        mouse.MODEL: model, mouse.SET: set_model, mouse.SHUFFLED: shuffled, mouse.SINGLE: single, mouse.BEFORE: before,
        mouse.BACKGROUND: background,
    }  # fmt: skip
    points = [text.partition("=") for text in point or []]
    if wrong := [name + sign for name, sign, folder in points if not folder]:
        raise InputError(f"--point {wrong[0]}: expected NAME=CROSSVAL, such as both=runs/both")
    text, figures = report(
        {name: folder for name, folder in folders.items() if folder}, {name: Path(folder) for name, _, folder in points}, high
    )  # fmt: skip
    out = out or model / "mouse-report"
    out.mkdir(parents=True, exist_ok=True)
    (out / TEXT).write_text(text, encoding="utf-8")
    write_json(out / FIGURES, plain(figures))
    print(f"{text}\n{out / TEXT}")
    if as_json:
        print(json.dumps(plain(figures)))
