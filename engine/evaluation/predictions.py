"""Predictions of a model on rows, beside their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from affect.engine.data.loader import Loader
from affect.engine.evaluation.evaluated_model import Predict
from affect.engine.metrics.output_metrics import labelled
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.schema import Output, TargetLayout

Advance = Callable[[int], None]  # called with the number of rows that have just been done


def no_progress(count: int) -> None:
    """An Advance that shows nothing."""


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions of one output on the rows that are labelled for it.

    logits: (N, C), or scalars. target: (N, C). sources: (N,) names. names: of the C classes, units or scalars.
    """

    logits: np.ndarray
    target: np.ndarray
    sources: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """Predictions of all outputs, labelled or not: output -> (N, C). rows: (N,) sample numbers.

    windows: where clips were seen through several windows, the predictions of each; the values here are their means.
    """

    outputs: tuple[Output, ...]
    values: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    sources: np.ndarray
    rows: np.ndarray
    windows: Predictions | None = None

    @property
    def first_classes(self) -> Output | None:
        """The output that a temperature calibrates; None where no output is of classes."""
        return TargetLayout(self.outputs).first_classes

    @property
    def further(self) -> list[Output]:
        """The outputs besides the first one of classes."""
        return [output for output in self.outputs if output is not self.first_classes]

    def labelled(self, output: Output) -> LabelledPredictions:
        """Return the predictions of one output, on the rows that are labelled for it."""
        values, target = self.values[output.name], self.targets[output.name]
        known = labelled(output, target)
        return LabelledPredictions(values[known], target[known], self.sources[known], output.names)


def predict_all(predict: Predict, loader: Loader, advance: Advance = no_progress) -> dict[str, np.ndarray]:
    """output -> (N, C) float32 logits of every row of the loader's order, in its order."""
    order = loader.order
    gathered: dict[str, list[np.ndarray]] = {}
    batches = loader.from_step(0)
    for done in range(0, len(order.rows), order.batch):
        batch = next(batches)
        for name, values in predict(*batch.args).items():
            gathered.setdefault(name, []).append(values.astype(np.float32))
        advance(min(order.batch, len(order.rows) - done))
    return {name: np.concatenate(parts)[: len(order.rows)] for name, parts in gathered.items()}


def predict_samples(predict: Predict, loader: Loader, outputs: tuple[Output, ...], advance: Advance = no_progress) -> Predictions:
    """Predictions of the loader's samples. Raises InputError where none is labelled for the first output."""
    dataset, windows = loader.dataset, loader.windows
    rows = windows.sample if windows else loader.order.rows
    check_labelled(dataset, outputs[0], loader.targets[outputs[0].name].numpy()[rows], "of the split")

    def beside_labels(rows: np.ndarray, values: dict[str, np.ndarray], windows: Predictions | None = None) -> Predictions:
        targets = {output.name: loader.targets[output.name].numpy()[rows] for output in outputs}
        return Predictions(outputs, values, targets, sources_of(dataset, rows), rows, windows)

    values = predict_all(predict, loader, advance)
    if windows is None:
        return beside_labels(rows, values)
    samples, means = pooled(windows.sample, values)
    return beside_labels(samples, means, beside_labels(rows, values) if len(samples) < len(rows) else None)


def pooled(sample: np.ndarray, values: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The samples in their order, (N,), and output -> (N, C) means over the windows of each, of logits or scalars.

    sample: (R,) whose window each row is; those of one stand side by side.
    """
    first = np.flatnonzero(np.diff(sample, prepend=-1))
    count = np.diff(np.append(first, len(sample)))
    means = {name: (np.add.reduceat(rows, first) / count[:, None]).astype(np.float32) for name, rows in values.items()}
    return sample[first], means


def check_labelled(dataset: Dataset, output: Output, target: np.ndarray, which: str) -> None:
    """Raises InputError where none of these rows has a label of the output."""
    if not labelled(output, target).any():
        raise InputError(f"{dataset.folder}: no row {which} is labelled for {output.name!r}; nothing to evaluate")


def sources_of(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """(len(rows),) the name of each row's source; '' where it has none."""
    codes, names = dataset.coded("source")
    return np.array([*names, ""], object)[codes[rows]]
