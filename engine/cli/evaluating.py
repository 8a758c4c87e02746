"""affect evaluate, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from affect.engine.cli.figure_lines import print_evaluation
from affect.engine.cli.options import Json

ONLY_WITH = {"root": "csv", "delimiter": "csv", "label_protocol": "npz", "calib": "npz"}


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command()(export)


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(help="a run, a checkpoint in it, a package folder, one of our .onnx files, or emotion"),
    ],
    data: Annotated[Path | None, typer.Option(help="a packed dataset")] = None,
    csv: Annotated[Path | None, typer.Option(help="a CSV of image_path and label, or the aliases of these")] = None,
    npz: Annotated[Path | None, typer.Option(help="an npz of images and votes or labels, as FER+'s")] = None,
    split: Annotated[
        str | None, typer.Option(help="of --data (default: val; val+calib: both) or of a CSV (default: all rows)")
    ] = None,
    class_map: Annotated[
        str, typer.Option(help="what ids mean and which classes to keep: fer, ferplus, affectnet, rafdb, ... or a JSON")
    ] = "",
    root: Annotated[
        Path | None, typer.Option(help="the folder that relative paths of the CSV start from; default: that of the CSV")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="of the CSV: one character, or tab; default: a comma")] = None,
    label_protocol: Annotated[
        Literal["votes", "majority-official"] | None, typer.Option(help="how votes of an npz become a label; default: votes")
    ] = None,
    calib: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="of an npz: as it was packed by; the other rows also get separate figures",
        ),
    ] = None,
    max_rejects: Annotated[float, typer.Option(min=0, max=1, help="share of unreadable pictures that is accepted")] = 0.001,
    out: Annotated[
        Path | None,
        typer.Option(help="where metrics.json and the plots go; default: the run, RUN/evaluated/SET or ./evaluation"),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="of a cross-validation of pain: its model on the test animals, acceptable or retrain")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accuracy, macro-F1, balanced accuracy, NLL and the confusion of a model."""
    if fold is not None:
        _decide(model, fold, {"data": data, "csv": csv, "npz": npz, "split": split, "class-map": class_map or None}, out, as_json)
        return
    options: dict[str, object] = {"data": data, "csv": csv, "npz": npz, "root": root, "delimiter": delimiter}
    options |= {"label_protocol": label_protocol, "calib": calib}
    _check_usage({name for name, value in options.items() if value is not None}, split)
    from affect.engine.evaluation.evaluate import evaluate
    from affect.engine.evaluation.unpacked import evaluate_csv, evaluate_npz
    from affect.engine.system.progress import Progress
    from affect.shards.class_maps import ClassMap

    known = ClassMap.load(class_map) if class_map else None
    progress = Progress("evaluate", None, "images")
    if data:
        metrics = evaluate(model, data, split or "val", out, progress, known)
    elif csv:
        metrics = evaluate_csv(
            model,
            csv,
            out,
            progress,
            class_map=known,
            root=root,
            split=split,
            delimiter=delimiter or ",",
            max_rejects=max_rejects,
        )
    else:
        assert npz
        metrics = evaluate_npz(
            model, npz, out, progress, class_map=known, protocol=label_protocol, max_rejects=max_rejects, calib=calib or 0.0
        )
    print_evaluation(metrics)
    if as_json:
        print(json.dumps(metrics))


def _decide(model: Path, fold: int, options: dict[str, object], out: Path | None, as_json: bool) -> None:
    if unused := [name for name, value in options.items() if value is not None]:
        raise typer.BadParameter(f"--fold is of the test animals of a cross-validation; leave --{unused[0]} out")
    from affect.engine.crossval.decide import decide_fold

    text, figures = decide_fold(model, fold, out)
    print(text)
    print(Path(figures["out"]) / "decision.json")
    if as_json:
        print(json.dumps(figures))


def _check_usage(options: set[str], split: str | None) -> None:
    sets = [name for name in ("data", "csv", "npz") if name in options]
    if len(sets) != 1:
        raise typer.BadParameter(f"give one of --data, --csv, --npz; found {', '.join(f'--{name}' for name in sets) or 'none'}")
    for option, needs in ONLY_WITH.items():
        if option in options and sets != [needs]:
            raise typer.BadParameter(f"--{option.replace('_', '-')} is for --{needs}; leave it out")
    if split is not None and sets == ["npz"]:
        raise typer.BadParameter("--split is for --data and --csv; an npz is evaluated whole")


def export(
    run: Annotated[Path, typer.Argument(help="the folder of a run")],
    to: Annotated[str, typer.Option(help="onnx, or onnx,tensorrt: engines beside the graphs")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="also a file in INT8, calibrated on training samples")] = False,
    max_drop: Annotated[float, typer.Option(min=0, help="points of the selection metric that a lower precision may cost")] = 0.5,
    gpu: Annotated[
        list[str] | None, typer.Option(help="of tensorrt: a compute capability, 8.9; default: this GPU's, without one all")
    ] = None,
    as_json: Json = False,
) -> None:
    """A package: the graph with its manifest, its parity with the model measured."""
    from affect.engine.export.export_run import export

    package = export(run, to.split(","), int8=int8, max_drop=max_drop, gpus=gpu or ())
    files = package.manifest.files or {}
    for name, fact in files.items():
        print(f"{package.model.parent / name}: {fact['size'] / 2**20:.1f} MiB, {fact['precision']}")
        _print_parity(fact)
        for precision, of in fact.get("lower", {}).items():
            print(f"  in {precision}:")
            _print_parity(of)
    for engine in sorted((package.model.parent / "engines").glob("*.engine")):
        print(f"{engine}: {engine.stat().st_size / 2**20:.1f} MiB")
    if as_json:
        print(json.dumps({"package": str(package.model.parent), "files": files}))


def _print_parity(fact: dict[str, Any]) -> None:
    for output, of in fact["parity"].items():
        print(
            f"  {output}: largest difference of a logit {of['max_abs_logit']:.1e}, "
            f"labels equal {100 * of['label_agreement']:.1f} % of {of['rows']} rows"
        )
    if metric := fact.get("metric"):
        print(f"  {metric['name']} {metric['value']:.4f}, in float32 {metric['float32']:.4f}: {metric['drop_points']:.2f} points")
