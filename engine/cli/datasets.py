"""affect pack, verify."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from affect.shards.write import Source

Out = Annotated[Path, typer.Option("--out", help="the folder of the packed dataset; must not be there yet")]
OnLeak = Annotated[Literal["error", "drop-train", "keep"], typer.Option(help="the same pixels or one group in two splits")]
MaxRejects = Annotated[float, typer.Option(min=0, max=1, help="share of unreadable pictures that is accepted")]
MaxSide = Annotated[int, typer.Option(min=0, help="reduce longer pictures to this many pixels; 0: keep them")]
Quality = Annotated[int, typer.Option(min=0, max=100, help="JPEG for what cannot keep its bytes, 1 to 100; 0: PNG, no loss")]
Calib = Annotated[float, typer.Option(min=0, max=1, help="share of val that becomes calib, by group or else by picture")]
Workers = Annotated[int, typer.Option(min=1, help="threads")]
Frames = Annotated[int, typer.Option(min=0, help="this many frames a clip, spread evenly over it")]
RateHz = Annotated[float, typer.Option(min=0, help="a frame each 1 / RATE seconds")]
AllFrames = Annotated[bool, typer.Option("--all-frames", help="every frame")]
StartS = Annotated[float | None, typer.Option(help="only frames from here, in seconds from the first frame")]
EndS = Annotated[float | None, typer.Option(help="only frames before this")]
Fps = Annotated[float | None, typer.Option(min=0.001, help="frames a second of folders of frames")]
Crop = Annotated[
    str,
    typer.Option(
        metavar="SUBJECT", help="cut each clip to one box around its subject: human_face, yunet:FILE.onnx or onnx:FILE.onnx"
    ),
]
CropMargin = Annotated[float, typer.Option(min=0, max=2, help="around the subject of --crop, as a share of its box's sides")]
SharpestN = Annotated[int, typer.Option("--sharpest", min=0, help="keep this many frames a clip, the sharpest, in order; 0: all")]
BackgroundOnly = Annotated[bool, typer.Option("--background", help="a control: paint the subject's box gray and keep the rest")]
BoxText = Annotated[str, typer.Option("--box", metavar="X,Y,W,H", help="with --background: of clips without a box of their own")]
Json = Annotated[bool, typer.Option("--json", help="one machine-readable line at the end")]

WORKERS = min(8, os.cpu_count() or 1)

pack_app = typer.Typer(no_args_is_help=True, help="Pack raw files into tar shards with an index.", rich_markup_mode=None)


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
    from affect.shards.sources.folder import FolderSource

    names = [name.strip() for name in classes.split(",") if name.strip()]
    _pack(FolderSource(root, names or None, val), out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


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
    _pack(source, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


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

    _pack(FerPlusSource(sources, label_protocol), out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


@pack_app.command()
def clips(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="where the paths of the CSV start from")],
    labels: Annotated[Path, typer.Option(help="CSV, a row a clip: clip, split, group, label, box_x, ..., numbers")],
    out: Out,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=OUTPUT[.NAME]", help="a number that becomes a target: intensity=score, sum=pain.total; repeat"
        ),
    ] = None,
    frames: Frames = 0,
    rate_hz: RateHz = 0,
    all_frames: AllFrames = False,
    start_s: StartS = None,
    end_s: EndS = None,
    fps: Fps = None,
    output: Annotated[str, typer.Option(help="what the classes in the label column are called")] = "state",
    class_map: Annotated[str, typer.Option(help="what ids in the label column mean: a JSON file")] = "",
    classes: Annotated[str, typer.Option(help="class names in order, separated by commas; empty: those of the rows")] = "",
    clip_column: Annotated[str | None, typer.Option(help="where it is none of clip, path, video, file, filename")] = None,
    group_column: Annotated[str | None, typer.Option(help="where it is none of group, animal, subject, patient, person")] = None,
    label_column: Annotated[str | None, typer.Option(help="where it is none of label, label_name, class_name, label_str")] = None,
    val: Annotated[float, typer.Option(min=0, max=1, help="share that becomes val where there is no split, by group")] = 0.1,
    delimiter: Annotated[str, typer.Option(help="one character, or tab")] = ",",
    crop: Crop = "",
    crop_margin: CropMargin = 0.1,
    sharpest: SharpestN = 0,
    background: BackgroundOnly = False,
    box: BoxText = "",
    on_leak: OnLeak = "error",
    max_rejects: MaxRejects = 0.001,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 95,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """Clips listed in a CSV: video files, or folders of frames."""
    from affect.shards.class_maps import ClassMap
    from affect.shards.sources.clips import ClipsSource
    from affect.shards.sources.frames import chosen

    names = [name.strip() for name in classes.split(",") if name.strip()]
    source = ClipsSource(
        root, labels, chosen(frames, rate_hz, all_frames, start_s, end_s), _pairs(column or []), output=output,
        class_map=ClassMap.load(class_map) if class_map else None, classes=names or None, clip_column=clip_column,
        group_column=group_column, label_column=label_column, fps=fps, val=val, delimiter=delimiter,
    )  # fmt: skip
    parts = _parts(_cropped(source, crop, crop_margin), sharpest, background, box)
    _pack(parts, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


def _cropped(source: Source, crop: str, margin: float) -> Source:
    """The source, or its clips cut to the subject that a detector finds."""
    if not crop:
        return source
    from affect.engine.runtime.detect import finder
    from affect.shards.sources.parts import Cropped

    return Cropped(source, finder(crop), crop, margin)


def _parts(source: Source, sharpest: int, background: bool, box: str) -> Source:
    """The source, or one of a part of its clips."""
    from affect.shards.errors import InputError
    from affect.shards.sources.parts import Background, Sharpest

    numbers = [float(text) for text in box.split(",")] if re.fullmatch(r"[\d.]+(,[\d.]+){3}", box) else []
    if box and (not background or not numbers or min(numbers[2:]) <= 0):
        raise InputError(f"--box {box}: expected X,Y,W,H in pixels, W and H above 0, together with --background")
    if background:
        x, y, width, height = numbers or [0.0] * 4
        source = Background(source, (y, x, y + height, x + width) if numbers else None)
    return Sharpest(source, sharpest) if sharpest else source


def _pairs(columns: list[str]) -> dict[str, str]:
    """`COLUMN=OUTPUT` each."""
    from affect.shards.errors import InputError

    pairs = [text.partition("=")[::2] for text in columns]
    for text, (column, output) in zip(columns, pairs, strict=True):
        if not column or not output:
            raise InputError(f"--column {text}: expected COLUMN=OUTPUT or COLUMN=OUTPUT.NAME, such as intensity=score")
    return dict(pairs)


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
    _pack(source, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


@pack_app.command()
def pain(
    labels: Annotated[Path, typer.Argument(metavar="JSON", help="sequence_label_mapping: the sequences and their scores")],
    root: Annotated[Path, typer.Option(help="the folder that each sequence_path starts from")],
    splits: Annotated[Path, typer.Option(help="train_val_test_splits: test_animals and cv_folds")],
    out: Out,
    frames: Frames = 32,
    rate_hz: RateHz = 0,
    all_frames: AllFrames = False,
    start_s: StartS = None,
    end_s: EndS = None,
    fps: Fps = None,
    crop: Crop = "",
    crop_margin: CropMargin = 0.1,
    on_leak: OnLeak = "error",
    max_rejects: MaxRejects = 0.001,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 95,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """Cattle clips scored with the 7-item bovine facial scale; whole animals held out."""
    from affect.engine.runtime.detect import HUMAN
    from affect.shards.errors import InputError
    from affect.shards.sources.frames import chosen
    from affect.shards.sources.pain import PainSource

    if crop.partition(":")[0] in HUMAN:
        raise InputError(f"--crop {crop}: finds human faces, and these are cattle; expected onnx:FILE.onnx")
    clip = chosen(0 if rate_hz or all_frames else frames, rate_hz, all_frames, start_s, end_s)
    source = _cropped(PainSource(labels, root, splits, clip, fps), crop, crop_margin)
    _pack(source, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


@pack_app.command()
def mouse(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="of labels.csv, a row a trial; of dataset_df and fold0, ...; or CLASS/ANIMAL/VIDEO"
        ),
    ],
    out: Out,
    high: Annotated[int, typer.Option(min=1, help="of trials: the level from which one is stress, against 0")] = 3,
    images: Annotated[Path | None, typer.Option(help="of dataset_df: where its paths start from; default: its folder")] = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[COHORT=]FOLDER", help="another folder of the same form, all of it split test; not of labels.csv; repeat"
        ),
    ] = None,
    test_cohort: Annotated[list[str] | None, typer.Option(help="of dataset_df: a value of its column cohort; repeat")] = None,
    classes: Annotated[
        str, typer.Option(help="what the labels 0 and 1 of dataset_df mean, or folders' names")
    ] = "baseline,stress",
    frames: Frames = 0,
    start_s: StartS = None,
    end_s: EndS = None,
    fps: Fps = None,
    sharpest: SharpestN = 0,
    background: BackgroundOnly = False,
    box: BoxText = "",
    val: Annotated[float, typer.Option(min=0, max=1, help="of trials: share of animals that becomes val")] = 0,
    on_leak: OnLeak = "error",
    max_rejects: MaxRejects = 0.001,
    calib: Calib = 0,
    max_side: MaxSide = 0,
    quality: Quality = 95,
    workers: Workers = WORKERS,
    as_json: Json = False,
) -> None:
    """Mice: a clip a trial or a video, all its frames; stress, and levels where there are some."""
    from affect.shards.errors import InputError
    from affect.shards.sources.frames import chosen
    from affect.shards.sources.mouse import MouseSource
    from affect.shards.sources.mouse_folders import MouseFolders
    from affect.shards.sources.mouse_table import table_path
    from affect.shards.sources.mouse_trials import TRIALS, TrialsSource

    clip = chosen(frames, 0, not frames, start_s, end_s)
    cohorts = _cohorts(external or [])
    names = [name.strip() for name in classes.split(",") if name.strip()]
    if len(set(names)) != 2:
        raise InputError(f"--classes {classes}: expected two names, what is no stress and what is: baseline,stress")
    source: Source
    if (root / TRIALS).is_file():
        if cohorts or test_cohort:
            raise InputError(f"--external, --test-cohort: {root / TRIALS} says it itself, in its columns split and source")
        source = TrialsSource(root, root / TRIALS, clip, high=high, fps=fps, val=val)
    elif table_path(root):
        source = MouseSource(
            root, clip, images=images, external=cohorts, test_cohorts=test_cohort or [], classes=names, fps=fps
        )  # fmt: skip
    elif any((root / name).is_dir() for name in names):
        source = MouseFolders(root, clip, external=cohorts, classes=names, fps=fps)
    else:
        raise InputError(
            f"{root}: found no {TRIALS}, no dataset_df.csv, .json or .pkl, and no folder {' or '.join(names)}; expected one of "
            "them, or other names of the folders: --classes NONE,STRESS"
        )
    parts = _parts(source, sharpest, background, box)
    _pack(parts, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


def _cohorts(texts: list[str]) -> dict[str, Path]:
    """`COHORT=FOLDER` each, or a folder whose name is the cohort's."""
    from affect.shards.errors import InputError

    found: dict[str, Path] = {}
    for text in texts:
        name, given, place = text.partition("=")
        folder = Path(place if given else text)
        name = name if given else folder.resolve().name
        if not name or not folder.is_dir() or name in found:
            why = f"{name} is given twice" if name in found else f"{folder} is no folder"
            raise InputError(f"--external {text}: {why}; expected COHORT=FOLDER, each cohort once")
        found[name] = folder
    return found


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
    from affect.shards.sources.synthetic import SyntheticSource

    source = SyntheticSource(num_images, size=size, seed=seed, subjects=subjects)
    _pack(source, out, "error", 0, calib, max_side, quality, workers, as_json)


def _pack(
    source: Source, out: Path, on_leak: OnLeak, max_rejects: float, calib: float, max_side: int, quality: int, workers: int,
    as_json: bool,
) -> None:  # fmt: skip
    from affect.engine.log import say
    from affect.engine.progress import Progress
    from affect.shards.images import Storage
    from affect.shards.write import pack

    with Progress("pack", None, "images") as progress:
        info = pack(
            source,
            out,
            on_leak=on_leak,
            max_rejects=max_rejects,
            calib=calib,
            storage=Storage(max_side or None, quality or None),
            workers=workers,
            advance=progress.advance,
            say=say,
        )
    print(
        f"{out}: " + ", ".join(f"{count:,} {split}" for split, count in info.counts.items()) + f"; labels: {info.label_protocol}"
    )
    left_out = {reason: count for reason, count in info.dropped.items() if count}
    if left_out:
        print("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()))
    for note in (*getattr(source, "notes", ()), *(_clip_notes(out) if info.clip else ())):
        print(note)
    near = info.near_duplicates
    print(
        f"near-duplicates (difference hashes within {near['distance']} of 64 bits): {near['train_like_held_out']:,} training "
        f"pictures are like a held-out one, {near['pairs_in_train']:,} pairs within train are alike"
    )
    for output in info.layout.outputs:
        print(f"{output.name} ({output.kind}): {', '.join(output.names)}")
    if as_json:
        print(json.dumps({"dataset": str(out), "counts": info.counts, "dropped": info.dropped}))


def _clip_notes(out: Path) -> list[str]:
    """What was odd about the recordings."""
    import numpy as np

    from affect.shards.read import Dataset

    dataset = Dataset(out)
    repeated, gaps, origins = (dataset.column(f"meta.{name}") for name in ("repeated", "gaps", "time_from"))
    counts = {
        "clips have fewer frames than were asked for, and repeat some (meta.repeated)": np.count_nonzero(repeated),
        "clips have gaps in their frame numbers (meta.gaps)": np.count_nonzero(gaps),
        "clips have no timestamps; times are by the video's frame rate": np.count_nonzero(origins == "rate"),
        "clips have no frame rate; a time is the number of the frame; name it with --fps": np.count_nonzero(origins == "numbers"),
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def verify(dataset: Path, as_json: Json = False) -> None:
    """Read everything back; name every file that is not as it was packed."""
    from affect.engine.progress import Progress
    from affect.shards.read import Dataset
    from affect.shards.verify import verify

    total = Dataset(dataset).info.num_samples
    with Progress("verify", total, "samples") as progress:
        verify(dataset, progress.advance)
    print(f"{dataset}: {total:,} samples as they were packed")
    if as_json:
        print(json.dumps({"dataset": str(dataset), "samples": total, "ok": True}))
