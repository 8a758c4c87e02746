"""affect sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from affect.engine.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command()(sweep)


def sweep(
    config: Annotated[str, typer.Argument(help="a YAML file of a sweep, or the name of one: sweep_dgeo, sweep_ablation")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="change one value of all points, e.g. optim.epochs=5; may be repeated")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the folder of its runs and results; default: runs/ and its name")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the points, and what is missing, without starting")] = False,
    as_json: Json = False,
) -> None:
    """Train a run for each point of a grid, and choose one by sets that are separate from those reported."""
    from affect.engine.sweep.sweep_plan import plan

    planned = plan(config, settings or [], out)
    from affect.engine.runs.folder import state_of
    from affect.engine.sweep.run_sweep import check, sweep
    from affect.shards.errors import InputError

    if dry_run:
        for one in planned.runs:
            values = ", ".join(f"{key}={value}" for key, value in one.point.settings.items()) or "as the base"
            print(f"{one.folder}: {state_of(one.folder)}; {values}; seed {one.run.seed}, {one.run.optim.epochs} epochs")
        print(f"chosen by: {', '.join(f'{name}†' for name in planned.config.select_on)}; reported: "
              + (", ".join(planned.config.report_on) or "nothing else"))  # fmt: skip
        check(planned)
        return
    results = sweep(planned)
    from affect.engine.report.paper import write_all
    from affect.engine.report.render import markdown
    from affect.engine.report.sweeps import sweep_plot, sweep_table

    text = markdown(sweep_table(results))
    (planned.out / "sweep.md").write_text(text, encoding="utf-8")
    sweep_plot(results, planned.out / "sweep.png")
    figures = [value for point in results["points"] for run in point["runs"] for value in run.get("figures", {}).values()]
    of_classes = figures and all("present_only" in value for value in figures)
    _, paths = write_all([planned.out], planned.out / "viz") if of_classes else ("", [])
    print(text)
    print(f"chosen: {results['chosen'] or 'nothing'}")
    print(", ".join(map(str, [planned.out / "sweep.json", planned.out / "sweep.png", *paths])))
    if as_json:
        print(json.dumps({"out": str(planned.out), **results}))
    failed = [run["folder"] for point in results["points"] for run in point["runs"] if "error" in run]
    if failed:
        raise InputError(f"sweep: {len(failed)} of {len(planned.runs)} runs failed: {', '.join(failed)}; why is in sweep.json")
