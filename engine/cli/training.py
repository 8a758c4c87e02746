"""affect train, calibrate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from affect.engine.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(calibrate)


def train(
    config: Annotated[str, typer.Argument(help="a YAML file, or the name of a config: smoke, teacher_rn18")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="change one value, e.g. optim.lr=1e-3; may be repeated")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the folder of the run; default: runs/ and its name")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where the run in that folder stopped")] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="start from the weights of another run: its folder or one of its .pt files")
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="when it is done, a link of this name beside the run, in place of an older one"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model, calibrate and export it."""
    from affect.engine.config.load import load_config
    from affect.engine.runs.alias import check_alias, make_alias
    from affect.shards.errors import InputError

    if resume and init_from:
        raise InputError("--resume goes on with a run, --init-from starts another one: give one of them")
    run = load_config(config, settings)
    from affect.engine.pipeline import train
    from affect.engine.system.distributed import first_process

    out = out or Path("runs") / (run.folder or Path(config).stem)
    link = check_alias(out, alias) if alias is not None else None
    train(run, out, resume=resume, init_from=init_from)
    if first_process():
        if link:
            make_alias(link, out)
            print(f"{link} -> {link.readlink()}")
        _print(out, as_json)


def calibrate(
    run: Annotated[Path, typer.Argument(help="the folder of a run")],
    mode: Annotated[
        Literal["global", "vector", "fixed", "none"], typer.Option(help="one temperature, one a class, that of --temperature")
    ] = "global",
    temperature: Annotated[float, typer.Option(help="of mode fixed", min=0.01)] = 1.0,
    coverage: Annotated[
        float | None, typer.Option(help="also fit conformal sets of labels that hold the right one in this share of faces: 0.9")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit the temperature of a finished run on its calib rows, and write its figures and graphs anew."""
    from affect.engine.calibration.conformal import checked_coverage
    from affect.engine.config.run import CalibrationConfig
    from affect.engine.pipeline import complete

    if coverage is not None:
        checked_coverage(coverage)
    complete(run, CalibrationConfig(mode=mode, temperature=temperature, coverage=coverage))
    _print(run, as_json)


def _print(out: Path, as_json: bool) -> None:
    """Print the figures of a run's folder."""
    from affect.engine.cli.figure_lines import minority_line, output_lines
    from affect.engine.runs.files import METRICS, RELIABILITY
    from affect.engine.runs.folder import read_history

    history, metrics = read_history(out), json.loads((out / METRICS).read_text())
    reliability = json.loads((out / RELIABILITY).read_text()) if (out / RELIABILITY).is_file() else {}
    if reliability:
        _print_classes(out, reliability, len(history))
        print(f"  {minority_line(metrics)}")
    if "conformal" in metrics:
        print("\n".join(_set_lines(metrics["conformal"], metrics["split"])))
    for name, figures in metrics["outputs"].items():
        print("\n".join(output_lines(name, figures)))
    seconds = sum(line["seconds"] for line in history)
    waiting = sum(line["waiting_share"] * line["seconds"] for line in history) / seconds
    print(f"{seconds / len(history):.1f} s an epoch, waiting for data {100 * waiting:.2f} % of it; {out / METRICS}")
    if as_json:
        chosen = next(line for line in history if line["epoch"] == metrics["epoch"])
        sides = {key: reliability.get(key) for key in ("raw", "temperature_scaled")}
        sides |= {"outputs": metrics["outputs"], "conformal": metrics.get("conformal")}
        print(json.dumps({"run": str(out), "best": str(out / "best.pt"), **chosen, **sides}))


def _set_lines(figures: dict[str, Any], split: str) -> Iterator[str]:
    """The coverage of the conformal sets on rows that they were not fitted on."""
    yield (
        f"  conformal sets, fitted on {figures['fitted_rows']:,} rows of calib: on {figures['rows']:,} rows of {split} coverage "
        f"{figures['coverage']:.3f} ({figures['asked']:g} asked, chance moves it by {figures['chance']:.3f}),"
    )
    yield (
        f"  {figures['mean_size']:.2f} labels a set, a single one in {100 * figures['one_label']:.0f} % of them; it holds "
        "over all faces, not within each class:"
    )
    for name, of in figures["per_class"].items():
        text = f"coverage {of['coverage']:.3f}, {of['mean_size']:.2f} labels, {of['rows']:,} rows" if of["rows"] else "no rows"
        yield f"    {name:12s} {text}"


def _print_classes(out: Path, figures: dict[str, Any], epochs: int) -> None:
    raw, scaled = figures["raw"], figures["temperature_scaled"]
    print(
        f"{out}: epoch {figures['epoch']} of {epochs}, accuracy {raw['accuracy']:.4f}, macro-F1 {raw['macro_f1']:.4f}, "
        f"bACC {raw['bacc']:.4f} on {figures['rows']:,} rows of {figures['split']} ({figures['label_protocol']} labels)"
    )
    print(f"  NLL {raw['nll']:.4f}, ECE {raw['ece']:.4f} (votes {raw['ece_votes']:.4f}), Brier {raw['brier']:.4f}")
    if scaled:
        values = ", ".join(f"{value:.3g}" for value in scaled["temperature"])
        print(
            f"  with T {values}: NLL {scaled['nll']:.4f}, ECE {scaled['ece']:.4f} (votes {scaled['ece_votes']:.4f}), "
            f"Brier {scaled['brier']:.4f}"
        )
