"""Frames a second of a video end to end, the engine's own milliseconds a frame, a clip model over a stream, and memory.

Beside the engine runs the usual loop: OpenCV decodes, detects, crops and equalises, and a library predicts, in turn.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from affect.bench import record
from affect.bench.latency import PACKAGES, line, rounds
from affect.bench.timing import Timing
from affect.engine.config.network import ModelConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.export.onnx import write_onnx
from affect.engine.models.clip_model import ClipModel, FrameEncoder, frame_backbone
from affect.engine.models.deployed import Deployed, DeployedTemporal
from affect.engine.models.normalise import Normalise
from affect.engine.models.temporal import LstmAttention
from affect.engine.package.graphs import graph_names
from affect.engine.package.manifest import Manifest
from affect.engine.runtime.backends.auto import Candidates
from affect.engine.runtime.backends.backend import Backend, Choice
from affect.engine.runtime.backends.open_backend import open_graph
from affect.engine.runtime.clip_stream import ClipStream
from affect.engine.runtime.engine import Engine
from affect.engine.runtime.frame_reader import Reader
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Stream
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.vision.crop import crop
from affect.engine.runtime.vision.subject import Search, subject_of
from affect.engine.runtime.writers.result_folder import run_source
from affect.shards.errors import InputError
from affect.shards.schema import Output, TargetLayout

SPARSE = 5  # frames from one detection to the next
NOT_OVERHEAD = ("detect", "crop", "infer")  # stages that any loop has
IN_MEMORY = 200  # frames that the overhead is measured on
STATE = TargetLayout((Output("state", "classes", ("no", "yes")),))
RATE_HZ = 10.0
SIZE, WIDTH = 112, 256  # of frames, and of the temporal head
WARM, EVERY = 2_000, 500  # frames before memory is looked at, and between two looks
FACE = Box(200.0, 120.0, 160.0, 160.0)


def bench_video(
    package: Path, video: Path, subject: str, timing: Timing, folder: Path, advance: Callable[[int], None], sparse: int = SPARSE
) -> list[dict[str, Any]]:
    """Measure frames a second of whole passes over a video, tables written. Raises InputError without a face.

    sparse: frames from one detection to the next, beside one in each.
    """
    engine = Engine.load(package)
    name = next(graph_names(o)[-1] for o in engine.package.layout.outputs if o.kind == "classes")
    every = {"Engine": 1, f"Engine, detection in one of {sparse} frames": sparse}
    passes: dict[str, Callable[[], int]] = {
        who: partial(_run, engine, video, Search(subject, n), folder / f"every{n}") for who, n in every.items()
    }
    peer = "OpenCV and the fastest library, in a loop"
    passes[peer] = partial(_loop, engine, video, subject, name)
    rates: dict[str, list[float]] = {who: [] for who in passes}
    for _ in range(timing.rounds + 1):
        for who, one in passes.items():
            frames, began = 0, time.perf_counter()
            while not frames or time.perf_counter() - began < timing.seconds:
                frames += one()
            rates[who].append(frames / (time.perf_counter() - began))
            advance(1)
    about = {"video": video.name, "subject": subject.partition(":")[0], "backend": engine.description, **asdict(timing)}
    lines = []
    for who, values in rates.items():
        ratio = float(np.median(np.array(values[1:]) / np.array(rates[peer][1:])))
        lines.append(record.line("latency.video", who, about, "frames_per_s", values[1:], ratio, packages=PACKAGES))
    return lines


def _run(engine: Engine, video: Path, search: Search, out: Path) -> int:
    summary = run_source([engine], open_source(str(video)), out, search=search)
    if not summary["faces"]:
        raise InputError(f"bench: {video}: no face found by {search.subject}; name a video with one")
    return int(summary["frames"])


def _loop(engine: Engine, video: Path, subject: str, name: str) -> int:
    """Run the usual loop; detector, crop and preprocessing are the engine's, called one after the other."""
    detector, capture, frames = subject_of(subject), cv2.VideoCapture(str(video)), 0
    preprocess = engine.package.preprocess
    while True:
        there, bgr = capture.read()
        if not there:
            return frames
        image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        views = [preprocess(crop(image, box, preprocess.margin)) for box in detector.detect(image, frames)]
        if views:
            engine.run_graph(np.stack(views))[name].argmax(1)
        frames += 1


def bench_overhead(
    package: Path, video: Path, subject: str, timing: Timing, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Measure milliseconds a frame of all but decoding, detection, crop and inference, over frames in memory, in one thread."""
    engine = Engine.load(package)
    with Stream(open_source(str(video))) as stream:
        images = [shot.image for shot, _ in zip(stream, range(IN_MEMORY), strict=False)]
    times, stages = list[np.ndarray](), dict[str, dict[str, float]]()
    for _ in range(timing.rounds + 1):
        with Reader([engine], open_source(iter(images), 30.0), Search(subject)) as reader:
            began = time.perf_counter()
            seen = sum(1 for _ in reader)
            whole = time.perf_counter() - began
            stages = reader.stages.to_json()
            times.append(np.array([1e3 * (whole - sum(reader.stages.seconds(stage) for stage in NOT_OVERHEAD)) / seen]))
        advance(1)
    figures = {"stages_p50_ms": {name: of["p50_ms"] for name, of in stages.items()}}
    about = {"video": video.name, "subject": subject.partition(":")[0], "frames": len(images), **asdict(timing)}
    return [line("latency.overhead", "Engine", about, times[1:], times[1:], figures)]


def bench_clips(
    num_frames: int, backbone: str, timing: Timing, folder: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Measure a new frame of a stream: by the engine, by the least that must be done, and by the whole window again.

    The least is one encoding and the head; ratio_to_best_peer is to it.
    """
    encoder, temporal, whole = _parts(num_frames, backbone, folder)
    window = np.random.default_rng(0).integers(0, 256, (num_frames, SIZE, SIZE, 3), np.uint8)
    features = encoder.run(window)["features"][None]
    stream, clock = ClipStream(encoder, temporal, num_frames, RATE_HZ), itertools.count()

    def new_frame() -> Any:
        number = next(clock)
        return stream.push(number / RATE_HZ, lambda: window[number % num_frames])

    for _ in range(num_frames):
        window_result = new_frame()
    want = whole.run(window[None])["state.probs"][0]
    if window_result is None or np.abs(window_result.values["state.probs"] - want).max() > 1e-3:
        raise InputError("bench: a stream predicts something else than the whole window; nothing was timed")
    least, plain = "one encoding and the head", "the window anew"
    times_of = rounds(
        {
            "Engine": new_frame,
            least: lambda: (encoder.run(window[:1]), temporal.run(features)),
            plain: lambda: whole.run(window[None]),
        },
        timing,
        advance,
    )
    about = {"frames": num_frames, "backbone": backbone, "image_size": SIZE, "backend": encoder.description.partition(",")[0]}
    return [line("latency.clip", who, about | asdict(timing), times, times_of[least]) for who, times in times_of.items()]


def _parts(num_frames: int, backbone: str, folder: Path) -> tuple[Backend, Backend, Backend]:
    """Export encoder, head and both together of an untrained model; open them in the backend that encodes a frame fastest."""
    torch.manual_seed(0)
    net = FrameEncoder(Normalise(), frame_backbone(ModelConfig(backbone=backbone)))
    head = LstmAttention(net.width, {"state": 2}, num_frames, hidden=WIDTH)
    model = ClipModel(net, head).eval()
    shape, names = (num_frames, SIZE, SIZE, 3), [name for output in STATE.outputs for name in graph_names(output)]
    manifest = Manifest("drawn", "pain_clip", STATE, Preprocess(SIZE), "full", {}, {}, [], "", {"shape": ["N", *shape]})
    paths = [folder / f"{part}-{num_frames}.onnx" for part in ("encoder", "temporal", "whole")]
    clips = torch.zeros(2, *shape, dtype=torch.uint8)
    write_onnx(model.encoder, clips[:, 0], ("images", ["features"]), paths[0], manifest)
    features = torch.zeros(2, num_frames, net.width)
    write_onnx(DeployedTemporal(head, STATE, (1.0,) * 2), features, ("features", names), paths[1], manifest)
    write_onnx(Deployed(model, STATE, (1.0,) * 2), clips, ("images", names), paths[2], manifest)
    choice = _fastest(paths[0], shape[1:])
    encoder, temporal, whole = (open_graph(path, choice, "cpu") for path in paths)
    return encoder, temporal, whole


def _fastest(graph: Path, row: tuple[int, ...]) -> Choice:
    chosen = Candidates(graph, row, "cpu").open(lambda choice: open_graph(graph, choice, "cpu"))
    chosen.close()
    return Choice(chosen.name)


def bench_memory(package: Path, num_frames: int, folder: Path, advance: Callable[[int], None]) -> list[dict[str, Any]]:
    """Measure the MB of the process over a long source, from WARM frames on; tables are written."""
    engine = Engine.load(package)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(4)]
    resident, seen = list[float](), itertools.count(1)

    def look(count: int) -> None:
        advance(count)
        number = next(seen)
        if number >= WARM and number % EVERY == 0:
            resident.append(resident_mb())

    source = open_source((images[i // 100 % 4] for i in range(num_frames)), 30.0)
    search = Search(Listed({i: [FACE] for i in range(num_frames)}))
    run_source([engine], source, folder / "memory", search=search, advance=look)
    figures = {"growth_mb": round(max(resident) - resident[0], 2), "spread_mb": round(max(resident) - min(resident), 2)}
    return [
        record.line("latency.memory", "Engine", {"frames": num_frames}, "mb", resident, 1.0, packages=PACKAGES, figures=figures)
    ]


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
