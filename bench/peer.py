"""The built-in model beside a published FER2013 classifier on the same FER+ faces, both label protocols.

python -m affect.bench.peer ferplus_valid.npz mini_xception_fer2013.onnx
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from affect.engine.metrics.classification import classification
from affect.engine.package.builtin import DEFAULT_MODEL
from affect.engine.report.mcnemar import p_value
from affect.engine.runtime.engine import Engine
from affect.engine.system.onnxruntime import session
from affect.shards.errors import InputError
from affect.shards.sources.arrays import NpzSource
from affect.shards.sources.ferplus import EMOTION

FER2013 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")  # the peer's order; it knows no contempt
CPU = ["CPUExecutionProvider"]


def peer_scores(path: Path, images: np.ndarray) -> np.ndarray:
    """(N, H, W) gray uint8 -> (N, 8) in FER+'s order: 64 px in [-1, 1]; contempt, which it does not know, is never predicted."""
    running = session(path, CPU)
    resized = np.stack([cv2.resize(image, (64, 64)) for image in images]).astype(np.float32)
    (prediction,) = running.run(None, {running.get_inputs()[0].name: resized[:, None] / 127.5 - 1})
    scores = np.full((len(images), len(EMOTION.names)), -np.inf, np.float32)
    scores[:, [EMOTION.names.index(name) for name in FER2013]] = np.log(np.maximum(prediction, 1e-9))
    return np.maximum(scores, -1e3)


def our_scores(model: str, images: np.ndarray) -> np.ndarray:
    with Engine.load(model, warm=False) as engine:
        return engine.run_graph(np.stack([engine.package.preprocess(image) for image in images]))["emotion.logits"]


def bench_peer(npz: Path, peer: Path, model: str = DEFAULT_MODEL) -> None:
    """Print both models' figures, and McNemar's test. Raises InputError where a file is not what it should be."""
    if not peer.is_file():
        raise InputError(f"{peer}: no such file; expected an ONNX classifier of FER2013's seven classes")
    for protocol in ("votes", "majority-official"):
        samples = list(NpzSource(npz, protocol).samples())
        images = np.stack([np.asarray(sample.image) for sample in samples])
        target = np.array([[sample.targets[column] for column in EMOTION.columns] for sample in samples])
        right = {}
        for name, scores in {model: our_scores(model, images), peer.stem: peer_scores(peer, images)}.items():
            figures = classification(scores, target, EMOTION.names)
            right[name] = scores.argmax(1) == target.argmax(1)
            way = figures["8way"]
            print(f"{protocol:18s} {name:24s} {len(samples):,} faces: accuracy {way['acc']:.4f}, macro-F1 {way['macro_f1']:.4f}")
        ours, theirs = right.values()
        only, other = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        print(f"{protocol:18s} right alone: {only:,} and {other:,}; McNemar's p {p_value(only, other):.2g}")
