"""The rows that a run trains on and is validated on, and how often it sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from affect.engine.config.augmentation import AugmentConfig
from affect.engine.config.data import DataConfig
from affect.engine.config.run import RunConfig
from affect.engine.system.log import say
from affect.engine.tasks.spec import TaskSpec
from affect.shards.concat import Merged
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, nearest
from affect.shards.folds import FoldRule
from affect.shards.sampler import class_balanced_weights
from affect.shards.selection import Fold, Selection, equals, fold_list, present, select

POWERS = {"sqrt": 0.5, "balanced": 1.0}  # samplers by class, and `power` of class_balanced_weights


def open_dataset(paths: Path | list[Path]) -> Dataset:
    """A packed dataset, or several read as one."""
    paths = paths if isinstance(paths, list) else [paths]
    return Dataset(paths[0]) if len(paths) == 1 else Merged(paths)


def train_selection(data: DataConfig) -> Selection:
    return _selection(data, data.train_split, data.confidence_min)


def val_selection(data: DataConfig) -> Selection:
    """Validation has the same sources, `where` and fold, but keeps the doubtful rows.

    A model meets those too; without them every `confidence_min` would be scored on an easier set.
    """
    return _selection(data, data.val_split, 0.0)


def calib_selection(data: DataConfig) -> Selection:
    """The rows, of all folds, on which everything is fitted that is fitted after training."""
    return Selection("calib", tuple(data.sources), 0.0, {k: tuple(v) for k, v in data.where.items()})


def _selection(data: DataConfig, split: str, confidence_min: float) -> Selection:
    fold = None if data.fold is None else Fold(data.fold, split == data.val_split, _splits(data), fold_rule(data))
    return Selection(split, tuple(data.sources), confidence_min, {k: tuple(v) for k, v in data.where.items()}, fold)


def fold_rule(data: DataConfig) -> FoldRule | None:
    """None: the folds are those that the dataset was packed with."""
    return FoldRule(**data.folds.model_dump(mode="json")) if data.folds else None


def folds_of(data: DataConfig, dataset: Dataset) -> list[int]:
    """The numbers that `data.fold` may be."""
    return fold_list(dataset, fold_rule(data), _splits(data))


def _splits(data: DataConfig) -> tuple[str, str]:
    return data.train_split, data.val_split


def train_rows(data: DataConfig, dataset: Dataset, log: Callable[[str], None] = say) -> np.ndarray:
    """The rows to train on, ascending. A named source without any row is logged; with `strict_sources` it is an error."""
    wanted = train_selection(data)
    rows = select(dataset, wanted)
    for name in data.labelled:
        known = ~np.isnan(dataset.targets(name)[rows]).any(1)
        if not known.any():
            raise InputError(f"data.labelled: no training row of {dataset.folder} is labelled for {name!r}; leave it out")
        log(f"data.labelled: {int((~known).sum()):,} of {len(rows):,} training rows left out, which have no {name}")
        rows = rows[known]
    for source in wanted.sources:
        if not equals(dataset, "source", (source,))[rows].any():
            has = present(dataset, "source")
            text = f"data.sources: no row to train on is of {source!r}{nearest(source, has)}; {dataset.folder} has: "
            if data.strict_sources:
                raise InputError(text + ", ".join(has) + ". Take it out of the list, or: --set data.strict_sources=false")
            log("warning: " + text + ", ".join(has))
    return rows


def sampling_weights(run: RunConfig, task: TaskSpec, dataset: Dataset, rows: np.ndarray) -> np.ndarray | None:
    """(len(rows),) the weights that `Order` draws by; None where each row comes once an epoch."""
    if run.data.sampler == "weighted":
        return dataset.column("weight")[rows].astype(np.float64)
    if run.data.sampler in POWERS:
        output = dataset.info.layout.output(task.outputs[0])
        if output.kind != "classes":
            raise InputError(
                f"data.sampler: {run.data.sampler} needs classes, and {output.name} is {output.kind}; take shuffle or weighted"
            )
        return class_balanced_weights(largest_share(dataset.targets(output.name)[rows]), POWERS[run.data.sampler])
    return None


def spread_of(augment: AugmentConfig, dataset: Dataset, rows: np.ndarray) -> np.ndarray | None:
    """(N,) by sample, how many times as far affine and jitter reach; None: all once.

    Raises: InputError where none of the rows, those to train on, is one of the stronger ones.
    """
    if augment.stronger is None:
        return None
    chosen = np.ones(dataset.info.num_samples, bool)
    for column, values in augment.stronger.where.items():
        chosen &= equals(dataset, column, tuple(values))
    if not chosen[rows].any():
        wanted = ", ".join(f"{column}: {values}" for column, values in augment.stronger.where.items())
        raise InputError(
            f"data.augment.stronger.where: no training row of {dataset.folder} has {wanted}; mend it, or leave it out"
        )
    return np.where(chosen, augment.stronger.by, 1.0)


def largest_share(targets: np.ndarray) -> np.ndarray:
    """(N,) the class with the largest share of (N, C) distributions; -1 where not labelled."""
    return np.where(np.isnan(targets).any(1), -1, np.nan_to_num(targets).argmax(1))
