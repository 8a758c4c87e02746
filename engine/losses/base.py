"""What a loss term is, and the values that it reads: training rows, the model's output, the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from affect.engine.config.loss_terms import TermConfig, declare_settings
from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.tasks.spec import Term
from affect.shards.dataset import Dataset


@dataclass(frozen=True)
class TrainingRows:
    """The labels that a run trains on, which a term may read when it is built.

    targets: output -> (N, C) float32 of every sample of the dataset, NaN where not labelled.
    rows: (R,) the sample numbers that are trained on. device: of the batches.
    """

    dataset: Dataset
    targets: Mapping[str, Tensor]
    rows: np.ndarray
    device: torch.device

    def target(self, output: str) -> np.ndarray:
        """Return the (R, C) float32 labels of the training rows, NaN where not labelled."""
        return self.targets[output].numpy()[self.rows]

    def names(self, output: str) -> tuple[str, ...]:
        """Return the names of an output's classes, units or scalars."""
        return self.dataset.info.layout.output(output).names


@dataclass(frozen=True)
class TeacherOutput:
    """A teacher's prediction of a batch, without gradient.

    logits: (B, C), or with `rows` (B,) int64 a table (N, C) of which they are the batch's rows. features: (B, D).
    """

    logits: Tensor | None = None
    rows: Tensor | None = None
    features: Tensor | None = None

    def gathered(self) -> Tensor:
        """Return the (B, C) logits of the batch."""
        assert self.logits is not None
        return self.logits if self.rows is None else self.logits[self.rows]


class Teacher(Protocol):
    """Predicts each batch for the student. origins: name -> sha256 of the files it is read from, for the run's fingerprint."""

    origins: dict[str, str]

    def __call__(self, batch: Batch) -> TeacherOutput: ...


@dataclass(frozen=True)
class ModelOutput:
    """The prediction of the model that learns. features: (B, D). outputs: name -> (B, C) logits."""

    features: Tensor
    outputs: dict[str, Tensor]


class LossTerm(nn.Module):
    """Computes a sum over the samples of a batch, and the count that the sums of a whole update are divided by.

    Buffers and parameters of a term are saved with the run; its parameters are trained with the model and not exported.
    """

    op = ""  # the operation of kernels/ that computes the term, if one does

    def __init__(self, on: str) -> None:
        super().__init__()
        self.on = on
        self.origins: dict[str, str] = {}  # name -> sha256 of the files that it read

    def at_epoch(self, epoch: int) -> dict[str, float]:
        """Set what changes by epoch, in tensors: a new value recompiles nothing. Return it as {name: value} for history.json."""
        return {}

    def count(self, batch: Batch) -> Tensor:
        """Return () float32, from the targets alone. By default each sample counts its weight, labelled or not."""
        return batch.weight.sum()

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        """Return the sum over the samples, () float32."""
        raise NotImplementedError

    def labelled_weight(self, batch: Batch) -> Tensor:
        """Return the (B,) weights of samples with a label, 0 elsewhere."""
        return batch.weight * batch.mask[self.on].amin(1)


BuildTerm = Callable[[Term, RunConfig, TrainingRows, int], LossTerm]  # the last: width of the model's features
B = TypeVar("B", bound=BuildTerm)
TERMS: dict[str, BuildTerm] = {}  # of the files that are imported: build.py imports all


def loss_term(name: str, config: type[TermConfig] | None = None) -> Callable[[B], B]:
    """Declare what builds the term of this name: its class, or a function.

    config: its settings. With them a configuration can switch the term on, on the task's first output, by `loss.<name>`.
    """

    def declare(build: B) -> B:
        if name in TERMS:
            raise ValueError(f"loss term {name!r}: declared in {TERMS[name].__module__} and in {build.__module__}; rename one")
        TERMS[name] = build
        if config:
            declare_settings(name, config)
        return build

    return declare
