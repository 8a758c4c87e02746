"""A loss function and batches without a dataset; checkpoints compared."""

from types import SimpleNamespace

import numpy as np
import torch

from affect.engine.config.load import load_config
from affect.engine.data.batch import Batch
from affect.engine.losses.base import TrainingRows
from affect.engine.losses.build import LossFunction
from affect.engine.tasks import TASKS
from affect.shards.schema import Output, TargetLayout

FER = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def loss_of(targets, settings=(), task="emotion_student", width=8, teacher=None):
    """A LossFunction over (N, C) targets of the training rows."""
    run = load_config("smoke", [f"task={task}", *settings])
    layout = TargetLayout((Output("emotion", "classes", FER[: targets.shape[1]]),))
    dataset = SimpleNamespace(info=SimpleNamespace(layout=layout))
    rows = TrainingRows(dataset, {"emotion": targets}, np.arange(len(targets)), torch.device("cpu"))
    return LossFunction(run, TASKS[task], rows, width, teacher)


def scalar_loss(targets, moments, settings=()):
    """A LossFunction over (N, S) scores of the training rows; moments: (N,) of meta.moment, '' unknown."""
    names = sorted(set(moments) - {""})
    run = load_config("pain_v2", ["task=score_clip", "loss.scalars.weights=off", *settings])
    layout = TargetLayout((Output("score", "scalars", (*"ab", "total")[: targets.shape[1]]),))
    codes = np.array([names.index(moment) if moment else -1 for moment in moments])
    dataset = SimpleNamespace(info=SimpleNamespace(layout=layout), folder="drawn", coded=lambda column: (codes, names))
    rows = TrainingRows(dataset, {"score": torch.from_numpy(targets)}, np.arange(len(targets)), torch.device("cpu"))
    return LossFunction(run, TASKS["score_clip"], rows, 4)


def batch_of(target, mask=None, weight=None):
    count = len(target)
    mask = torch.ones_like(target) if mask is None else mask
    weight = torch.ones(count) if weight is None else weight
    return Batch(torch.zeros(count), {"emotion": target}, {"emotion": mask}, weight, np.arange(count))


def same(a, b):
    """Two checkpoints hold the same values to the bit, wall times aside."""
    if isinstance(a, dict):
        keys = [key for key in a if key not in ("seconds", "waited", "waiting_share", "images_per_s")]
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in keys)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
