"""affect evaluate, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="one machine-readable line at the end")]


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command()(export)


def evaluate(
    model: Annotated[Path, typer.Argument(help="a run, a package folder or one of our .onnx files")],
    data: Annotated[Path, typer.Option(help="a packed dataset")],
    split: str = "val",
    out: Annotated[
        Path | None, typer.Option(help="where metrics.json and confmat.png go; default: the run, or ./evaluation")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accuracy, macro-F1, balanced accuracy, NLL and the confusion of a model."""
    from affect.engine.evaluate import evaluate
    from affect.engine.progress import Progress

    out = out or (model if (model / "config.yaml").is_file() else Path("evaluation"))
    with Progress("evaluate", None, "images") as progress:
        metrics = evaluate(model, data, split, out, progress.advance)
    way = next(iter(metrics))
    for name in (way, "present_only"):
        values = metrics[name]
        print(f"{name:12s} accuracy {values['acc']:.4f}, macro-F1 {values['macro_f1']:.4f}, bACC {values['bacc']:.4f}")
    rows = f"{metrics['rows']:,} rows of {split} ({metrics['label_protocol']} labels)"
    print(f"NLL {metrics['nll']:.4f} over {rows}; calibration: {metrics['calibration']['mode']}")
    for name, values in metrics["per_class"].items():
        print(f"  {name:12s} F1 {values['f1']:.4f} of {values['support']:,}")
    print(f"{out / 'metrics.json'}, {out / 'confmat.png'}")
    if as_json:
        print(json.dumps(metrics))


def export(run: Annotated[Path, typer.Argument(help="the folder of a run")], as_json: Json = False) -> None:
    """A package: the graph with its manifest, its parity with the model measured."""
    from affect.engine.export.export import export

    package = export(run)
    files = package.manifest.files or {}
    for name, fact in files.items():
        print(f"{package.model.parent / name}: {fact['size'] / 2**20:.1f} MiB, {fact['precision']}")
        for output, found in fact["parity"].items():
            print(
                f"  {output}: largest difference of a logit {found['max_abs_logit']:.1e}, "
                f"labels equal {100 * found['label_agreement']:.1f} % of {found['rows']} rows"
            )
    if as_json:
        print(json.dumps({"package": str(package.model.parent), "files": files}))
