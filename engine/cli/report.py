"""affect report."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from affect.engine.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command()(report)
    app.command()(card)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of runs")],
    verify: Annotated[
        bool, typer.Option("--verify", help="compute again what the run was made from, as far as the files are here, and compare")
    ] = False,
    as_json: Json = False,
) -> None:
    """Describe runs by their files: settings, figures, drop on other sets; no dataset is needed."""
    from affect.engine.report.run_figures import shown
    from affect.engine.report.run_report import report

    checks: dict[str, list[dict[str, Any]]] = {str(run): [] for run in runs}
    for run in runs:
        print(report(run))
        if verify:
            from affect.engine.report.verify_run import verify as verified

            for check in verified(run):
                print(f"  {check.state:9s} {check.what}: {check.of}")
                checks[str(run)].append({"what": check.what, "state": check.state, "of": check.of})
            print()
    if as_json:
        print(json.dumps(checks))
    if wrong := [f"{shown(run)}: {c['what']}" for run in runs for c in checks[str(run)] if c["state"] == "differs"]:
        from affect.shards.errors import InputError, first

        raise InputError(f"{len(wrong)} files are not what the runs were made from:\n{first(wrong, 20)}")


def card(
    model: Annotated[str, typer.Argument(help="a package folder, an exported run, one of our .onnx files, or emotion")],
    npz: Annotated[
        Path | None, typer.Option(help="an npz of images and votes or labels; of votes both protocols are measured")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="or a packed dataset, of which --split")] = None,
    split: Annotated[str, typer.Option(help="of --data")] = "val",
    calib: Annotated[
        float, typer.Option(min=0, max=1, help="of an npz: the share by which it was packed; see affect evaluate")
    ] = 0.0,
    notes: Annotated[
        Path | None, typer.Option(help="Markdown that stands in the card: terms of the data, intended use, where the model fails")
    ] = None,
    out: Annotated[Path, typer.Option(help="where CARD.md, card.json and what was evaluated go")] = Path("card"),
) -> None:
    """Write a model card in Markdown and JSON, with figures measured here."""
    from affect.engine.report.card import write_card
    from affect.engine.system.progress import Progress
    from affect.shards.errors import InputError

    if (npz is None) == (data is None):
        raise typer.BadParameter("give one of --npz, --data")
    if notes and not notes.is_file():
        raise InputError(f"--notes {notes}: no such file; expected Markdown")
    text = notes.read_text(encoding="utf-8") if notes else ""
    progress = partial(Progress, "evaluate", None, "images")
    if npz:
        from affect.engine.evaluation.unpacked import evaluate_npz, protocols_of

        sets = {}
        for protocol in protocols_of(npz):
            name = protocol or npz.stem
            sets[name] = evaluate_npz(Path(model), npz, out / "evaluated" / name, progress(), protocol=protocol, calib=calib)
    else:
        from affect.engine.evaluation.evaluate import evaluate

        assert data
        sets = {f"{data.name}, {split}": evaluate(Path(model), data, split, out / "evaluated" / split, progress())}
    print(write_card(model, sets, out, text))
