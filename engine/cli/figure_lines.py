"""Figures of models as lines of text, for the commands that print them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEYS = ("acc", "macro_f1", "bacc")


def print_evaluation(metrics: dict[str, Any]) -> None:
    """Print the metrics of `evaluate`."""
    if "per_class" in metrics:
        _print_classes(metrics)
    _print_outputs(metrics)


def _print_classes(metrics: dict[str, Any]) -> None:
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
    validation, here = metrics.get("beside_validation"), metrics["present_only"]
    if not validation:
        return
    print(f"{'present-only':>24s}   accuracy  macro-F1")
    lines = {"validation": validation, Path(metrics["dataset"]).name: {"rows": metrics["rows"], "accuracy": here["acc"], **here}}
    for name, of in lines.items():
        print(f"{name[:14]:14s} {of['rows']:9,}   {of['accuracy']:8.4f}  {of['macro_f1']:8.4f}")
    drop = validation["drop_points"]
    if set(validation["present_names"]) != set(here["present_names"]):
        print(
            f"validation has {len(validation['present_names'])} classes, this set {len(here['present_names'])}: not equally hard"
        )
    print(f"{'drop, points':24s}   {drop['accuracy']:8.2f}  {drop['macro_f1']:8.2f}")


def _print_outputs(metrics: dict[str, Any]) -> None:
    """Print the outputs besides the first one of classes."""
    for name, of in metrics.get("outputs", {}).items():
        for line in output_lines(name, of):
            print(line)
    if "per_class" not in metrics:
        print(f"{metrics['rows']:,} rows of {metrics['dataset']}, {metrics['split']}: {Path(metrics['out']) / 'metrics.json'}")


def minority_line(metrics: dict[str, Any]) -> str:
    """The classes of few rows, each with its F1 and rows."""
    of = metrics["per_class"]
    each = (f"{name} {of[name]['f1']:.4f} ({of[name]['support']:,})" for name in metrics["minority"])
    return f"minority classes, F1 (rows): {', '.join(each) or 'none'}"


def output_lines(name: str, figures: dict[str, Any]) -> Iterator[str]:
    """The figures of units, scalars or further classes in a few lines."""
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
