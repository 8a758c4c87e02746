"""affect softlabels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from affect.engine.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command()(softlabels)


def softlabels(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of trained runs")],
    data: Annotated[list[Path], typer.Option(help="a packed dataset; several are read as one, in this order")],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    mode: Annotated[
        Literal["logit", "probability"],
        typer.Option(help="the weighted mean of the runs' logits, or the log of that of their probabilities"),
    ] = "logit",
    weights: Annotated[str | None, typer.Option(help="one a run, as .4,.4,.2; default: equal")] = None,
    fit_weights: Annotated[bool, typer.Option("--fit-weights", help="find them on the calib rows, by NLL")] = False,
    scale: Annotated[
        Literal["raw", "calibrated"] | None,
        typer.Option(help="calibrated: each run's logits over its temperature; default: that for several runs, raw for one"),
    ] = None,
    out_of_fold: Annotated[
        bool, typer.Option("--out-of-fold", help="a row that runs were trained on gets logits of the other runs only")
    ] = False,
    flip: Annotated[bool, typer.Option("--flip", help="the mean over each picture and its mirror image")] = False,
    float32: Annotated[bool, typer.Option("--float32", help="write logits as float32, not float16")] = False,
    precision: Annotated[
        Literal["off", "auto", "bf16", "fp16"], typer.Option(help="of the models' arithmetic; off: float32")
    ] = "off",
    as_json: Json = False,
) -> None:
    """Predict every row of a dataset with trained runs, for students to learn from."""
    from affect.engine.distill.ensemble_softlabels import Options, soft_labels

    options = Options(mode, _numbers(weights), fit_weights, scale, out_of_fold, float32, precision, flip)
    result = soft_labels(runs, data, out, options)
    for member in result["members"]:
        _print(f"{member['name']} ({member['weight']:.3g})", member)
    _print("together", result["combined"])
    temperature = result["temperature"]
    if temperature is not None:
        _print(f"with T {temperature:.4g}", result["combined_scaled"])
    fitted = "no temperature" if temperature is None else f"T {temperature:.4g} recorded, not applied"
    print(f"{out}: scale {result['scale']}, {result['mode']} mode, {result['view']} view, {fitted}")
    if as_json:
        print(json.dumps({"out": str(out), **result}))


def _numbers(text: str | None) -> tuple[float, ...]:
    from affect.shards.errors import InputError

    try:
        return tuple(float(word) for word in (text or "").replace(",", " ").split())
    except ValueError:
        raise InputError(f"--weights: found {text!r}, expected a number for each run, as .4,.4,.2") from None


def _print(name: str, figures: dict[str, Any]) -> None:
    for split in ("val", "calib"):
        of = figures[split]
        if of:
            print(
                f"{name:24s} {split:5s} accuracy {of['accuracy']:.4f}, macro-F1 {of['macro_f1']:.4f}, "
                f"NLL {of['nll']:.4f}, ECE {of['ece']:.4f} on {of['rows']:,} rows"
            )
