"""affect pack of recordings: clips, cattle, mice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from affect.shards.sample import Source

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


def register(app: typer.Typer) -> None:
    for command in (clips, pain, mouse):
        pack_app.command()(command)


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
    pack_source(parts, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


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
    from affect.engine.runtime.vision.subject import detects_people
    from affect.shards.errors import InputError
    from affect.shards.sources.frames import chosen
    from affect.shards.sources.pain import PainSource

    if detects_people(crop):
        raise InputError(f"--crop {crop}: finds human faces, and these are cattle; expected onnx:FILE.onnx")
    clip = chosen(0 if rate_hz or all_frames else frames, rate_hz, all_frames, start_s, end_s)
    source = _cropped(PainSource(labels, root, splits, clip, fps), crop, crop_margin)
    pack_source(source, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


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
    pack_source(parts, out, on_leak, max_rejects, calib, max_side, quality, workers, as_json)


def _cropped(source: Source, crop: str, margin: float) -> Source:
    """The source, or its clips cut to the subject that a detector finds."""
    if not crop:
        return source
    from affect.engine.runtime.vision.subject import finder
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
