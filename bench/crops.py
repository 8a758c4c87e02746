"""How to crop a detected face so that it looks like the training pictures: `data.margin`, `data.align`.

In the training pictures YuNet detects the eyes; a crop should have the same distance between them, as a share of its side. In
videos the share of a detected box is measured, so that margin = (share in the box / share in the pictures - 1) / 2.

Beside that, of a model: how sure and how steady it is over each video under every way of cropping. A face changes slowly, so the
mean total variation between the probabilities of neighbouring frames is mostly noise of the crop.

    affect bench crops ferplus_train.npz yunet_n_640_640.onnx clip.mp4 ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from affect.engine.config.preprocess import Clahe, Preprocess
from affect.engine.runtime.engine import Engine
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Stream
from affect.engine.runtime.vision.boxes import Box
from affect.engine.runtime.vision.crop import crop
from affect.engine.runtime.vision.detectors import Haar, YuNet
from affect.shards.sources.npz import FaceArrays

PICTURES, EVERY = 1500, 5  # pictures looked at; of frames one in so many
SIDE, AROUND = 192, 96  # pixels of a picture when YuNet sees it, and around it
SURE = 0.7  # of a detection


def eyes(box: Box) -> tuple[float, float, float]:
    """Return the distance of the eyes in pixels, and the middle between them."""
    assert box.points is not None
    right, left = box.points[:2]
    return float(np.hypot(*(left - right))), *((left + right) / 2).tolist()


def in_pictures(npz: Path, yunet: YuNet) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) distances of the eyes and (N,) heights below the middle, as shares of the side, where a face is detected."""
    arrays = FaceArrays(npz)
    some = set(np.random.default_rng(0).choice(len(arrays.labels), min(PICTURES, len(arrays.labels)), replace=False).tolist())
    eyes_of = []
    for i, image in enumerate(arrays.images()):
        if i in some:
            large = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            padded = cv2.copyMakeBorder(large, AROUND, AROUND, AROUND, AROUND, cv2.BORDER_REPLICATE)
            rgb = padded if padded.ndim == 3 else cv2.cvtColor(padded, cv2.COLOR_GRAY2RGB)
            if sure := [box for box in yunet.detect(rgb) if box.score > SURE]:
                apart, _, y = eyes(sure[0])
                eyes_of.append((apart / SIDE, (y - SIDE) / SIDE))
    distance, height = np.array(eyes_of).T
    return distance, height


def in_boxes(video: Path, yunet: YuNet) -> Iterator[tuple[str, float, float]]:
    """Yield detector, distance of the eyes and height below the middle as shares of its box's longer side."""
    haar = Haar()
    with Stream(open_source(str(video))) as stream:
        for frame in stream:
            if frame.number % EVERY:
                continue
            boxes = haar.detect(frame.image)
            for seen in yunet.detect(frame.image):
                apart, x, y = eyes(seen)
                around = [box for box in boxes if box.x < x < box.x + box.w and box.y < y < box.y + box.h]
                for name, box in [("yunet", seen)] * (seen.score > SURE) + [("human_face", box) for box in around]:
                    side = max(box.w, box.h)
                    yield name, apart / side, (y - box.y - box.h / 2) / side


def crop_ways(preprocess: Preprocess) -> dict[str, tuple[float, bool, Preprocess]]:
    """Return margin, align and preprocessing of each way of cropping, the package's own first."""
    ways = {"as trained": (preprocess.margin, preprocess.align, preprocess)}
    ways |= {f"margin {margin:g}": (margin, False, preprocess) for margin in (0.0, 0.05, 0.1, 0.2, 0.3)}
    ways |= {f"upright, margin {margin:g}": (margin, True, preprocess) for margin in (0.0, 0.1, 0.2, 0.3)}
    return ways | {"with CLAHE": (preprocess.margin, preprocess.align, replace(preprocess, clahe=Clahe(tiles=2)))}


def steadiness(model: str, yunet: YuNet, videos: Sequence[Path]) -> None:
    """Print each way's mean largest probability and mean change from frame to frame, over videos of one face."""
    engine = Engine.load(model, backend="onnxruntime")
    steady: dict[str, list[tuple[float, float]]] = {}
    for video in videos:
        views: dict[str, list[np.ndarray]] = {}
        with Stream(open_source(str(video))) as stream:
            for frame in stream:
                if boxes := yunet.detect(frame.image):
                    for name, (margin, align, preprocess) in crop_ways(engine.package.preprocess).items():
                        views.setdefault(name, []).append(preprocess(crop(frame.image, boxes[0], margin, align)))
        for name, seen in views.items():
            probs = engine.run_graph(np.stack(seen))["emotion.probs"]
            steady.setdefault(name, []).append((probs.max(1).mean(), np.abs(np.diff(probs, axis=0)).sum(1).mean() / 2))
    for name, values in steady.items():
        sure, change = np.mean(values, 0)
        print(f"{name:22s} largest probability {sure:.3f}, change a frame {change:.4f}")


def bench_crops(model: str, npz: Path, detector: Path, videos: Sequence[Path]) -> None:
    """Print how steady a model is under each way of cropping, and the margins that the videos ask for."""
    yunet = YuNet(detector, 640)
    steadiness(model, yunet, videos)
    distance, height = in_pictures(npz, yunet)
    share = float(np.median(distance))
    quartiles = np.percentile(distance, (25, 75)).round(3).tolist()
    print(f"{npz.name}: eyes {share:.3f} of the side apart {quartiles}, {-np.median(height):.3f} above the middle")
    everywhere: dict[str, list[float]] = {}
    for video in videos:
        boxes: dict[str, list[tuple[float, float]]] = {}
        for name, apart, y in in_boxes(video, yunet):
            boxes.setdefault(name, []).append((apart, y))
        for name, values in boxes.items():
            apart, y = np.median(values, 0).tolist()
            everywhere.setdefault(name, []).append((apart / share - 1) / 2)
            text = f"{apart:.3f}, {-y:.3f} above: margin {everywhere[name][-1]:+.3f}, {len(values)} faces"
            print(f"{video.name}: {name}: {text}")
    for name, margins in everywhere.items():
        print(f"{name}: margin {np.median(margins):+.3f}, the median over {len(margins)} videos")
