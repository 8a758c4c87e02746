"""What a model says of rows, and what they are labelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from affect.engine.data.loader import Loader
from affect.engine.evaluation.evaluated_model import Predict
from affect.engine.metrics.output_metrics import labelled
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.schema import Output

Advance = Callable[[int], None]  # told how many rows are done


def silent(count: int) -> None:
    """Advance that nobody watches."""


@dataclass(frozen=True)
class Predictions:
    """Of one output: logits or scalars, target (N, C), labelled rows only; sources (N,) names."""

    logits: np.ndarray
    target: np.ndarray
    sources: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Predicted:
    """Of several outputs, labelled or not: output -> (N, C). rows: (N,) sample numbers.

    windows: where clips were seen through several windows, what was said of each; the values here are their means.
    """

    outputs: tuple[Output, ...]
    values: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    sources: np.ndarray
    rows: np.ndarray
    windows: Predicted | None = None

    def of(self, output: Output) -> Predictions:
        """Of the rows that are labelled for it."""
        keep = labelled(output, self.targets[output.name])
        values, target = self.values[output.name], self.targets[output.name]
        return Predictions(values[keep], target[keep], self.sources[keep], output.names)


def collect(predict: Predict, loader: Loader, advance: Advance = silent) -> dict[str, np.ndarray]:
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


def predicted(predict: Predict, loader: Loader, outputs: tuple[Output, ...], advance: Advance = silent) -> Predicted:
    """Of the loader's samples. Raises InputError where none is labelled for the first output."""
    dataset, windows = loader.dataset, loader.windows
    rows = windows.sample if windows else loader.order.rows
    target = loader.targets[outputs[0].name].numpy()[rows]
    check_labelled(dataset, outputs[0], target, "of the split")

    def said_of(rows: np.ndarray, values: dict[str, np.ndarray], windows: Predicted | None = None) -> Predicted:
        targets = {output.name: loader.targets[output.name].numpy()[rows] for output in outputs}
        return Predicted(outputs, values, targets, sources_of(dataset, rows), rows, windows)

    values = collect(predict, loader, advance)
    if windows is None:
        return said_of(rows, values)
    samples, means = pooled(windows.sample, values)
    return said_of(samples, means, said_of(rows, values) if len(samples) < len(rows) else None)


def pooled(sample: np.ndarray, values: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The samples in their order, (N,), and output -> (N, C) means over the windows of each, of logits or scalars.

    sample: (R,) whose window each row is; those of one stand side by side.
    """
    first = np.flatnonzero(np.diff(sample, prepend=-1))
    count = np.diff(np.append(first, len(sample)))
    means = {name: (np.add.reduceat(rows, first) / count[:, None]).astype(np.float32) for name, rows in values.items()}
    return sample[first], means


def check_labelled(dataset: Dataset, output: Output, target: np.ndarray, which: str) -> None:
    if not labelled(output, target).any():
        raise InputError(f"{dataset.folder}: no row {which} is labelled for {output.name!r}; nothing to evaluate")


def sources_of(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """(len(rows),) the name of each row's source; '' where it has none."""
    codes, names = dataset.coded("source")
    return np.array([*names, ""], object)[codes[rows]]
