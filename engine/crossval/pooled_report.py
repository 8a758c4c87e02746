"""Each strategy's predictions of the rows that it held out, pooled over the folds, and the strategies side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from affect.engine.crossval.fold_results import ANSWERS, FoldResults, epochs_note
from affect.engine.crossval.held_out import HeldOut, training_means
from affect.engine.metrics.output_metrics import all_figures, further_metrics
from affect.engine.report.pain.texts import text
from affect.engine.report.render import NONE, Table, markdown
from affect.shards.schema import Output

TRAIN_MEAN = "training mean"


def pooled_report(results: FoldResults) -> tuple[str, dict[str, Any]]:
    """Report outputs of any kind: the figures of epochs, here of all folds' held-out rows together, and each fold's mean."""
    figures: dict[str, Any] = {}
    for name, held_out in results.held_out.items():
        held_out.save(results.out / name / ANSWERS)
        naive = {output.name: _naive(results, held_out, output) for output in held_out.outputs}
        figures[name] = {
            "rows": len(held_out.sample), "folds": sorted(results.runs[name]),
            "pooled": all_figures(held_out.outputs, held_out.values, held_out.targets),
            TRAIN_MEAN: all_figures(held_out.outputs, naive, held_out.targets),
            "each": {fold: _of_fold(held_out, fold) for fold in sorted(results.runs[name])},
            "outputs": further_metrics(held_out.outputs, held_out.values, held_out.targets),
            "told": results.folds_info(name), "epochs": epochs_note(results.runs[name]),
        }  # fmt: skip
    return markdown(_pooled_table(figures)), figures


def _of_fold(held_out: HeldOut, fold: int) -> dict[str, float]:
    here = held_out.fold == fold
    pick = [{name: values[here] for name, values in part.items()} for part in (held_out.values, held_out.targets)]
    return all_figures(held_out.outputs, *pick)


def _naive(results: FoldResults, held_out: HeldOut, output: Output) -> np.ndarray:
    mean = training_means(results.dataset, output.name, results.train, held_out.fold)
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
    whose = "Held-out rows of all folds together, each predicted by the model that was not trained on it."
    caption = [whose, *sorted({of["epochs"] for of in figures.values()})]
    return Table(["strategy", "folds", "rows", *names], cells, set(), caption)


def _spread(values: list[float]) -> str:
    held_out = np.array(values)[np.isfinite(values)]
    return NONE if not len(held_out) else f"{held_out.mean():.3f} ± {held_out.std(ddof=1) if len(held_out) > 1 else 0:.3f}"
