"""affect bench."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from affect.engine.cli.bench_tables import show, show_latency, show_loaders, show_steps
from affect.engine.cli.options import Json

if TYPE_CHECKING:
    from affect.bench.loader import Timing

Results = Annotated[Path | None, typer.Option(help="where <machine>.jsonl grows; default: bench/results")]
Rounds = Annotated[int, typer.Option(min=1)]

bench_app = typer.Typer(no_args_is_help=True, help="Measure alternatives side by side.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(bench_app, name="bench")
    bench_app.callback()(lambda: None)  # so that one command alone keeps its name


@bench_app.command()
def loader(
    case: Annotated[
        Literal["all", "photo-eval", "photo-crop", "gray"],
        typer.Option(help="256 px JPEG to 224 px, whole or a random part; 48 px gray to 64 px"),
    ] = "all",
    clips: Annotated[bool, typer.Option("--clips", help="clips of 32 frames to 112 px, in place of pictures")] = False,
    data: Annotated[Path | None, typer.Option(help="folder of the pictures; default: a temporary one")] = None,
    pictures: Annotated[int | None, typer.Option(min=16, help="or clips; default: 2000 and 64")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="default: 64, of clips 8")] = None,
    workers: Annotated[int, typer.Option(min=1, help="threads or processes of each provider")] = 2,
    seconds: Annotated[float, typer.Option(min=0.01, help="of a round")] = 3.0,
    rounds: Rounds = 5,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Measure images or clips a second of our loader and of common ones."""
    from affect.bench import record
    from affect.bench.loader import CASES, Timing, bench_loader, packed, providers
    from affect.engine.system.progress import Progress

    names = [] if clips else list(CASES) if case == "all" else [case]
    pictures, batch = pictures or (64 if clips else 2000), batch or (8 if clips else 64)
    lines: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="affect-bench-")))
        for name in names:
            dataset = packed(CASES[name], pictures, folder)
            with Progress(f"bench {name}", 2 * len(providers()) * (rounds + 1), "rounds") as progress:
                measured = bench_loader(name, dataset, batch, workers, Timing(seconds, rounds), progress.advance)
            show_loaders(f"{name}: images/s, {workers} workers", measured)
            lines += measured
        if clips:
            lines += _measured_clips(folder, pictures, batch, workers, Timing(seconds, rounds))
    print(record.append(lines, results or record.RESULTS))
    if as_json:
        print(json.dumps({"bench": "loader", "measurements": lines}))


@bench_app.command()
def train(
    backbone: Annotated[str, typer.Option(help="a name of timm's")] = "resnet18",
    image_size: Annotated[int, typer.Option(min=16, max=1024)] = 64,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    data: Annotated[Path | None, typer.Option(metavar="DATASET", help="a packed dataset; default: drawn faces")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="how many faces are drawn")] = 2048,
    steps: Annotated[int | None, typer.Option(min=1, help="of an epoch, the first ones; default: all")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="of a round of steps")] = 3.0,
    rounds: Rounds = 5,
    workers: Annotated[int, typer.Option(min=0, help="threads or processes that decode; 0: as a run takes them")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    compile: Annotated[bool, typer.Option(help="measure torch.compile, too; on a CPU it takes a minute or more")] = True,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Measure a training step and an epoch, setting by setting, beside timm's."""
    from affect.bench import record
    from affect.bench.loader import Timing
    from affect.bench.steps import Work
    from affect.bench.train import bench_epoch, bench_steps, drawn, ready
    from affect.engine.data.selection import open_dataset
    from affect.engine.system.device import choose_device, describe
    from affect.engine.system.progress import Progress

    chosen = choose_device(device)
    with tempfile.TemporaryDirectory(prefix="affect-bench-") as folder:
        dataset = open_dataset(data) if data else drawn(image_size, pictures, Path(folder))
        work = Work(dataset, chosen, Path(folder), backbone, image_size, batch, workers, steps)
        timing, built = Timing(seconds, rounds), ready(work, compile=compile)
        with Progress("bench train", (len(built.providers) + len(built.ours) + 1) * (rounds + 1), "rounds") as progress:
            taken = bench_steps(work, built, timing, progress.advance)
            epoch = bench_epoch(work, built, taken, timing, progress.advance)
    what = f"{backbone}, {image_size} px, {batch} a batch, {describe(chosen)}"
    show_steps(f"a step: {what}", taken, built.skipped)
    show_steps(f"{work.steps} of the {work.whole} steps of an epoch: {what}", epoch, {})
    print(record.append(taken + epoch, results or record.RESULTS))
    if as_json:
        print(json.dumps({"bench": "train", "measurements": taken + epoch, "not_measured": built.skipped}))


@bench_app.command()
def kernels(
    op: Annotated[Literal["all", "arcface_head", "arcface_ce", "dkd", "proto_kd"], typer.Option(help="one loss alone")] = "all",
    seconds: Annotated[float, typer.Option(min=0.001, help="of a round")] = 0.05,
    rounds: Rounds = 5,
    compile: Annotated[bool, typer.Option(help="measure torch.compile, too; on a CPU it takes minutes")] = True,
    save: Annotated[bool, typer.Option("--save", help="append to bench/results/<machine>.jsonl")] = False,
    results: Annotated[Path | None, typer.Option(help="save in this folder instead")] = None,
    as_json: Json = False,
) -> None:
    """The losses, forward and backward: eager torch, the same compiled and, on a GPU, Triton, with CUDA graphs and without."""
    import torch

    from affect.bench import record
    from affect.bench.kernel_tables import tables
    from affect.bench.kernels import bench_kernels
    from affect.bench.losses import OPS, cases
    from affect.bench.timing import Timing
    from affect.engine.system.progress import Progress

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen, folder = cases(OPS if op == "all" else [op], device), results or (record.RESULTS if save else None)
    with Progress("bench kernels", len(chosen), "cases") as progress:
        report = bench_kernels(chosen, device, Timing(seconds, rounds), progress.advance, compile=compile, folder=folder)
    for table in tables(report.lines):
        show(*table)
    for name, reason in report.not_measured.items():
        print(f"{name}: not measured: {reason}")
    if folder:
        print(folder / f"{record.machine_name()}.jsonl")
    if as_json:
        print(json.dumps({"bench": "kernels", "measurements": report.lines, "not_measured": report.not_measured}))
    report.check()


@bench_app.command()
def latency(
    part: Annotated[
        Literal["all", "graph", "clips", "video", "memory"],
        typer.Option(help="a call; a clip model over a stream; a video end to end; memory over a long source"),
    ] = "all",
    package: Annotated[
        Path | None, typer.Option(metavar="RUN", help="an exported run; default: an untrained one is drawn")
    ] = None,
    backbone: Annotated[str, typer.Option(help="of the run that is drawn for a call")] = "resnet18",
    video_backbone: Annotated[str, typer.Option(help="of the run that is drawn for a video")] = "mobilenetv3_large_100",
    image_size: Annotated[int, typer.Option(min=16, max=1024)] = 224,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="pictures a call; default: 1, on a GPU also 64")] = None,
    frames: Annotated[list[int] | None, typer.Option(min=2, help="of a clip; default: 10 and 32")] = None,
    video: Annotated[Path | None, typer.Option(help="with a face in it; without one videos are not measured")] = None,
    subject: Annotated[str, typer.Option(help="face detector: human_face, yunet:FILE.onnx")] = "human_face",
    detect_every: Annotated[int, typer.Option(min=2, help="frames from one detection to the next, measured beside each")] = 5,
    long: Annotated[int, typer.Option(min=4000, help="frames of the long source")] = 20_000,
    int8: Annotated[bool, typer.Option("--int8", help="also a file in INT8, where NNCF is installed")] = False,
    compile: Annotated[bool, typer.Option(help="measure torch.compile, too; on a CPU it takes a minute or more")] = True,
    seconds: Annotated[float, typer.Option(min=0.001, help="of a round")] = 1.0,
    rounds: Rounds = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    data: Annotated[Path | None, typer.Option(help="folder of what is drawn; default: a temporary one")] = None,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Measure milliseconds of a call and frames a second, beside the libraries called directly."""
    from affect.bench import record
    from affect.bench.latency import bench_graph, exported, ready
    from affect.bench.streaming import bench_clips, bench_memory, bench_overhead, bench_video
    from affect.bench.timing import Timing
    from affect.engine.runtime.backends.open_backend import best_device
    from affect.engine.system.progress import Progress

    place, timing, lines = best_device() if device == "auto" else device, Timing(seconds, rounds), list[dict[str, Any]]()
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="affect-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        if part in ("all", "graph"):
            run = package or exported(backbone, image_size, folder, int8=int8)
            built = ready(run, place, compile=compile)
            skipped |= built.skipped
            for count in batch or ([1, 64] if place == "cuda" else [1]):
                with Progress(f"bench batch {count}", len(built.providers) * (rounds + 1), "rounds") as progress:
                    lines += bench_graph(run, place, count, timing, progress.advance, built)
        if part in ("all", "clips"):
            for count in frames or [10, 32]:
                with Progress(f"bench clips of {count}", 3 * (rounds + 1), "rounds") as progress:
                    lines += bench_clips(count, backbone, timing, folder, progress.advance)
        if part in ("all", "video") and video:
            run = package or exported(video_backbone, image_size, folder)
            with Progress("bench video", 4 * (rounds + 1), "rounds") as progress:
                lines += bench_video(run, video, subject, timing, folder, progress.advance, detect_every)
                lines += bench_overhead(run, video, subject, timing, progress.advance)
        elif part in ("all", "video"):
            skipped |= {"video": f"name one with --video, and --subject; one of {detect_every} frames is searched beside each"}
        if part in ("all", "memory"):
            with Progress("bench memory", long, "frames") as progress:
                lines += bench_memory(exported("test_resnet", 64, folder), long, folder, progress.advance)
    for op in dict.fromkeys(line["op"] for line in lines):
        show_latency(op, [line for line in lines if line["op"] == op])
    for name, reason in skipped.items():
        print(f"{name}: not measured: {reason}")
    print(record.append(lines, results or record.RESULTS))
    if as_json:
        print(json.dumps({"bench": "latency", "measurements": lines, "not_measured": skipped}))


def _measured_clips(folder: Path, num_clips: int, batch: int, workers: int, timing: Timing) -> list[dict[str, Any]]:
    from affect.bench.clips import FRAMES, PEERS, PREPROCESS, bench_clips, packed, providers
    from affect.engine.system.progress import Progress

    dataset = packed(num_clips, folder)
    with Progress("bench clips", len(providers()) * (timing.rounds + 1), "rounds") as progress:
        lines = bench_clips(dataset, batch, workers, timing, progress.advance)
    rows = [
        [
            line["provider"], *(f"{line['clips_per_s'][p]:.1f}" for p in ("p20", "p50", "p80")),
            *(f"{line['ratio_to'][peer]:.2f}x" for peer in PEERS), f"{line['settings']['mean_difference']:.3f}",
        ]
        for line in lines
    ]  # fmt: skip
    title = f"clips/s of {FRAMES} frames to {PREPROCESS.size} px, {workers} workers"
    show(title, ["provider", "p20", "p50", "p80", "to OpenCV", "to PyAV, mp4", "levels off"], rows)
    return lines


@bench_app.command()
def peer(
    npz: Annotated[Path, typer.Argument(help="FER+ faces with votes")],
    onnx: Annotated[Path, typer.Argument(help="mini_xception_fer2013.onnx, or another of FER2013's seven classes")],
    package: Annotated[str, typer.Option(help="what stands beside it")] = "emotion",
) -> None:
    """A published classifier and ours on the same faces, under both label protocols; McNemar's test."""
    from affect.bench.peer import bench_peer

    bench_peer(npz, onnx, package)


@bench_app.command()
def crops(
    npz: Annotated[Path, typer.Argument(help="the training pictures")],
    yunet: Annotated[Path, typer.Argument(help="yunet_n_640_640.onnx")],
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="with a face each")],
    package: Annotated[str, typer.Option(help="whose steadiness is measured")] = "emotion",
) -> None:
    """Measure how a detected face must be cropped to look like the training pictures: data.margin, data.align."""
    from affect.bench.crops import bench_crops

    bench_crops(package, npz, yunet, videos)
