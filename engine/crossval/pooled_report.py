"""Each strategy's predictions of the rows that it held out, pooled over the folds, and the strategies side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from affect.engine.crossval.fold_results import ANSWERS, FoldResults, epochs_note
from affect.engine.crossval.held_out import HeldOut, means
from affect.engine.metrics.output_metrics import all_figures, further_metrics
from affect.engine.report.pain.texts import text
from affect.engine.report.render import NONE, Table, markdown
from affect.shards.schema import Output

TRAIN_MEAN = "training mean"


def pooled_report(found: FoldResults) -> tuple[str, dict[str, Any]]:
    """Of outputs of any kind: the figures of epochs, here of all folds' held-out rows together, and each fold's mean."""
    figures: dict[str, Any] = {}
    for name, held in found.held.items():
        held.save(found.out / name / ANSWERS)
        naive = {output.name: _naive(found, held, output) for output in held.outputs}
        figures[name] = {
            "rows": len(held.sample), "folds": sorted(found.runs[name]),
            "pooled": all_figures(held.outputs, held.values, held.targets),
            TRAIN_MEAN: all_figures(held.outputs, naive, held.targets),
            "each": {fold: _of_fold(held, fold) for fold in sorted(found.runs[name])},
            "outputs": further_metrics(held.outputs, held.values, held.targets),
            "told": found.told(name), "epochs": epochs_note(found.runs[name]),
        }  # fmt: skip
    return markdown(_pooled_table(figures)), figures


def _of_fold(held: HeldOut, fold: int) -> dict[str, float]:
    here = held.fold == fold
    pick = [{name: values[here] for name, values in part.items()} for part in (held.values, held.targets)]
    return all_figures(held.outputs, *pick)


def _naive(found: FoldResults, held: HeldOut, output: Output) -> np.ndarray:
    mean = means(found.dataset, output.name, found.train, held.fold)
    return np.log(np.maximum(mean, 1e-6)) if output.kind == "classes" else mean


def _pooled_table(figures: Mapping[str, Any]) -> Table:
    names = list(next(iter(figures.values()))["pooled"])
    cells = []
    for strategy, of in figures.items():
        each = [[fold.get(name, np.nan) for fold in of["each"].values()] for name in names]
        cells += [
            [strategy, f"{len(of['folds'])}", f"{of['rows']:,}", *(text(of["pooled"].get(name)) for name in names)],
            ["  folds, mean ± deviation", "", "", *(_spread(values) for values in each)],
            [f"  {TRAIN_MEAN}", "", "", *(text(of[TRAIN_MEAN].get(name)) for name in names)],
        ]
    said = "Held-out rows of all folds together, each said by the model that was not trained on it."
    caption = [said, *sorted({of["epochs"] for of in figures.values()})]
    return Table(["strategy", "folds", "rows", *names], cells, set(), caption)


def _spread(values: list[float]) -> str:
    held = np.array(values)[np.isfinite(values)]
    return NONE if not len(held) else f"{held.mean():.3f} ± {held.std(ddof=1) if len(held) > 1 else 0:.3f}"
