"""Pictures a second: our loader beside those that people use, on the same pictures with the same numbers.

Every provider decodes, cuts, resizes, flips and equalises; `float32` also normalises, which in ours the model does (so it is
done here, too), `uint8` leaves that out for all. Before anything is timed the pictures are compared with the plain ones.
Rounds are interleaved, so that what else the machine does meets all alike.

Axes: B batch, N pictures, H W pixels.
"""

from __future__ import annotations

import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from affect.bench import peers, record
from affect.bench.peers import MEAN, STD, Batches, PeerPicture, Variant
from affect.engine.config.augmentation import AugmentConfig, CropConfig
from affect.engine.config.preprocess import Clahe, Preprocess
from affect.engine.data import opencv as plain
from affect.engine.data.augment import Draw, draw
from affect.engine.data.batch_plan import Plan, Planner
from affect.engine.data.loader import Loader
from affect.shards import dataset as read
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sample import Sample
from affect.shards.sampler import Order
from affect.shards.schema import TargetLayout
from affect.shards.sources.synthetic_faces import EMOTION
from affect.shards.synthetic import faces
from affect.shards.tar_stream import StreamOrder, StreamReader

SEED = 1337
STREAMED = 4  # batches that a stream shuffles among; it holds two more, and two are decoded ahead
BUFFERED = 10  # batches: more than any provider holds ready; they are taken before a round is timed
COMPARED = 128  # pictures at most; never more than an epoch, whose numbers are those of the table
MAX_DIFFERENCE = 1.0  # levels, on average
SHARDS = 8


@dataclass(frozen=True)
class Case:
    """What is measured: pictures of `pixels` become `preprocess.size`; `crop` None: the evaluation view, flipped at random."""

    pixels: int
    jpeg_quality: int | None  # None: gray PNG
    preprocess: Preprocess
    crop: CropConfig | None

    @property
    def augment(self) -> AugmentConfig:
        return AugmentConfig(crop=self.crop)

    @property
    def pictures_name(self) -> str:
        return f"{self.pixels}px-{'jpg' if self.jpeg_quality else 'gray'}"


CASES = {
    "photo-eval": Case(256, 95, Preprocess(224, clahe=Clahe(tiles=8)), None),
    "photo-crop": Case(256, 95, Preprocess(224, clahe=Clahe(tiles=8)), CropConfig()),
    "gray": Case(48, None, Preprocess(64, resize=1.0, color="gray", clahe=Clahe(tiles=2)), None),
}


class FacesSource:
    """Drawn faces as people have them: JPEG files in colour, or small gray arrays. All are training pictures."""

    label_protocol = "hard"

    def __init__(self, num_images: int, pixels: int, jpeg_quality: int | None) -> None:
        self.num_images, self.pixels, self.jpeg_quality = num_images, pixels, jpeg_quality
        self.layout, self.filtered = TargetLayout((EMOTION,)), Counter[str]()
        self.meta: dict[str, type] = {}
        self.images: list[bytes | np.ndarray] = []  # drawn once, though a source is read twice

    def samples(self) -> Iterator[Sample]:
        for i in range(self.num_images):
            if i == len(self.images):
                self.images.append(self._drawn(i))
            yield Sample(self.images[i], f"faces#{i}", "train", EMOTION.one_hot(self._emotion(i)), source="faces")

    def _emotion(self, i: int) -> str:
        return EMOTION.names[i % len(EMOTION.names)]

    def _drawn(self, i: int) -> bytes | np.ndarray:
        image, _ = faces.still(SEED, i // len(EMOTION.names), self._emotion(i), i, self.pixels)
        if self.jpeg_quality is None:
            return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])[1].tobytes()

    def fingerprint(self) -> dict[str, str]:
        return {"faces": f"{self.num_images} {self.pixels} {self.jpeg_quality}"}


def packed(case: Case, num_images: int, folder: Path) -> read.Dataset:
    """The case's pictures, drawn and packed unless an earlier run left them in `folder`."""
    out = folder / f"{case.pictures_name}-{num_images}"
    if not out.exists():
        source = FacesSource(num_images, case.pixels, case.jpeg_quality)
        pack(source, out, shard_samples=max(1, -(-num_images // SHARDS)))
    return read.Dataset(out)


def unpacked(dataset: read.Dataset) -> list[Path]:
    """The same bytes as a file each, (N,) in the order of the index."""
    folder = dataset.folder.with_name(f"{dataset.folder.name}-files")
    folder.mkdir(exist_ok=True)
    suffix = "png" if dataset.image(0)[0] == 0x89 else "jpg"
    paths = [folder / f"{sample:06d}.{suffix}" for sample in range(dataset.info.num_samples)]
    for sample, path in enumerate(paths):
        if not path.is_file():
            path.write_bytes(dataset.image(sample).tobytes())
    return paths


@dataclass(frozen=True)
class FlippedPlanner(Planner):
    """The evaluation view, flipped at random."""

    def plan(self, step: int) -> Plan:
        plan, (sample, draw_id) = super().plan(step), self.order.step(step)
        height, width = plan.draw.window[:, 2:].T
        drawn = draw(AugmentConfig(crop=None), None, self.preprocess.size, self.seed, draw_id, sample, height, width)
        return replace(plan, draw=replace(plan.draw, flip=drawn.flip))


@dataclass(frozen=True)
class Work:
    """A case on its pictures, the task of every provider.

    views: the numbers of the first epoch, a row a sample, without bytes: ours draws them as it goes, peers look them up.
    """

    case: Case
    dataset: read.Dataset
    files: list[Path]
    views: Plan
    batch: int
    workers: int

    @classmethod
    def of(cls, case: Case, dataset: read.Dataset, batch: int, workers: int) -> Work:
        everything = Order(dataset.rows("train"), seed=SEED, batch=dataset.info.num_samples, shuffle=False)
        views = replace(_planner(case, dataset, everything).plan(0), data=[])
        return cls(case, dataset, unpacked(dataset), views, batch, workers)

    def planner(self) -> Planner:
        return _planner(self.case, self.dataset, Order(self.dataset.rows("train"), seed=SEED, batch=self.batch))

    def stream_planner(self) -> Planner:
        """Reads tar after tar."""
        rows, buffer = self.dataset.rows("train"), STREAMED * self.batch
        order = StreamOrder(self.dataset, rows, seed=SEED, batch=self.batch, buffer=buffer)
        return _planner(self.case, self.dataset, order, StreamReader(self.dataset, order))

    def peer_picture(self, variant: Variant) -> PeerPicture:
        return PeerPicture(self.views, self.case.preprocess, variant)


def _planner(case: Case, dataset: read.Dataset, order: Order, stream: StreamReader | None = None) -> Planner:
    if case.crop:
        return Planner(dataset, order, case.preprocess, case.augment, SEED, stream)
    return FlippedPlanner(dataset, order, case.preprocess, None, SEED, stream)


def ours(kind: str, work: Work, variant: Variant, *, stream: bool = False) -> Batches:
    """`Loader`, with its targets and masks."""
    planner = work.stream_planner() if stream else work.planner()
    loader = Loader(planner, (EMOTION.name,), torch.device("cpu"), kind, work.workers)
    for batch in loader.from_step(0):
        yield batch.sample, normalised(batch.inputs) if variant == "float32" else batch.inputs


def normalised(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels-last memory.

    By rows of pixels: torch is three times as slow with an innermost axis of three numbers.
    """
    rows = images.flatten(2).float()  # (B, H, W * 3)
    width = images.shape[2]
    return rows.sub_(MEAN.repeat(width)).div_(STD.repeat(width)).view(images.shape).permute(0, 3, 1, 2)


def files_and_opencv(work: Work, variant: Variant) -> Batches:
    return peers.files_and_opencv(work.files, work.peer_picture(variant), work.batch, work.workers)


def webdataset_and_opencv(work: Work, variant: Variant) -> Batches:
    tars = sorted(work.dataset.folder.glob("*.tar"))
    return peers.webdataset_and_opencv(tars, work.peer_picture(variant), work.batch, work.workers)


Provider = Callable[[Work, Variant], Batches]
PEERS: dict[str, Provider] = {
    "torch DataLoader + OpenCV": files_and_opencv,
    "webdataset + OpenCV": webdataset_and_opencv,
}


def providers() -> dict[str, Provider]:
    """Ours first; without DALI installed plain ones only. Streamed pictures go through the fastest one, named in brackets."""
    fastest = kinds()[0]
    ours_by_name: dict[str, Provider] = {kind: partial(ours, kind) for kind in kinds()}
    ours_by_name[f"stream ({fastest})"] = partial(ours, fastest, stream=True)
    return ours_by_name | PEERS


def kinds() -> list[str]:
    """Return the kinds of our loader that are installed; the fastest first."""
    has_dali = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
    return ["dali", "plain"] if has_dali else ["plain"]


def compare(work: Work, name: str, batches: Batches) -> float:
    """The mean difference, in levels, of a provider's first pictures from the plain ones. Raises InputError above one level."""
    differences = []
    count = min(COMPARED, len(work.files)) // work.batch
    for samples, images in islice(batches, max(1, count)):
        data = [work.dataset.image(int(sample)) for sample in samples]
        views = work.views
        drawn = Draw(views.draw.window[samples], views.draw.flip[samples], views.draw.clahe_level[samples])
        plan = Plan(samples, data, views.size[samples], views.corner[samples], drawn)
        want = np.stack([plain.picture(plan, i, work.case.preprocess) for i in range(len(samples))])
        differences.append(np.abs(want.astype(int) - images.numpy()).mean())
    difference = float(np.mean(differences))
    if difference > MAX_DIFFERENCE:
        raise InputError(
            f"bench: {name} makes other pictures: {difference:.2f} levels off on average, at most {MAX_DIFFERENCE} expected; "
            "nothing was timed. Mend it: tests/engine/data/test_pipelines_agree.py, tests/bench/test_loader_bench.py"
        )
    return difference


@dataclass(frozen=True)
class Timing:
    """How long is measured."""

    seconds: float = 3.0
    rounds: int = 5


def rates(running: dict[Any, Batches], batch: int, timing: Timing, advance: Callable[[int], None]) -> dict[Any, list[float]]:
    """Images a second of each, a number a round; the first round warms up and is left out."""
    measured: dict[Any, list[float]] = {key: [] for key in running}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one thread takes the batches; more of torch's would fight with the loaders for the cores
    for _ in range(timing.rounds + 1):
        for key, batches in running.items():
            measured[key].append(_rate(batches, batch, timing.seconds))
            time.sleep(BUFFERED * batch / measured[key][-1])  # it fills its buffers; the next one should have the machine alone
            advance(1)
    torch.set_num_threads(threads)
    return {key: values[1:] for key, values in measured.items()}


def _rate(batches: Batches, batch: int, seconds: float) -> float:
    """Return the rate of one provider over `seconds`, once its buffered batches are used up."""
    for _ in islice(batches, BUFFERED):
        pass
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(batches)
        done += batch
    return done / elapsed


def bench_loader(
    name: str, dataset: read.Dataset, batch: int, workers: int, timing: Timing, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Measure one case: a line a provider and variant, `float32` first. Raises InputError where the pictures differ."""
    work = Work.of(CASES[name], dataset, batch, workers)
    if dataset.info.num_samples < batch:
        raise InputError(f"bench: --pictures {dataset.info.num_samples} is less than a batch ({batch})")
    makers = providers()
    differences = {provider: compare(work, provider, make(work, "uint8")) for provider, make in makers.items()}
    variants: tuple[Variant, ...] = ("float32", "uint8")
    running = {(variant, provider): make(work, variant) for variant in variants for provider, make in makers.items()}
    measured = rates(running, batch, timing, advance)
    settings = {"case": name, "batch": batch, "workers": workers, "pictures": dataset.info.num_samples, **asdict(timing)}
    lines = []
    for (variant, provider), values in measured.items():
        best = max((measured[variant, peer] for peer in PEERS), key=np.median)
        ratio = float(np.median(np.array(values) / np.array(best)))  # round by round: both met the same disturbance
        about = settings | {"variant": variant, "mean_difference": round(differences[provider], 3)}
        lines.append(record.line(f"loader.{name}", provider, about, "images_per_s", values, ratio))
    return lines
