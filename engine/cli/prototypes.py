"""affect features, prototypes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np


def register(app: typer.Typer) -> None:
    app.command()(features)
    app.command()(prototypes)


def features(
    run: Annotated[Path, typer.Argument(help="the folder of a run")],
    data: Annotated[list[Path], typer.Option(help="a packed dataset; several are read as one, in this order")],
    out: Annotated[Path, typer.Option(help="the .npz to write")],
    split: Annotated[str, typer.Option(help="train, val, test, calib or all")] = "train",
) -> None:
    """Penultimate features of a run's best model on a dataset, for prototypes and distillation."""
    from affect.engine.distill.extract import extract
    from affect.engine.system.progress import Progress

    with Progress("features", None, "images") as progress:
        extracted = extract(run, data, split, out, progress.advance)
    print(f"{out}: {extracted.features.shape[0]:,} rows of {split}, {extracted.features.shape[1]} features each")


def prototypes(
    features: Annotated[Path, typer.Argument(metavar="F.npz", help="what affect features wrote")],
    out: Annotated[Path, typer.Option(help="the .npz to write")],
    anchors: Annotated[
        str | None,
        typer.Option(
            metavar="default|FILE",
            help="place the classes in valence and arousal: our placement, or a YAML or JSON file {class: [v, a]}. "
            "Without: the labels of the rows where there are any, else default",
        ),
    ] = None,
    grid: Annotated[int, typer.Option(help="cells along each axis", min=2)] = 5,
) -> None:
    """Mean unit feature of each cell of a valence/arousal grid; an empty cell takes its nearest filled one."""
    from affect.engine.distill.prototypes import make_prototypes

    result, placed = make_prototypes(features, out, anchors, grid)
    assert result.counts is not None and result.centers is not None
    rows, left_out = int(result.counts.sum()), len(placed.point) - int(result.counts.sum())
    print(
        f"{out}: {(result.counts > 0).sum()} of {len(result.counts)} cells filled from {rows:,} rows, placed by {placed.by}; "
        f"{left_out:,} rows without a place left out; the other cells take the nearest filled one"
    )
    print(_table(result.counts.reshape(grid, grid), result.centers[:grid, 1]))
    print(f"sha256 {result.sha256}")


def _table(counts: np.ndarray, axis: np.ndarray) -> str:
    """Rows per cell: arousal upwards, valence to the right."""
    lines = [f"{a:7.2f} |" + "".join(f"{count:9,}" for count in counts[:, i]) for i, a in enumerate(axis)]
    return "\n".join(["arousal | rows, by valence", *lines[::-1], "        |" + "".join(f"{v:9.2f}" for v in axis)])
