"""affect stats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from affect.engine.data.statistics import Statistics
    from affect.shards.dataset import Dataset

BATCH, SEED = 128, 1337


def register(app: typer.Typer) -> None:
    app.command()(stats)


def stats(
    dataset: Annotated[Path, typer.Argument(help="a packed dataset")],
    plot: Annotated[Path | None, typer.Option(help="a PNG of the counts and sizes")] = None,
    order: Annotated[int, typer.Option(min=0, help="walk so many shuffled epochs and count how often each sample comes")] = 0,
) -> None:
    """Counts by split, source, class and size."""
    from affect.engine.data.statistics import statistics
    from affect.engine.report.plots import dataset_plot
    from affect.shards.dataset import Dataset

    packed = Dataset(dataset)
    counted = statistics(packed)
    title = f"{dataset}: {packed.info.num_samples:,} samples; labels: {packed.info.label_protocol}"
    print(title)
    _print(packed, counted)
    if plot:
        dataset_plot(counted.counts, counted.shorter_side, counted.splits, title, plot)
        print(plot)
    if order:
        _print_coverage(packed, order)


def _print(packed: Dataset, counted: Statistics) -> None:
    kinds = {output.name: output.kind for output in packed.info.layout.outputs}
    what = {
        "classes": "rows whose largest share it is",
        "multilabel": "rows above 0, of those labelled",
        "scalars": "rows above 0",
    }
    for panel, names in counted.counts.items():
        print(f"{panel} ({kinds[panel]}): {what[kinds[panel]]}" if panel in kinds else panel)
        lines = {**names, "not labelled": counted.unlabelled.get(panel, [])}
        labelled = _labelled(packed, panel) if kinds.get(panel) == "multilabel" else {}
        width = max(map(len, lines))
        for name, counts in lines.items():
            if name in names or any(counts):
                of = [f" of {n:8,}" for n in labelled[name]] if name in labelled else [""] * len(counts)
                by_split = (f"{n:8,}{m} {split}" for n, m, split in zip(counts, of, counted.splits, strict=True))
                print(f"  {name:{width}s} " + ", ".join(by_split) + "  no positive" * (name in labelled and not any(counts)))
    sizes = list(counted.sizes.items())
    rest = f", {len(sizes) - 5:,} more" if len(sizes) > 5 else ""
    print("size: " + ", ".join(f"{name} {count:,}" for name, count in sizes[:5]) + rest)


def _labelled(packed: Dataset, output: str) -> dict[str, list[int]]:
    """Name -> rows of each split where it is known, whether there or not."""
    import numpy as np

    known = ~np.isnan(packed.targets(output))  # (N, C)
    counts = np.stack([known[packed.rows(split)].sum(0) for split in packed.info.counts], axis=1)  # (C, splits)
    return dict(zip(packed.info.layout.output(output).names, counts.tolist(), strict=True))


def _print_coverage(packed: Dataset, epochs: int) -> None:
    from affect.engine.data.statistics import coverage

    for split in packed.info.counts:
        for epoch, times in enumerate(coverage(packed, split, epochs, BATCH, SEED)):
            counts = ", ".join(f"{samples:,} samples {count} time{'s' * (count != 1)}" for count, samples in times.items())
            print(f"order of {split}, epoch {epoch}, batches of {BATCH}: {counts}")
