"""Milliseconds of a prediction: an engine with `backend="auto"` beside the libraries called directly, on the same graph.

Before anything is timed the predictions are compared. Rounds are interleaved, so that other load meets all alike. The rate of
a call is given as a share of what a large matrix product of torch's reaches here in the same precision; other libraries can be
faster than that.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch.utils.flop_counter import FlopCounterMode

from affect.bench import record
from affect.bench.timing import Timing
from affect.engine.calibration.calibration import read_calibration
from affect.engine.config.load import load_config
from affect.engine.export.export_run import export
from affect.engine.models.deployed import Deployed
from affect.engine.package.graphs import INT8, graph_names
from affect.engine.pipeline import train
from affect.engine.runs.trained import trained_model
from affect.engine.runtime.backends.backend import Choice
from affect.engine.runtime.backends.open_backend import open_choice
from affect.engine.runtime.engine import Engine
from affect.engine.system import openvino as ov
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.synthetic_faces import SyntheticSource

Call = Callable[[np.ndarray], np.ndarray]  # (N, H, W, 3) uint8 -> probabilities (N, C)

OURS = "Engine, auto"
PACKAGES = ("torch", "timm", "onnxruntime", "openvino", "tensorrt")
TOLERANCE = {"float32": 1e-3, "bf16": 0.1, "int8": 0.3}  # of a probability: nothing else is computed
DRAWN, SUBJECTS, DRAWN_PX = 96, 12, 96
ANY_DROP = 100.0  # points: speed is measured, not what an untrained model knows
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns of the product that is the ceiling
PRODUCTS = 5


@dataclass(frozen=True)
class Provider:
    """A way to a prediction. precision: of its products. peer: a library called directly."""

    call: Call
    precision: str
    peer: bool


@dataclass(frozen=True)
class Ready:
    """providers: those that agree. skipped: provider that is not measured -> reason. off: largest difference of a probability."""

    providers: dict[str, Provider] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    off: dict[str, float] = field(default_factory=dict)


def exported(backbone: str, image_size: int, folder: Path, *, int8: bool = False) -> Path:
    """Train a run of one update on drawn faces and export it, with the cost of bf16 in its manifest; it is stored in `folder`."""
    out, dataset = folder / f"{backbone}-{image_size}", folder / "faces"
    if not dataset.exists():
        pack(SyntheticSource(DRAWN, size=DRAWN_PX, subjects=SUBJECTS), dataset)
    if not out.exists():
        values = {
            "data.dataset": dataset,
            "data.batch_size": 16,
            "data.clahe": f"{{tiles: {max(2, image_size // 28)}}}",
            "model.backbone": backbone,
            "model.image_size": image_size,
            "optim.steps": 1,
            "train.track": [],
        }
        train(load_config("smoke", [f"{key}={value}" for key, value in values.items()]), out)
        export(out, int8=int8 and importlib.util.find_spec("nncf") is not None, max_drop=ANY_DROP)
    return out


def ready(run: Path, device: str, *, compile: bool = True) -> Ready:
    """Return the providers that can run the package of a run. Raises InputError where two disagree."""
    engine = Engine.load(run, device=device)
    graph, (name,) = engine.package.model, [graph_names(o)[-1] for o in engine.package.layout.outputs if o.kind == "classes"]
    builders: dict[str, Callable[[], Provider]] = {
        OURS: lambda: Provider(lambda images: engine.run_graph(images)[name], _precision(engine), peer=False),
        "ONNX Runtime": lambda: Provider(_onnxruntime(graph, name, device), "float32", peer=True),
    }
    if device == "cpu":
        builders["OpenVINO"] = lambda: Provider(_openvino(graph, name, "f32"), "float32", peer=True)
        builders["OpenVINO bf16"] = lambda: Provider(_openvino(graph, name, "bf16"), "bf16", peer=True)
        if (graph.with_name(INT8)).is_file():
            builders["OpenVINO INT8"] = lambda: Provider(_openvino(graph.with_name(INT8), name, "f32"), "int8", peer=True)
    else:
        for text in ("tensorrt", "torch"):
            builders[f"Engine, {text}"] = partial(_chosen, engine, text, device, name)
    builders["torch eager"] = lambda: Provider(_torch(run, device), "float32", peer=True)
    for precision in ("float32", "bf16") if compile else ():
        builders[f"torch compiled {precision}"] = partial(_compiled, run, device, precision)
    return _agreeing(builders, np.zeros((2, *engine.package.manifest.input["shape"][1:]), np.uint8))


def _agreeing(builders: Mapping[str, Callable[[], Provider]], like: np.ndarray) -> Ready:
    images, want, built = np.random.default_rng(0).integers(0, 256, like.shape, np.uint8), None, Ready()
    for name, build in builders.items():
        try:
            provider = build()
            prediction = provider.call(images)
        except (InputError, ImportError, RuntimeError) as error:
            built.skipped[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        want = prediction if want is None or (name == "ONNX Runtime") else want
        off = float(np.abs(prediction - want).max())
        if off > TOLERANCE[provider.precision] and name != OURS:
            raise InputError(
                f"bench: {name} predicts something else: {off:.3f} off, at most {TOLERANCE[provider.precision]} expected"
            )
        built.providers[name], built.off[name] = provider, off
    return built


def _precision(engine: Engine) -> str:
    return next((name for name in ("bf16", "int8") if name in engine.description), "float32")


def _onnxruntime(graph: Path, name: str, device: str) -> Call:
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    session = ort.InferenceSession(str(graph), providers=[provider])
    if session.get_providers()[0] != provider:
        raise InputError(f"ONNX Runtime has no {provider} here")
    return lambda images: session.run([name], {"images": images})[0]


def _openvino(graph: Path, name: str, hint: str) -> Call:
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    compiled = ov.core().compile_model(str(graph), "CPU", options)
    place = next(i for i, output in enumerate(compiled.outputs) if name in output.get_names())
    return lambda images: compiled(images)[place]


def _chosen(engine: Engine, text: str, device: str, name: str) -> Provider:
    backend = open_choice(engine.package, Choice.parse(text), device)
    return Provider(lambda images: backend.run(images)[name], "float32", peer=False)


def _compiled(run: Path, device: str, precision: str) -> Provider:
    return Provider(_torch(run, device, precision, compile=True), precision, peer=True)


def _torch(run: Path, device: str, precision: str = "float32", *, compile: bool = False) -> Call:
    _, model, layout = trained_model(run)
    deployed: Any = Deployed(model, layout, read_calibration(run).temperature).eval().to(device)
    deployed = deployed.to(memory_format=torch.channels_last)
    if compile:
        deployed = torch.compile(deployed, mode="reduce-overhead" if device == "cuda" else "default")
    place = next(i for i, name in enumerate(_names(layout)) if name.endswith(".probs"))

    def call(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            return deployed(torch.from_numpy(images).to(device))[place].float().cpu().numpy()

    return call


def _names(layout: Any) -> list[str]:
    return [name for output in layout.outputs for name in graph_names(output)]


def bench_graph(
    run: Path, device: str, batch: int, timing: Timing, advance: Callable[[int], None], built: Ready
) -> list[dict[str, Any]]:
    """Measure a line a provider: milliseconds of a call with `batch` pictures, on pixels that are on the CPU before and after."""
    config, model, _ = trained_model(run)
    shape = (batch, config.model.image_size, config.model.image_size, 3)
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    times_of = rounds({name: partial(p.call, images) for name, p in built.providers.items()}, timing, advance)
    flops, ceilings = _flops(model, images), {name: ceiling(device, name) for name in ("float32", "bf16")}
    best = min(
        (name for name, p in built.providers.items() if p.peer), key=lambda name: np.median(np.concatenate(times_of[name]))
    )
    about = {"backbone": config.model.backbone, "image_size": shape[1], "batch": batch, "device": device, **asdict(timing)}
    lines = []
    for name, times in times_of.items():
        precision = built.providers[name].precision
        rate = flops / float(np.median(np.concatenate(times))) / 1e6  # GFLOP/s
        most = ceilings.get(precision)
        figures = {"gflop_per_s": round(rate, 1), "share_of_matmul": round(rate / most, 4) if most else None}
        settings = about | {"precision": precision, "off": round(built.off[name], 5)}
        lines.append(line("latency.graph", name, settings, times, times_of[best], figures))
    return lines


def rounds(
    timed: Mapping[str, Callable[[], object]], timing: Timing, advance: Callable[[int], None]
) -> dict[str, list[np.ndarray]]:
    """Return the milliseconds of each call, an array a round; the first round warms up and is left out."""
    times_of: dict[str, list[np.ndarray]] = {name: [] for name in timed}
    for _ in range(timing.rounds + 1):
        for name, call in timed.items():
            times, end = list[float](), time.perf_counter() + timing.seconds
            while not times or time.perf_counter() < end:
                began = time.perf_counter()
                call()
                times.append(1e3 * (time.perf_counter() - began))
            times_of[name].append(np.array(times))
            advance(1)
    return {name: values[1:] for name, values in times_of.items()}


def line(
    op: str,
    provider: str,
    settings: dict[str, Any],
    times: list[np.ndarray],
    best: list[np.ndarray],
    figures: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """ratio_to_best_peer: its milliseconds over those of the best peer, round by round: below 1 is faster."""
    ratio = float(np.median([np.median(one) / np.median(other) for one, other in zip(times, best, strict=True)]))
    values = np.concatenate(times)
    more = {"ms_p95": round(float(np.percentile(values, 95)), 3), "ms_p99": round(float(np.percentile(values, 99)), 3)}
    return record.line(
        op, provider, settings, "ms", values.tolist(), ratio, packages=PACKAGES, figures=more | (figures or {}), digits=3
    )


def ceiling(device: str, precision: str) -> float:
    """Return GFLOP/s of a large matrix product, the best of a few."""
    size, dtype = MATRIX[device], {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    times = []
    for _ in range(PRODUCTS):
        began = _now(device)
        a @ b
        times.append(_now(device) - began)
    return 2 * size**3 / min(times) / 1e9


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _flops(model: torch.nn.Module, images: np.ndarray) -> int:
    """Count the operations of a call: two for each multiplication with its addition."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.from_numpy(images))
    return int(counter.get_total_flops())
