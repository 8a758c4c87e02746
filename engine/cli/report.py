"""affect report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of runs")],
    verify: Annotated[
        bool, typer.Option("--verify", help="compute again what the run was made from, as far as the files are here, and compare")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one machine-readable line at the end")] = False,
) -> None:
    """What a run is, its figures, its drop on other sets, from its own files; no dataset is needed."""
    from affect.engine.report.folder import shown
    from affect.engine.report.said import report

    found: dict[str, list[dict[str, Any]]] = {str(run): [] for run in runs}
    for run in runs:
        print(report(run))
        if verify:
            from affect.engine.report.verify import verify as verified

            for check in verified(run):
                print(f"  {check.state:9s} {check.what}: {check.of}")
                found[str(run)].append({"what": check.what, "state": check.state, "of": check.of})
            print()
    if as_json:
        print(json.dumps(found))
    if wrong := [f"{shown(run)}: {c['what']}" for run in runs for c in found[str(run)] if c["state"] == "differs"]:
        from affect.shards.errors import InputError, first

        raise InputError(f"{len(wrong)} files are not what the runs were made from:\n{first(wrong, 20)}")
