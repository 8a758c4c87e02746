"""affect evaluate, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="one machine-readable line at the end")]
KEYS = ("acc", "macro_f1", "bacc")
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
        Path | None, typer.Option(help="the folder that relative paths of the CSV start from; default: its own")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="of the CSV: one character, or tab; default: a comma")] = None,
    label_protocol: Annotated[
        Literal["votes", "majority-official"] | None, typer.Option(help="how votes of an npz become a label; default: votes")
    ] = None,
    calib: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="of an npz: as it was packed by; rows that did not become the split calib are also said apart"
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
    given: dict[str, object] = {"data": data, "csv": csv, "npz": npz, "root": root, "delimiter": delimiter}
    given |= {"label_protocol": label_protocol, "calib": calib}
    _check_usage({name for name, value in given.items() if value is not None}, split)
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
    if "per_class" in metrics:
        _print(metrics)
    _print_outputs(metrics)
    if as_json:
        print(json.dumps(metrics))


def _decide(model: Path, fold: int, given: dict[str, object], out: Path | None, as_json: bool) -> None:
    if unused := [name for name, value in given.items() if value is not None]:
        raise typer.BadParameter(f"--fold is of a cross-validation's own test animals; leave --{unused[0]} out")
    from affect.engine.crossval.decide import decide_fold

    said, figures = decide_fold(model, fold, out)
    print(said)
    print(Path(figures["out"]) / "decision.json")
    if as_json:
        print(json.dumps(figures))


def _print_outputs(metrics: dict[str, Any]) -> None:
    """Of the outputs besides the first one of classes."""
    for name, of in metrics.get("outputs", {}).items():
        for line in output_lines(name, of):
            print(line)
    if "per_class" not in metrics:
        print(f"{metrics['rows']:,} rows of {metrics['dataset']}, {metrics['split']}: {Path(metrics['out']) / 'metrics.json'}")


def minority_line(metrics: dict[str, Any]) -> str:
    """The classes of few rows, each with its F1 and rows."""
    of = metrics["per_class"]
    said = (f"{name} {of[name]['f1']:.4f} ({of[name]['support']:,})" for name in metrics["minority"])
    return f"minority classes, F1 (rows): {', '.join(said) or 'none'}"


def output_lines(name: str, figures: dict[str, Any]) -> Iterator[str]:
    """What is said of units, scalars or further classes in a few lines."""
    if "units" in figures:
        yield (
            f"{name}: F1 {figures['macro_f1']:.4f}, area under ROC {figures['macro_auc']:.4f}, the means over "
            f"{figures['macro_units']} units with positives, of {figures['rows']:,} labelled rows"
        )
        for unit, of in figures["units"].items():
            area = "-" if of["auc"] is None else f"{of['auc']:.4f}"
            yield f"  {unit:12s} F1 {of['f1']:.4f} at {of['threshold']:.2f}, area {area}, {of['support']:,} of {of['rows']:,}"
    elif "scalars" in figures:
        yield f"{name}: R² {figures['r2']:.4f}, MAE {figures['mae']:.4f}, means over its scalars, {figures['rows']:,} rows"
        for scalar, of in figures["scalars"].items():
            r2, r = ("-" if of[key] is None else f"{of[key]:.4f}" for key in ("r2", "pearson"))
            yield f"  {scalar:20s} R² {r2}, MAE {of['mae'] or 0:.4f}, bias {of['bias'] or 0:+.4f}, r {r} of {of['rows']:,}"
    else:
        yield f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in figures["present_only"].items() if key in KEYS)


def _check_usage(given: set[str], split: str | None) -> None:
    sets = [name for name in ("data", "csv", "npz") if name in given]
    if len(sets) != 1:
        raise typer.BadParameter(f"give one of --data, --csv, --npz; found {', '.join(f'--{name}' for name in sets) or 'none'}")
    for option, needs in ONLY_WITH.items():
        if option in given and sets != [needs]:
            raise typer.BadParameter(f"--{option.replace('_', '-')} is for --{needs}; leave it out")
    if split is not None and sets == ["npz"]:
        raise typer.BadParameter("--split is for --data and --csv; an npz is evaluated whole")


def _print(metrics: dict[str, Any]) -> None:
    way = next(iter(metrics))
    for name in (way, "present_only"):
        values = metrics[name]
        print(f"{name:12s} accuracy {values['acc']:.4f}, macro-F1 {values['macro_f1']:.4f}, bACC {values['bacc']:.4f}")
    where = f"{metrics['dataset']}, {metrics['split']}" if metrics["split"] else metrics["dataset"]
    chosen = metrics.get("used_to_choose", False)
    rows = f"{metrics['rows']:,} rows of {where}{'†' * chosen} ({metrics['label_protocol']} labels)"
    print(f"NLL {metrics['nll']:.4f} over {rows}; calibration: {metrics['calibration']['mode']}")
    print(f"ECE {metrics['ece']:.4f} of the label, {metrics['ece_votes']:.4f} of the shares of votes")
    if apart := metrics.get("apart"):
        print(
            f"the {apart['rows']:,} rows of it apart from calib: accuracy {apart['accuracy']:.4f}, macro-F1 "
            f"{apart['macro_f1']:.4f}, NLL {apart['nll']:.4f}, ECE {apart['ece']:.4f} and {apart['ece_votes']:.4f}"
        )
    if chosen:
        print("†: the run's settings were chosen by this set (see its config.yaml), so its figures flatter them")
    absent = [name for name in metrics["per_class"] if name not in metrics["present_only"]["present_names"]]
    width = max(map(len, metrics["per_class"]))
    for name, values in metrics["per_class"].items():
        print(f"  {name:{width}s} F1 {values['f1']:.4f} of {values['support']:,}")
    print(minority_line(metrics))
    if absent:
        print(f"not in the set, and not predicted in present_only: {', '.join(absent)}")
    _print_sources(metrics["sources"])
    _print_left_out(metrics)
    _print_beside(metrics)
    print(", ".join(str(Path(metrics["out"]) / name) for name in ("metrics.json", "confmat.png", "confmat_present.png")))


def _print_sources(sources: dict[str, dict[str, float]]) -> None:
    for name, of in sources.items() if len(sources) > 1 else ():
        figures = f"accuracy {of['accuracy']:.4f}, macro-F1 {of['macro_f1']:.4f} of its {of['macro_f1_classes']} classes"
        print(f"source {name}: {of['rows']:,} rows, {figures}, bACC {of['bacc']:.4f}")


def _print_left_out(metrics: dict[str, Any]) -> None:
    if metrics["left_out"]:
        print("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in metrics["left_out"].items()))
    if metrics["rejected"]:
        print(f"{metrics['rejected']:,} pictures cannot be read: {Path(metrics['out']) / 'rejected.csv'}")


def _print_beside(metrics: dict[str, Any]) -> None:
    """The run's validation, this set and the drop, in lines below each other."""
    own, here = metrics.get("beside_validation"), metrics["present_only"]
    if not own:
        return
    print(f"{'present-only':>24s}   accuracy  macro-F1")
    lines = {"validation": own, Path(metrics["dataset"]).name: {"rows": metrics["rows"], "accuracy": here["acc"], **here}}
    for name, of in lines.items():
        print(f"{name[:14]:14s} {of['rows']:9,}   {of['accuracy']:8.4f}  {of['macro_f1']:8.4f}")
    drop = own["drop_points"]
    if set(own["present_names"]) != set(here["present_names"]):
        print(f"validation has {len(own['present_names'])} classes, this set {len(here['present_names'])}: not equally hard")
    print(f"{'drop, points':24s}   {drop['accuracy']:8.2f}  {drop['macro_f1']:8.2f}")


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
    for output, found in fact["parity"].items():
        print(
            f"  {output}: largest difference of a logit {found['max_abs_logit']:.1e}, "
            f"labels equal {100 * found['label_agreement']:.1f} % of {found['rows']} rows"
        )
    if metric := fact.get("metric"):
        print(f"  {metric['name']} {metric['value']:.4f}, in float32 {metric['float32']:.4f}: {metric['drop_points']:.2f} points")
