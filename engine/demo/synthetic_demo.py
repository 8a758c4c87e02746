"""The whole line on synthetic faces, ending in a table of what was measured."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import av
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from affect.engine.config.load import load_config
from affect.engine.demo.source_demo import start_over
from affect.engine.package.builtin import DEFAULT_MODEL
from affect.engine.package.model_package import ModelPackage
from affect.engine.pipeline import train
from affect.engine.runs.files import RELIABILITY
from affect.engine.runs.folder import read_history
from affect.engine.runtime.engine import Engine
from affect.engine.runtime.smoothing import OFF
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.vision.subject import Search
from affect.engine.runtime.writers.result_folder import run_source
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.shards.pack import pack
from affect.shards.sources.synthetic_faces import SyntheticSource
from affect.shards.synthetic import faces
from affect.shards.synthetic.expressions import EMOTIONS
from affect.shards.verify import verify

IMAGES, FPS, SECONDS = 5000, 25, 2
CALIB = 0.3  # share of the held-out faces
IN_THE_BOX = "in_the_box"  # the folder of what the model that comes along says
APEX = 0.8  # of full strength, from which a frame of the video counts as showing its emotion


def demo(out: Path) -> None:
    """Everything into the folder `out`, which is replaced if an earlier demo made it."""
    began = time.monotonic()
    start_over(out)
    data, run_folder = out / "dataset", out / "run"
    rows: list[tuple[str, str, Path]] = []

    with Progress("pack", IMAGES, "images") as progress:
        info = pack(SyntheticSource(IMAGES), data, calib=CALIB, advance=progress.advance)
    rows.append(("pack", f"{info.num_samples:,} faces, {progress.rate:,.0f}/s", data))
    with Progress("verify", IMAGES, "samples") as progress:
        verify(data, progress.advance)
    rows.append(("verify", f"{info.num_samples:,} samples as packed", data))

    run = load_config("demo", [f"data.dataset={data}"])
    train(run, run_folder)
    history = read_history(run_folder)
    seconds = sum(line["seconds"] for line in history)
    rate = info.counts["train"] * len(history) / seconds
    waiting = sum(line["waiting_share"] * line["seconds"] for line in history) / seconds
    rows.append(
        ("train", f"{len(history)} epochs, {rate:,.0f} images/s, waiting {100 * waiting:.1f} %", run_folder / "curves.png")
    )

    found = json.loads((run_folder / RELIABILITY).read_text())
    before, after = found["raw"], found["temperature_scaled"]
    text = f"accuracy {before['accuracy']:.3f}, macro-F1 {before['macro_f1']:.3f} on {found['rows']:,} faces of other people"
    rows.append(("evaluate", text, run_folder / "confmat.png"))
    text = f"ECE {before['ece']:.3f} before, {after['ece']:.3f} after; T {after['temperature'][0]:.2f}, fitted on faces apart"
    rows.append(("calibrate", text, run_folder / "reliability.png"))
    package = ModelPackage.open(run_folder)
    assert package.manifest.files is not None
    fact = package.manifest.files[package.model.name]
    text = f"{fact['size'] / 2**20:.1f} MiB; model and graph differ by {fact['parity']['emotion']['max_abs_logit']:.0e} at most"
    rows.append(("export", text, package.model.parent))

    video = out / "faces.mp4"
    shown = _write_video(video)
    engine = Engine.load(package.model.parent)
    with Progress("run", None, "frames") as progress:
        run_source([engine], open_source(video), out, smoothing=OFF, advance=progress.advance)
    predictions = out / "predictions.csv"
    said = pd.read_csv(predictions)["label"]
    right = sum(label == said[frame] for frame, label in shown.items())
    text = f"a video of seven people: {right} of {len(shown)} frames at the apex named right, {progress.rate:,.0f} frames/s"
    rows.append(("run", text, predictions))
    rows.append(("run", _in_the_box(video, shown, out / IN_THE_BOX), out / IN_THE_BOX / "predictions.csv"))
    _print(rows, time.monotonic() - began)
    say("your own picture or video: affect demo --source FILE")


def _in_the_box(video: Path, shown: dict[int, str], out: Path) -> str:
    """The model that comes along on drawn people, whom it has never seen the like of."""
    with Engine.load(DEFAULT_MODEL) as engine:
        run_source([engine], open_source(video), out, search=Search("full"), smoothing=OFF)
    said = pd.read_csv(out / "predictions.csv")["label"]
    right = sum(label == said[frame] for frame, label in shown.items())
    return f"the same video by `{DEFAULT_MODEL}`, trained on photos, not on drawings: {right} of {len(shown)} named right"


def _write_video(path: Path) -> dict[int, str]:
    """People not in the training data, each going from neutral to an emotion and back; frame -> emotion at the apex."""
    shown: dict[int, str] = {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 96, "yuv420p", 2_000_000
        for person, emotion in enumerate(EMOTIONS[1:]):
            pictures, strength = faces.video(7, 1000 + person, emotion, FPS * SECONDS, size=96)
            first = person * FPS * SECONDS
            shown |= {first + int(i): emotion for i in np.flatnonzero(strength > APEX)}
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return shown


def _print(rows: list[tuple[str, str, Path]], seconds: float) -> None:
    table = Table("step", "measured here", "file", title="affect demo")
    for step, text, path in rows:
        table.add_row(step, text, str(path))
    console = Console(width=max(120, Console().width))
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    say(f"{seconds:.0f} s, {peak:.1f} GiB of memory at most")
