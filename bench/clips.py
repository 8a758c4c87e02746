"""Clips a second: our loader beside a DataLoader with OpenCV on the same frames, and one with PyAV on the videos they are of.

All decode, resize, cut and equalise, nothing else; uint8 comes out. Ours reads packed JPEG frames, 32 of a recording; they lie
as files for OpenCV, and a video has the frames between them, too.

Axes: B batch, N clips, T frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from affect.bench import peers, record
from affect.bench.loader import MAX_DIFFERENCE, SEED, Timing, kinds, rates
from affect.bench.peers import Batches, PeerPicture
from affect.engine.config.data import ClipConfig
from affect.engine.config.preprocess import Clahe, Preprocess
from affect.engine.data import opencv as plain
from affect.engine.data.augment import Draw
from affect.engine.data.batch_plan import Plan, Planner
from affect.engine.data.clip_view import clip_view
from affect.engine.data.loader import Loader
from affect.shards import dataset as read
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sample import Clip, Sample
from affect.shards.sampler import Order
from affect.shards.schema import ClipFacts, TargetLayout
from affect.shards.sources.synthetic_faces import EMOTION
from affect.shards.synthetic import faces

FRAMES, PIXELS = 32, 128
BETWEEN = 3  # frames of a video between two that are packed: about 5 s of it
RATE_HZ = 25
QUALITY = 95
PREPROCESS = Preprocess(112, clahe=Clahe(tiles=4))
COMPARED = 2  # batches
VIDEO_DIFFERENCE = 12.0  # levels, on average: it was compressed otherwise, and CLAHE raises what differs
MP4 = "torch DataLoader + PyAV (mp4)"


class MovingFaces:
    """Drawn faces that move, as JPEG frames. All are training clips; `folder` gets a video of each, and its frames as files."""

    label_protocol, clip = "hard", ClipFacts("uniform", FRAMES)

    def __init__(self, num_clips: int, folder: Path) -> None:
        self.num_clips, self.folder = num_clips, folder
        self.layout, self.filtered, self.meta = TargetLayout((EMOTION,)), Counter[str](), dict[str, type]()

    def samples(self) -> Iterator[Sample]:
        for i in range(self.num_clips):
            emotion = EMOTION.names[i % len(EMOTION.names)]
            draw = partial(self._clip, i, emotion)
            yield Sample(draw, f"moving#{i}", "train", EMOTION.one_hot(emotion), "faces")

    def fingerprint(self) -> dict[str, str]:
        return {"moving": f"{self.num_clips} {FRAMES} {PIXELS}"}

    def _clip(self, i: int, emotion: str) -> Clip:
        frames, _ = faces.video(SEED, i // len(EMOTION.names), emotion, FRAMES, PIXELS)
        encoded = [cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes() for frame in frames]
        for path, data in zip(frame_files(self.folder, i), encoded, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        _record(frames, video_file(self.folder, i))
        return Clip(tuple(encoded), tuple(number / RATE_HZ for number in seen()))


def frame_files(folder: Path, clip: int) -> list[Path]:
    return [folder / "frames" / f"{clip:06d}" / f"{t:03d}.jpg" for t in range(FRAMES)]


def video_file(folder: Path, clip: int) -> Path:
    return folder / f"{clip:06d}.mp4"


def seen() -> list[int]:
    """(T,) the frames of a video that are packed."""
    return [t * (BETWEEN + 1) for t in range(FRAMES)]


def _record(frames: np.ndarray, path: Path) -> None:
    """H.264 in mp4; between two frames, blends of them."""
    share = np.arange(BETWEEN + 1) / (BETWEEN + 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ, options={"crf": "18", "threads": "1"})
        stream.width = stream.height = PIXELS
        stream.pix_fmt = "yuv420p"
        for frame, following in zip(frames, [*frames[1:], None], strict=True):
            for s in share if following is not None else share[:1]:
                blend = frame if s == 0 else cv2.addWeighted(frame, 1 - s, following, s, 0)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(blend, format="rgb24")))
        container.mux(stream.encode())


def packed(num_clips: int, folder: Path) -> read.Dataset:
    """The clips, drawn and packed unless an earlier run left them in `folder`, with the peers' files beside them."""
    out = folder / f"clips-{num_clips}"
    if not out.exists():
        pack(MovingFaces(num_clips, folder / f"{out.name}-files"), out, on_leak="keep")
    return read.Dataset(out)


@dataclass(frozen=True)
class Work:
    """The task of every provider. views: of the evaluation view, a row a clip, without bytes."""

    dataset: read.Dataset
    views: Plan
    batch: int
    workers: int

    @classmethod
    def of(cls, dataset: read.Dataset, batch: int, workers: int) -> Work:
        everything = Order(dataset.rows("train"), seed=SEED, batch=dataset.info.num_samples, shuffle=False)
        return cls(dataset, replace(_planner(dataset, everything).plan(0), data=[]), batch, workers)

    @property
    def files(self) -> Path:
        return self.dataset.folder.with_name(f"{self.dataset.folder.name}-files")

    @property
    def picture(self) -> PeerPicture:
        return PeerPicture(self.views, PREPROCESS, "uint8")

    @property
    def numbers(self) -> list[int]:
        """(N,) of the clips as they were drawn, in the order of the index."""
        return [int(path.removeprefix("moving#")) for path in self.dataset.column("path")]


def _planner(dataset: read.Dataset, order: Order) -> Planner:
    return Planner(dataset, order, PREPROCESS, None, SEED, clip=clip_view(ClipConfig(frames=FRAMES), dataset, order.rows))


def ours(kind: str, work: Work) -> Batches:
    """`Loader`, with its targets and masks."""
    order = Order(work.dataset.rows("train"), seed=SEED, batch=work.batch)
    loader = Loader(_planner(work.dataset, order), (EMOTION.name,), torch.device("cpu"), kind, work.workers)
    for batch in loader.from_step(0):
        yield batch.sample, batch.inputs


def frames_and_opencv(work: Work) -> Batches:
    files = [frame_files(work.files, number) for number in work.numbers]
    return peers.frames_and_opencv(files, work.picture, work.batch, work.workers)


def videos_and_pyav(work: Work) -> Batches:
    files = [video_file(work.files, number) for number in work.numbers]
    return peers.videos_and_pyav(files, seen(), work.picture, work.batch, work.workers)


Provider = Callable[[Work], Batches]
PEERS: dict[str, Provider] = {"torch DataLoader + OpenCV": frames_and_opencv, MP4: videos_and_pyav}


def providers() -> dict[str, Provider]:
    """Ours first; without DALI installed the plain one only."""
    return {kind: partial(ours, kind) for kind in kinds()} | PEERS


def compare(work: Work, name: str, batches: Batches) -> float:
    """The mean difference, in levels, of a provider's first clips from the plain ones. Raises InputError where it is large."""
    differences, views = list[float](), work.views
    for samples, images in islice(batches, COMPARED):
        data = [frame for sample in samples.tolist() for frame in work.dataset.frames(sample)]
        drawn = Draw(views.draw.window[samples], views.draw.flip[samples], views.draw.clahe_level[samples])
        plan = Plan(samples, data, views.size[samples], views.corner[samples], drawn, np.zeros_like(samples))
        want = np.stack([plain.picture(plan, i, PREPROCESS) for i in range(len(data))])
        differences.append(np.abs(want.astype(int) - images.numpy().reshape(want.shape)).mean())
    difference, most = float(np.mean(differences)), VIDEO_DIFFERENCE if name == MP4 else MAX_DIFFERENCE
    if difference > most:
        raise InputError(
            f"bench: {name} makes other clips: {difference:.2f} levels off on average, at most {most} expected; "
            "nothing was timed. Mend it: tests/engine/data/test_clips.py, tests/bench/test_clips_bench.py"
        )
    return difference


def bench_clips(
    dataset: read.Dataset, batch: int, workers: int, timing: Timing, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """A line a provider. Raises InputError where the clips differ."""
    if dataset.info.num_samples < batch:
        raise InputError(f"bench: --pictures {dataset.info.num_samples} is less than a batch ({batch}) of clips")
    work, makers = Work.of(dataset, batch, workers), providers()
    differences = {provider: compare(work, provider, make(work)) for provider, make in makers.items()}
    measured = rates({provider: make(work) for provider, make in makers.items()}, batch, timing, advance)
    settings = {"case": "clips", "frames": FRAMES, "batch": batch, "workers": workers, "clips": dataset.info.num_samples}
    settings |= {"variant": "uint8", **asdict(timing)}
    lines = []
    for provider, values in measured.items():  # round by round: all met the same disturbance
        ratios = {peer: round(float(np.median(np.array(values) / np.array(measured[peer]))), 3) for peer in PEERS}
        about = settings | {"mean_difference": round(differences[provider], 3)}
        lines.append(
            record.line(
                "loader.clips",
                provider,
                about,
                "clips_per_s",
                values,
                min(ratios.values()),
                figures={"ratio_to": ratios},
                packages=("torch", "dali", "opencv", "av"),
            )
        )
    return lines
