"""affect crossval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from affect.engine.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command()(crossval)


def crossval(
    config: Annotated[str, typer.Argument(help="a YAML file of a run, or the name of a config: pain_v1, pain_v2")],
    folds: Annotated[str, typer.Option(help="of them only these, as 0 or 0,3; default: all")] = "",
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="all: every fold anew (the default); continue: go on with folds that these settings would not have ended; "
            "finetune: the best fold, gently; specialist: another config; may be repeated"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the folder of all folds; default: runs/crossval_CONFIG")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="of continue and finetune: the cross-validation to start from; default: --out")
    ] = None,
    specialist: Annotated[str, typer.Option(help="the specialist's config; default for pain: pain_m2")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="change one value of all runs, e.g. optim.epochs=5; may be repeated")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="one full-size step: its memory, and the time each strategy would take")
    ] = False,
    report_only: Annotated[bool, typer.Option("--report", help="train nothing; write the report of what is finished")] = False,
    as_json: Json = False,
) -> None:
    """Train a run for each fold, predict the held-out folds, and report all folds together."""
    from affect.engine.crossval.plan import plan
    from affect.shards.errors import InputError

    planned = plan(config, settings or [], out, folds=folds, strategies=strategy or ["all"], source=source, specialist=specialist)
    if dry_run:
        from affect.engine.crossval.trial import dry_run as trial

        for line in trial(planned):
            print(line)
        return
    from affect.engine.crossval.crossval_report import REPORT, report
    from affect.engine.crossval.run_folds import train_folds

    failed = [] if report_only else train_folds(planned)
    text, figures = report(planned.out)
    print(text)
    print(planned.out / REPORT)
    if as_json:
        print(json.dumps({"out": str(planned.out), **figures}, default=str))
    if failed:
        raise InputError(f"crossval: {len(failed)} folds failed: {', '.join(failed)}; why is above")
