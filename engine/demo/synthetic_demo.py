"""`affect demo`: the whole line on synthetic faces, ending in a table of what was measured."""

from __future__ import annotations

import json
import resource
import time
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from affect.engine.config.load import load_config
from affect.engine.crossval.trial import Trial, try_step
from affect.engine.demo.drawn_video import write_video
from affect.engine.demo.fit_budget import Candidate, fit_budget, seconds_left
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
from affect.shards.schema import DatasetInfo
from affect.shards.sources.synthetic_faces import SyntheticSource
from affect.shards.verify import verify

Row = tuple[str, str, Path]  # step, what was measured, file
IMAGES = 5000
CALIB = 0.3  # share of the held-out faces
BUILTIN_FOLDER = "in_the_box"  # of the built-in model's predictions
TIMED_STEPS = 3


def demo(out: Path) -> None:
    """Run every step into the folder `out`, which is replaced if an earlier demo made it."""
    began = time.monotonic()
    start_over(out)
    data, run = out / "dataset", out / "run"
    info, rows = _packed(data)
    packing_s = time.monotonic() - began
    settings = [f"data.dataset={data}", *choose_settings(data, began, packing_s)]
    train(load_config("demo", settings), run)
    rows += [_training(run, info.counts["train"]), *_evaluation(run), _export(run), *_video(run, out)]
    _print(rows, time.monotonic() - began)
    say("your own picture or video: affect demo --source FILE")


def _packed(data: Path) -> tuple[DatasetInfo, list[Row]]:
    with Progress("pack", IMAGES, "images") as progress:
        info = pack(SyntheticSource(IMAGES), data, calib=CALIB, advance=progress.advance)
    with Progress("verify", IMAGES, "samples") as checked:
        verify(data, checked.advance)
    return info, [
        ("pack", f"{info.num_samples:,} faces, {progress.rate:,.0f}/s", data),
        ("verify", f"{info.num_samples:,} samples as packed", data),
    ]


def choose_settings(data: Path, began: float, packing_s: float) -> list[str]:
    """Return the settings that this machine trains in time, by steps that are timed here; print them with the reason."""

    def measure(candidate: Candidate) -> Trial:
        return try_step(load_config("demo", [f"data.dataset={data}", *candidate.settings]), TIMED_STEPS, validate=False)

    choice = fit_budget(partial(seconds_left, began, packing_s), measure)
    say(f"demo: {' '.join(choice.settings)}: {choice.reason}")
    return choice.settings


def _training(run: Path, images: int) -> Row:
    history = read_history(run)
    seconds = sum(line["seconds"] for line in history)
    rate = images * len(history) / seconds
    waiting = sum(line["waiting_share"] * line["seconds"] for line in history) / seconds
    return "train", f"{len(history)} epochs, {rate:,.0f} images/s, waiting {100 * waiting:.1f} %", run / "curves.png"


def _evaluation(run: Path) -> list[Row]:
    figures = json.loads((run / RELIABILITY).read_text())
    raw, scaled = figures["raw"], figures["temperature_scaled"]
    accuracy = f"accuracy {raw['accuracy']:.3f}, macro-F1 {raw['macro_f1']:.3f} on {figures['rows']:,} faces of other people"
    ece = f"ECE {raw['ece']:.3f} before, {scaled['ece']:.3f} after; T {scaled['temperature'][0]:.2f}, fitted on separate faces"
    return [("evaluate", accuracy, run / "confmat.png"), ("calibrate", ece, run / "reliability.png")]


def _export(run: Path) -> Row:
    package = ModelPackage.open(run)
    assert package.manifest.files is not None
    fact = package.manifest.files[package.model.name]
    text = f"{fact['size'] / 2**20:.1f} MiB; model and graph differ by {fact['parity']['emotion']['max_abs_logit']:.0e} at most"
    return "export", text, package.model.parent


def _video(run: Path, out: Path) -> list[Row]:
    """Predict a drawn video with the trained model and with the built-in one, which was trained on photos."""
    video, builtin = out / "faces.mp4", out / BUILTIN_FOLDER
    shown = write_video(video)
    with Progress("run", None, "frames") as progress, Engine.load(run / "package") as engine:
        run_source([engine], open_source(video), out, smoothing=OFF, advance=progress.advance)
    with Engine.load(DEFAULT_MODEL) as engine:
        run_source([engine], open_source(video), builtin, search=Search("full"), smoothing=OFF)
    trained = f"{_right(out, shown)} of {len(shown)} frames at the apex named right, {progress.rate:,.0f} frames/s"
    compared = f"trained on photos, not on drawings: {_right(builtin, shown)} of {len(shown)} named right"
    return [
        ("run", f"a video of seven people: {trained}", out / "predictions.csv"),
        ("run", f"the same video by `{DEFAULT_MODEL}`, {compared}", builtin / "predictions.csv"),
    ]


def _right(folder: Path, shown: dict[int, str]) -> int:
    """Return how many of the shown frames have the right label in predictions.csv."""
    predicted = pd.read_csv(folder / "predictions.csv")["label"]
    return sum(label == predicted[frame] for frame, label in shown.items())


def _print(rows: list[Row], seconds: float) -> None:
    table = Table("step", "measured here", "file", title="affect demo")
    for step, text, path in rows:
        table.add_row(step, text, str(path))
    Console(width=max(120, Console().width)).print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    say(f"{seconds:.0f} s, {peak:.1f} GiB of memory at most")
