"""affect run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affect.engine.cli.options import Json
from affect.shards.errors import InputError

if TYPE_CHECKING:
    from affect.engine.runtime.clip_engine import ClipEngine
    from affect.engine.runtime.engine import Engine
    from affect.engine.runtime.session import Session
    from affect.engine.runtime.sources.stream import Source
    from affect.engine.runtime.vision.subject import Search

SUBJECT = (
    "face detector: human_face, yunet:FILE.onnx, full (none: each picture is one face, cropped already), boxes:FILE.csv, "
    "onnx:FILE.onnx; default: human_face in a video or a camera where all packages read people, else full"
)


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="a picture, a folder, an image sequence, a video, a camera number or rtsp://..."
        ),
    ],
    package: Annotated[
        list[str] | None,
        typer.Option(
            help="a package folder, an exported run, one of our .onnx files, or the built-in model, the default: emotion; "
            "may be given several times"
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="a folder for the tables, the timeline and the summary; of several sources one in it for each")
    ] = Path("predictions"),
    subject: Annotated[str | None, typer.Option(help=SUBJECT)] = None,
    detect_every: Annotated[int, typer.Option(help="run the face detector in one of so many frames, track faces between")] = 1,
    detect_width: Annotated[
        int,
        typer.Option(help="pixels to which the face detector reduces wider pictures: more finds smaller faces, and takes longer"),
    ] = 320,
    align: Annotated[
        bool | None, typer.Option("--align/--no-align", help="turn faces upright by YuNet's five points; default: as trained")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="room around a face on each side, as a share of its box's longer side; default: as trained"),
    ] = None,
    smoothing: Annotated[bool, typer.Option(help="steady probabilities and labels of each face over time")] = True,
    sure: Annotated[float, typer.Option(help="probability from which a label is called sure")] = 0.5,
    coverage: Annotated[
        float | None,
        typer.Option(
            help="a set of labels that holds the right one in this share of faces, as affect calibrate RUN --coverage fitted it; "
            "sure: it is one label"
        ),
    ] = None,
    hop: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="clip models: step between two windows, in frames that the model sees, as in a live source; default: "
            "a recording's clips as in training",
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="pictures a second of a folder or a sequence that is a recording")] = None,
    side: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="a signal measured beside a recording, for clip models trained with it; may be given several times",
        ),
    ] = None,
    video: Annotated[
        bool, typer.Option(help="write annotated.mp4 with its sound, or annotated/*.png; else no frame is stored")
    ] = False,
    anonymize: Annotated[bool, typer.Option("--anonymize", help="blur the faces in what --video writes")] = False,
    backend: Annotated[str, typer.Option(help="inference backend; auto: the fastest on this machine")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(help="of the graph, and of OpenCV; 0: as many as there are cores")] = 0,
    cores: Annotated[str | None, typer.Option(help="keep everything on these cores, such as 0-3 or 0,2")] = None,
    as_json: Json = False,
) -> None:
    """Read the faces in every frame of a source; write tables, a timeline and a summary."""
    from affect.engine.package.builtin import DEFAULT_MODEL
    from affect.engine.runtime.clip_engine import ClipEngine
    from affect.engine.runtime.engine import Engine
    from affect.engine.runtime.side_signals import signals_by_package
    from affect.engine.runtime.smoothing import OFF, Smoothing
    from affect.engine.runtime.sources.open_source import open_source
    from affect.engine.runtime.vision.subject import Search
    from affect.engine.system.log import say

    Search(subject or "full", detect_every, margin, detect_width=detect_width)  # before anything is loaded
    signals = _signals(side or [])
    if not package:
        say(f"run: package {DEFAULT_MODEL}, which is built in; --package names another")
    options: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "sure": sure,
        "coverage": coverage,
        "threads": threads,
        "cores": cores,
    }
    engines: list[Session] = [
        Engine.load(path, smoothing=Smoothing() if smoothing else OFF, **options) for path in package or [DEFAULT_MODEL]
    ]
    opened = [open_source(source, rate) for source in sources]
    clip_engines = [engine for engine in engines if isinstance(engine, ClipEngine)]
    frame_engines = [engine for engine in engines if isinstance(engine, Engine)]
    signals_by_package([engine.package for engine in engines], signals)  # before anything is written
    for source, folder in zip(opened, _folders(sources, out), strict=True):
        summary: dict[str, Any] = {"out": str(folder)}
        if frame_engines:
            search = Search(subject or _subject(frame_engines, source), detect_every, margin, align, detect_width)
            summary |= _run_frames(frame_engines, source, folder, search, video, anonymize)
        if clip_engines:
            search = Search(subject or "full", detect_every, margin, align, detect_width)
            summary["clips"] = _run_clips(clip_engines, source, folder, hop, search, signals)
        if as_json:
            print(json.dumps(summary))


def _run_frames(engines: list[Engine], source: Source, out: Path, search: Search, video: bool, anonymize: bool) -> dict[str, Any]:
    from affect.engine.runtime.writers.result_folder import run_source
    from affect.engine.system.progress import Progress

    with Progress("run", None, "frames") as progress:
        summary = run_source(engines, source, out, search=search, video=video, anonymize=anonymize, advance=progress.advance)
    dropped = f", {summary['dropped']:,} dropped" if summary["dropped"] else ""
    print(
        f"{out / 'predictions.csv'}: {summary['frames']:,} frames{dropped}, {summary['faces']:,} faces, "
        f"{summary['fps']:,.0f} frames/s"
    )
    for name, package in summary["packages"].items():
        labels = ", ".join(f"{label or 'none'} {count:,}" for label, count in package["labels"].items())
        print(f"{name}: {labels or 'no label'}; {package['flips_per_minute']:g} changes a minute")
    return summary


def _run_clips(
    engines: list[ClipEngine], source: Source, out: Path, hop: int | None, search: Search, side: dict[str, float]
) -> int:
    from affect.engine.runtime.input_warnings import warn_if_slow
    from affect.engine.runtime.writers.clip_table import CLIPS, run_clips

    warn_if_slow(engines, source)
    count = run_clips(engines, source, out, hop=hop, search=search, side=side)
    print(f"{out / CLIPS}: {count:,} clips")
    return count


def _signals(texts: list[str]) -> dict[str, float]:
    signals: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"--side {text}: expected NAME=NUMBER, as in --side heart_rate=512") from None
        if name in signals:
            raise InputError(f"--side {text}: {name} was given before ({signals[name]:g}); give it once")
        signals[name] = number
    return signals


def _subject(engines: list[Engine], source: Source) -> str:
    from affect.engine.runtime.vision.subject import default_subject
    from affect.engine.system.log import say

    chosen, why = default_subject([engine.manifest for engine in engines], source.moving)
    say(f"{source.name}: subject {chosen}, for {why}; --subject names another")
    return chosen


def _folders(sources: list[str], out: Path) -> list[Path]:
    """Return the output folder of each source: `out` itself for one, a folder in it named like the source for each of several."""
    if len(sources) == 1:
        return [out]
    names = [re.sub(r"[^\w.-]+", "_", Path(source).name) or "source" for source in sources]
    return [out / (name if names.count(name) == 1 else f"{i}_{name}") for i, name in enumerate(names)]
