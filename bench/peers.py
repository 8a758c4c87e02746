"""The loaders that people use: OpenCV in worker processes, shuffled, without end.

They draw no views but look ours up, so that their pictures can be compared with ours.

Axes: B batch, N pictures, H W pixels.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from affect.engine.config.preprocess import Preprocess
from affect.engine.data.batch_plan import Plan

MEAN = torch.tensor([0.485, 0.456, 0.406]) * 255  # ImageNet's, as everywhere
STD = torch.tensor([0.229, 0.224, 0.225]) * 255

Batches = Iterator[tuple[np.ndarray, Tensor]]  # (B,) sample numbers, images
Variant = Literal["float32", "uint8"]


@dataclass(frozen=True)
class PeerPicture:
    """A picture as people write it with OpenCV: uint8 all the way, then torchvision's to_tensor and normalize.

    views: a row a sample, without bytes.
    """

    views: Plan
    preprocess: Preprocess
    variant: Variant

    def __call__(self, data: bytes, sample: int) -> tuple[int, Tensor]:
        gray = self.preprocess.color == "gray"
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
        return sample, self.of(image, sample)

    def of(self, image: Any, sample: int) -> Tensor:
        """Return the view of a decoded picture, gray or BGR."""
        views, size = self.views, self.preprocess.size
        top, left, height, width = views.draw.window[sample].tolist()
        image = image[top : top + height, left : left + width]
        height, width = views.size[sample].tolist()
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        top, left = views.corner[sample].tolist()
        image = image[top : top + size, left : left + size]
        if views.draw.flip[sample]:
            image = cv2.flip(image, 1)
        image = torch.from_numpy(self._equalised(image))
        if self.variant == "uint8":
            return image
        planes = image.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        return planes.sub_(MEAN[:, None, None]).div_(STD[:, None, None])

    def _equalised(self, image: np.ndarray) -> np.ndarray:
        """(H, W) gray or (H, W, 3) BGR -> (H, W, 3) RGB."""
        assert self.preprocess.clahe
        operator = _operator(self.preprocess.clahe.clip_limit, self.preprocess.clahe.tiles)
        if image.ndim == 2:
            return cv2.cvtColor(operator.apply(image), cv2.COLOR_GRAY2RGB)
        lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
        lab[..., 0] = operator.apply(lab[..., 0])
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


@cache
def _operator(clip_limit: float, tiles: int) -> Any:
    return cv2.createCLAHE(clip_limit, (tiles, tiles))


@dataclass(frozen=True)
class Files(Dataset):
    """A map-style dataset over picture files."""

    paths: list[Path]
    picture: PeerPicture

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: int) -> tuple[int, Tensor]:
        return self.picture(self.paths[sample].read_bytes(), sample)


@dataclass(frozen=True)
class FrameFiles(Dataset):
    """A map-style dataset over clips whose frames are picture files."""

    paths: list[list[Path]]
    picture: PeerPicture

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: int) -> tuple[int, Tensor]:
        return sample, torch.stack([self.picture(path.read_bytes(), sample)[1] for path in self.paths[sample]])


@dataclass(frozen=True)
class Videos(Dataset):
    """A map-style dataset over videos, of whose frames the numbers `seen` are used; all up to the last of them are decoded."""

    paths: list[Path]
    seen: list[int]
    picture: PeerPicture

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: int) -> tuple[int, Tensor]:
        pictures, wanted = list[Tensor](), set(self.seen)
        with av.open(str(self.paths[sample])) as container:
            container.streams.video[0].codec_context.thread_count = 1  # a worker is a core
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    pictures.append(self.picture.of(frame.to_ndarray(format="bgr24"), sample))
        return sample, torch.stack(pictures)


@dataclass(frozen=True)
class FromTar:
    """A sample of the webdataset package through a picture."""

    picture: PeerPicture

    def __call__(self, sample: dict[str, Any]) -> tuple[int, Tensor]:
        return self.picture(sample.get("jpg") or sample["png"], int(sample["__key__"]))


def files_and_opencv(files: list[Path], picture: PeerPicture, batch: int, workers: int) -> Batches:
    """torch's DataLoader over files, (N,) in the order of the index."""
    dataset = Files(files, picture)
    return _worked(dataset, batch, workers, sampler=RandomSampler(dataset, num_samples=2**40))


def frames_and_opencv(files: list[list[Path]], picture: PeerPicture, batch: int, workers: int) -> Batches:
    """torch's DataLoader over clips of frame files, (N, T)."""
    dataset = FrameFiles(files, picture)
    return _worked(dataset, batch, workers, sampler=RandomSampler(dataset, num_samples=2**40))


def videos_and_pyav(files: list[Path], seen: list[int], picture: PeerPicture, batch: int, workers: int) -> Batches:
    """torch's DataLoader over video files, decoded by PyAV; the frames through OpenCV."""
    dataset = Videos(files, seen, picture)
    return _worked(dataset, batch, workers, sampler=RandomSampler(dataset, num_samples=2**40))


def webdataset_and_opencv(tars: list[Path], picture: PeerPicture, batch: int, workers: int) -> Batches:
    """The webdataset package over our tars, shuffled by a buffer."""
    samples = webdataset.WebDataset([str(tar) for tar in tars], resampled=True, shardshuffle=False).shuffle(500)
    return _worked(samples.map(FromTar(picture)), batch, workers)


def _worked(dataset: Any, batch: int, workers: int, **settings: Any) -> Batches:
    """Through worker processes. A fork would copy threads in the middle of something, so they come from a clean server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        dataset, batch, num_workers=workers, worker_init_fn=_one_thread, multiprocessing_context=context, **settings
    )
    for sample, images in loader:
        yield sample.numpy(), images


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # a worker is a core: with OpenCV's threads besides, all are slower
