"""affect pack of pictures; affect verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from affect.engine.cli.packing import (
    WORKERS,
    Calib,
    Json,
    MaxRejects,
    MaxSide,
    OnLeak,
    Out,
    Quality,
    Workers,
    pack_app,
    pack_source,
)


def register(app: typer.Typer) -> None:
    app.add_typer(pack_app, name="pack")
    app.command()(verify)


@pack_app.command()
def folder(
    root: Annotated[Path, typer.Argument(help="ROOT/<class>/*.jpg or ROOT/<split>/<class>/*.jpg")],
    out: Out,
    classes: Annotated[
        str, typer.Option(help="class names in order, separated by commas; empty: the folders' names, sorted")
    ] = "",
    val: Annotated[float, typer.Option(min=0, max=1, help="share that becomes val where the root has no split folders")] = 0.1,
    on_leak: OnLeak = "error",
    max_rejects: MaxRejects = 0.001,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 0,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """Pictures in a folder per class."""
    from affect.shards.sources.class_folders import FolderSource

    names = [name.strip() for name in classes.split(",") if name.strip()]
    pack_source(FolderSource(root, names or None, val), out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


@pack_app.command()
def manifest(
    tables: Annotated[list[Path], typer.Argument(metavar="CSV...", help="image_path, label, split, ...; several are merged")],
    out: Out,
    root: Annotated[Path | None, typer.Option(help="the folder that relative paths start from; default: the CSV's")] = None,
    class_map: Annotated[str, typer.Option(help="what ids mean: fer, fer2013, ferplus, affectnet, rafdb, rafce or a JSON")] = "",
    classes: Annotated[str, typer.Option(help="class names in order, separated by commas; empty: the class map's")] = "",
    confidence_min: Annotated[float, typer.Option(min=0, max=1, help="leave out the rows below")] = 0,
    margin: Annotated[float, typer.Option(min=0, help="around the face's box, as a share of its longer side")] = 0,
    split: Annotated[str | None, typer.Option(help="of the CSVs without a column split")] = None,
    val: Annotated[float, typer.Option(min=0, max=1, help="share that becomes val where there is no split")] = 0.1,
    delimiter: Annotated[str, typer.Option(help="one character, or tab")] = ",",
    on_leak: OnLeak = "error",
    max_rejects: MaxRejects = 0.001,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 0,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """Faces listed in a CSV: paths, labels, boxes, confidences."""
    from affect.shards.class_maps import ClassMap
    from affect.shards.sources.manifest import ManifestSource

    names = [name.strip() for name in classes.split(",") if name.strip()]
    source = ManifestSource(
        tables, root, ClassMap.load(class_map) if class_map else None, names or None, confidence_min=confidence_min,
        margin=margin, split=split, val=val, delimiter=delimiter,
    )  # fmt: skip
    pack_source(source, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


@pack_app.command()
def ferplus(
    sources: Annotated[list[str], typer.Argument(help="npz files, or fer2013new.csv and the folder of its images")],
    out: Out,
    label_protocol: Annotated[Literal["votes", "majority-official"], typer.Option(help="how votes become a label")] = "votes",
    on_leak: OnLeak = "error",
    max_rejects: MaxRejects = 0.001,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 0,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """FER+: ten votes a face."""
    from affect.shards.sources.ferplus import FerPlusSource

    pack_source(FerPlusSource(sources, label_protocol), out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


@pack_app.command()
def rafce(
    images: Annotated[Path, typer.Argument(help="the folder of 0001_aligned.jpg")],
    au: Annotated[Path, typer.Option(help="RAFCE_AUlabel.txt")],
    emotion: Annotated[Path, typer.Option(help="RAFCE_emolabel.txt")],
    partition: Annotated[Path, typer.Option(help="RAFCE_partition.txt")],
    out: Out,
    aus: Annotated[str, typer.Option(help="action units: seed (18), all of train, or numbers: 1,2,4")] = "seed",
    min_positives: Annotated[int, typer.Option(min=0, help="leave out units with fewer in train")] = 0,
    null: Annotated[
        Literal["unlabelled", "none"], typer.Option(help="what null means: nothing is known, or no unit")
    ] = "unlabelled",
    max_strays: Annotated[float, typer.Option(min=0, max=1, help="share of rows that may hold what is no action unit")] = 0.1,
    on_leak: OnLeak = "error",
    max_rejects: MaxRejects = 0.001,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 0,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """RAF-CE: compound emotions and action units."""
    from affect.shards.sources.rafce import RafCeSource

    source = RafCeSource(
        images, au, emotion, partition, aus=aus, min_positives=min_positives, null=null, max_strays=max_strays
    )  # fmt: skip
    pack_source(source, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


@pack_app.command()
def synthetic(
    out: Out,
    num_images: Annotated[int, typer.Option(min=16)] = 5000,
    size: Annotated[int, typer.Option(min=32, max=512, help="pixels")] = 64,
    subjects: Annotated[int, typer.Option(min=2)] = 100,
    seed: int = 1337,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 0,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """Drawn faces with emotions and action units; subjects apart in train and val."""
    from affect.shards.synthetic.source import SyntheticSource

    source = SyntheticSource(num_images, size=size, seed=seed, subjects=subjects)
    pack_source(source, out, "error", 0, calib, max_side, quality, workers, as_json)


def verify(dataset: Path, as_json: Json = False) -> None:
    """Read everything back; name every file that is not as it was packed."""
    from affect.engine.system.progress import Progress
    from affect.shards.dataset import Dataset
    from affect.shards.verify import verify

    total = Dataset(dataset).info.num_samples
    with Progress("verify", total, "samples") as progress:
        verify(dataset, progress.advance)
    print(f"{dataset}: {total:,} samples as they were packed")
    if as_json:
        print(json.dumps({"dataset": str(dataset), "samples": total, "ok": True}))
