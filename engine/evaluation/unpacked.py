"""Figures of a model on pictures that are not packed: a CSV and its files, or an npz."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.engine.config.preprocess import in_three_channels
from affect.engine.data.loader import default_workers
from affect.engine.data.raw_views import views
from affect.engine.evaluation.class_figures import judge
from affect.engine.evaluation.class_order import ClassOrder, class_order, unknown_classes
from affect.engine.evaluation.evaluated_model import EvaluatedModel, open_model
from affect.engine.evaluation.predictions import LabelledPredictions
from affect.engine.metrics.classification import reliability
from affect.engine.system.log import say
from affect.engine.system.progress import Progress
from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError, first
from affect.shards.images import pixel_sha256, pixels
from affect.shards.random_split import falls_into_calib
from affect.shards.sample import Sample, Source
from affect.shards.schema import REJECTED, SPLITS
from affect.shards.sources.arrays import NpzSource
from affect.shards.sources.ferplus import VOTES, Protocol
from affect.shards.sources.manifest import ManifestSource

BATCH = 128


@dataclass
class Files:
    """Pictures to evaluate: the rows of a source, or of one of its splits. path: of the file that lists or holds them.

    calib: the share by which they were packed; the rows that did not become the split calib get separate figures, too.
    """

    path: Path
    source: Source
    class_map: ClassMap | None = None
    split: str | None = None
    max_rejects: float = 0.001
    calib: float = 0.0
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def samples(self) -> Iterator[Sample]:
        return (sample for sample in self.source.samples() if self.split in (None, sample.split))


def evaluate_csv(
    model: Path,
    path: Path,
    out: Path | None = None,
    progress: Progress | None = None,
    *,
    class_map: ClassMap | None = None,
    root: Path | None = None,
    split: str | None = None,
    delimiter: str = ",",
    max_rejects: float = 0.001,
) -> dict[str, Any]:
    """Evaluate the rows of a CSV, or those of one split. Without a class map labels are names of the model's classes."""
    evaluated = _open_frame_model(model)
    classes = None if class_map else evaluated.output.names
    source = ManifestSource([path], root, class_map, classes, val=0, delimiter=delimiter, leave_out=True)
    if source.labels.uncovered and class_map is None:
        raise unknown_classes(dict(source.labels.uncovered.most_common()), evaluated.output, str(path))
    if split is not None and "split" not in source.tables[0].columns:
        raise InputError(f"--split {split}: {path} has no column 'split'; leave the option out to evaluate all rows")
    return _evaluate(model, evaluated, Files(path, source, class_map, split, max_rejects), out, progress)


def evaluate_npz(
    model: Path,
    path: Path,
    out: Path | None = None,
    progress: Progress | None = None,
    *,
    class_map: ClassMap | None = None,
    protocol: Protocol | None = None,
    max_rejects: float = 0.001,
    calib: float = 0.0,
) -> dict[str, Any]:
    """Evaluate all pictures of an npz: see `NpzSource`.

    calib: as in `affect pack --calib`, by which the file was packed for training; metrics["apart"] then holds the
    `reliability` of the rows that did not fit the temperature.
    """
    evaluated, source = _open_frame_model(model), NpzSource(path, protocol, class_map)
    if source.uncovered and class_map is None:
        raise unknown_classes(dict(source.uncovered.most_common()), evaluated.output, str(path))
    if source.has_ids and class_map is None:
        order = ", ".join(f"{i} {name}" for i, name in enumerate(source.names))
        say(f"{path}: ids are read in FER+'s order, {order}; --class-map names another")
    return _evaluate(model, evaluated, Files(path, source, class_map, None, max_rejects, calib), out, progress)


def protocols_of(path: Path) -> tuple[Protocol | None, ...]:
    """The protocols under which an npz can be evaluated: two for votes, None for other labels."""
    labels = NpzSource(path).arrays.labels
    votes = labels.ndim == 2 and labels.shape[1] == len(VOTES)
    return ("votes", "majority-official") if votes else (None,)


def _open_frame_model(model: Path) -> EvaluatedModel:
    evaluated = open_model(model)
    if evaluated.clip:
        raise InputError(f"{model}: sees clips of {evaluated.clip.frames} frames; pack them, and evaluate with --data")
    return evaluated


def _evaluate(
    model: Path, evaluated: EvaluatedModel, files: Files, out: Path | None, progress: Progress | None
) -> dict[str, Any]:
    total, order = _survey(files, evaluated)
    with progress or Progress("evaluate", None, "images", shown=False) as shown:
        shown.total = total
        predictions, left_out, apart = _predict(files, evaluated, order, total, shown)
    class_map = files.class_map
    what = {"model": str(model), "dataset": str(files.path), "split": files.split}
    what |= {"class_map": class_map.name if class_map else None, "label_protocol": files.source.label_protocol}
    counts: dict[str, Any] = {"left_out": dict(left_out), "rejected": len(files.rejected)}
    if files.calib:
        if apart.all() or not apart.any():
            raise InputError(f"--calib {files.calib:g}: {'no' if apart.all() else 'every'} row of {files.path} falls into calib")
        figures = reliability(predictions.logits[apart], predictions.target[apart], predictions.names)
        counts["apart"] = figures | {"calib": files.calib}
    metrics = judge(predictions, evaluated, what, counts, out)
    if files.rejected:
        with (Path(metrics["out"]) / REJECTED).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([("path", "reason"), *files.rejected])
    return metrics


def _survey(files: Files, evaluated: EvaluatedModel) -> tuple[int, ClassOrder]:
    """How many rows there are, and their classes in the model's order; nothing is decoded."""
    output = files.source.layout.output(evaluated.output.name)
    total, rows, splits = 0, Counter[str](), Counter[str]()
    for sample in files.source.samples():
        splits[sample.split] += 1
        if files.split in (None, sample.split):
            total += 1
            rows.update(name for name, column in zip(output.names, output.columns, strict=True) if sample.targets[column] > 0)
    if not total:
        raise InputError(f"{files.path}: {_nothing(files, splits)}")
    return total, class_order(evaluated.output, output, rows, str(files.path), files.class_map)


def _nothing(files: Files, splits: Counter[str]) -> str:
    if splits:
        what = "no row" if files.split in SPLITS else f"not one of {', '.join(SPLITS)}"
        return f"split {files.split!r}: {what}; it has: {dict(splits)}"
    left_out = first((f"{count:,} {reason}" for reason, count in files.source.filtered.items()), 10)
    return f"no row is left to evaluate:\n{left_out}" if left_out else "holds no pictures"


def _predict(
    files: Files, evaluated: EvaluatedModel, order: ClassOrder, total: int, progress: Progress
) -> tuple[LabelledPredictions, Counter[str], np.ndarray]:
    """Predictions of the rows that can be read and have a class that the model knows; counts of the others; (N,) not in calib."""
    logits, target, sources, apart = list[np.ndarray](), list[np.ndarray](), list[str](), list[bool]()
    for batch in views(files.samples(), evaluated.preprocess, default_workers(torch.device("cpu")), BATCH):
        files.rejected += batch.rejected
        _check_rejects(files, total)
        if batch.samples:
            logits.append(evaluated.predict(batch.inputs)[evaluated.output.name].astype(np.float32))
            target.append(order(np.stack([files.source.layout.vector(sample.targets) for sample in batch.samples])))
            sources += [sample.source for sample in batch.samples]
            apart += [not (files.calib and _in_calib(sample, files.calib)) for sample in batch.samples]
        progress.advance(len(batch.samples) + len(batch.rejected))
    _check_rejects(files, total, at_end=True)
    left_out = files.source.filtered.copy()
    known = ~np.isnan(np.concatenate(target)).any(1)
    if not known.all():
        left_out["label not in the class map"] += int((~known).sum())
    if not known.any():
        raise InputError(f"{files.path}: no row is left to evaluate: {dict(left_out)}")
    of_rows = np.array(sources, object)[known]
    predictions = LabelledPredictions(
        np.concatenate(logits)[known], np.concatenate(target)[known], of_rows, evaluated.output.names
    )
    return predictions, left_out, np.array(apart)[known]


def _in_calib(sample: Sample, calib: float) -> bool:
    return falls_into_calib(pixel_sha256(in_three_channels(pixels(sample.image, None))).hex(), calib)


def _check_rejects(files: Files, total: int, *, at_end: bool = False) -> None:
    """Raise InputError where more cannot be read than is allowed; with twenty of them named, or all."""
    rejected = files.rejected
    if len(rejected) > files.max_rejects * total and (at_end or len(rejected) > 20):
        so_far = "" if at_end else " or more"
        raise InputError(
            f"{files.path}: {len(rejected)}{so_far} of {total:,} pictures cannot be read, more than --max-rejects "
            f"{files.max_rejects:g} allows:\n{first((f'{path}: {reason}' for path, reason in rejected), 20)}\n"
            "Mend or remove these, or allow more: --max-rejects 0.05"
        )
    if at_end and len(rejected) == total:
        raise InputError(f"{files.path}: none of its {total:,} pictures can be read")
