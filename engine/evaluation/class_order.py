"""The classes of a dataset in the model's order: by name, synonyms included, never by position."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affect.shards.class_maps import ClassMap, canonical, columns_by_name
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, first
from affect.shards.schema import Output, TargetLayout


@dataclass(frozen=True)
class ClassOrder:
    """columns: the model's column of each class of the set, -1 where it is left out. classes: of the model."""

    columns: tuple[int, ...]
    classes: int

    def __call__(self, target: np.ndarray) -> np.ndarray:
        """(N, K) distributions of the set's classes -> (N, C) of the model's; NaN in rows without a label that the model knows.

        A row whose largest share is of a class left out has none; of the others the rest is scaled to sum to 1.
        """
        columns = np.array(self.columns)
        known = columns >= 0
        reordered = np.zeros((len(target), self.classes), target.dtype)
        reordered[:, columns[known]] = target[:, known]
        left_out = np.isnan(target).any(1)
        if not known.all():
            left_out |= ~known[np.nan_to_num(target).argmax(1)]
            reordered /= np.maximum(reordered.sum(1, keepdims=True), np.finfo(target.dtype).tiny)
        reordered[left_out] = np.nan
        return reordered


def class_order(model: Output, evaluated: Output, rows: dict[str, int], where: str, class_map: ClassMap | None) -> ClassOrder:
    """Match the classes of a set with the model's, by name.

    rows: how many have a share of each of the set's classes. class_map: classes that are not in it are left out.

    The set may lack classes of the model. Raises: InputError where a class has rows, is not left out, and the model has it not.
    """
    if {model.kind, evaluated.kind} != {"classes"}:
        raise InputError(f"{where}: {evaluated.name} is {evaluated.kind}, of the model {model.kind}; only classes are evaluated")
    ours = [canonical(name).casefold() for name in model.names]
    mapped = {name.casefold() for name in class_map.names} if class_map else None
    columns, unknown = list[int](), dict[str, int]()
    for name in evaluated.names:
        known, wanted = canonical(name).casefold() in ours, mapped is None or canonical(name).casefold() in mapped
        columns.append(ours.index(canonical(name).casefold()) if known and wanted else -1)
        if wanted and not known and rows.get(name):
            unknown[name] = rows[name]
    if unknown:
        raise unknown_classes(unknown, model, where)
    if max(columns) < 0:
        raise InputError(
            f"{where}: its classes are {', '.join(evaluated.names)}, of which the model knows none: {', '.join(model.names)}"
        )
    return ClassOrder(tuple(columns), len(ours))


def unknown_classes(rows: dict[str, int], model: Output, where: str) -> InputError:
    """The rows of each label that the model does not know, and what to do."""
    lines = first((f"{name!r}: {count:,} row{'s' * (count != 1)}" for name, count in rows.items()), 10)
    return InputError(
        f"{where}: classes that the model does not know:\n{lines}\nIt knows: {', '.join(model.names)}. Mend the labels, or "
        f"name the classes to keep and leave the rest out: --class-map FILE, as in {json.dumps([*model.names])}"
    )


def same_classes(layout: TargetLayout, dataset: Dataset, output: str, model: Path) -> list[int]:
    """The model's column for each of the dataset's classes. Raises InputError where they are not the same, each once."""
    ours, theirs = layout.output(output).names, dataset.info.layout.output(output).names
    columns = columns_by_name(theirs, ours)
    if columns is None:
        raise InputError(
            f"{model} knows the classes {', '.join(ours)}; {dataset.folder} has {', '.join(theirs)}: not the same, each once"
        )
    return columns
