"""After the folds: what each strategy says of the rows that it held out, pooled, and the strategies side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.config.data import DataConfig
from affect.engine.crossval.held_out import HeldOut, concat, kept, means
from affect.engine.crossval.pain_report import pain_report
from affect.engine.crossval.pain_rows import is_pain
from affect.engine.crossval.plan import STRATEGIES, select_by
from affect.engine.crossval.run_folds import read_note, runs_in
from affect.engine.data.selection import open_dataset, train_rows, val_selection
from affect.engine.metrics.output_metrics import all_figures, further_metrics
from affect.engine.report.pain.texts import plain, text
from affect.engine.report.render import NONE, Table, markdown
from affect.engine.runs.folder import open_run, read_history, write_json
from affect.engine.system.log import silent
from affect.engine.training.early_stopping import best_epoch
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.schema import Output

ANSWERS, OUT_OF_FOLD, TEST = "answers.npz", "out_of_fold.npz", "test.npz"
REPORT, TEXT, FIGURES = "report", "crossval.md", "crossval.json"
TRAIN_MEAN = "training mean"


@dataclass(frozen=True)
class FoldResults:
    """What is there. runs: strategy -> fold -> folder; held: strategy -> out-of-fold rows; train: fold -> training rows of the
    general configuration; test: strategy -> fold -> rows of the split test, none where there is no such split.
    """

    out: Path
    dataset: Dataset
    folds: tuple[int, ...]
    runs: dict[str, dict[int, Path]]
    train: dict[int, np.ndarray]
    held: dict[str, HeldOut]
    test: dict[str, dict[int, HeldOut]]

    def told(self, strategy: str) -> dict[int, dict[str, int]]:
        """Fold -> epochs, best_epoch, min_epochs."""
        return {fold: told_of(folder) for fold, folder in self.runs[strategy].items()}


def told_of(folder: Path) -> dict[str, int]:
    run, history = open_run(folder)[0], read_history(folder)
    rule = run.optim.early_stopping
    least = rule.min_epochs if rule else 0
    return {"epochs": len(history), "best_epoch": best_epoch(history, select_by(run), run.optim.keep), "min_epochs": least}


def collect(out: Path) -> FoldResults:
    """Let every finished fold say what it was not trained on. Raises InputError where none is finished."""
    runs = runs_in(out)
    if not runs:
        raise InputError(f"{out}: no fold is finished yet; go on with it: affect crossval CONFIG --out {out}")
    data = general_data(runs)
    dataset = open_dataset(data.dataset)
    folds = sorted({fold for own in runs.values() for fold in own})
    per_fold = {fold: data.model_copy(update={"fold": fold}) for fold in folds}
    rows = {fold: dataset.rows(val_selection(one)) for fold, one in per_fold.items()}
    train = {fold: train_rows(one, dataset, silent) for fold, one in per_fold.items()}
    held = {
        name: concat([kept(folder, OUT_OF_FOLD, fold, dataset, rows[fold]) for fold, folder in own.items()])
        for name, own in runs.items()
    }
    tested = dataset.rows("test") if dataset.info.counts.get("test") else np.zeros(0, np.int64)
    test = {
        name: {fold: kept(folder, TEST, fold, dataset, tested) for fold, folder in own.items()} if len(tested) else {}
        for name, own in runs.items()
    }
    return FoldResults(out, dataset, tuple(read_note(out)["folds"]), runs, train, held, test)


def general_data(runs: Mapping[str, Mapping[int, Path]]) -> DataConfig:
    """Of the configuration whose rows are judged: the specialist's are a part of them."""
    strategy = next(name for name in STRATEGIES if name in runs)
    return open_run(next(iter(runs[strategy].values())))[0].data


def report(out: Path) -> tuple[str, dict[str, Any]]:
    """Write STRATEGY/answers.npz and OUT/report; return what is printed, and the figures."""
    found = collect(out)
    folder = out / REPORT
    folder.mkdir(parents=True, exist_ok=True)
    outputs = next(iter(found.held.values())).outputs
    said, figures = pain_report(found, folder) if is_pain(outputs) else pooled_report(found)
    missing = sorted(set(found.folds) - {fold for own in found.runs.values() for fold in own})
    if missing:
        said += f"\nFolds {', '.join(map(str, missing))} are not there yet: these are figures of a part of the rows.\n"
    (folder / TEXT).write_text(said, encoding="utf-8")
    write_json(folder / FIGURES, plain(figures))
    return said, figures


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


def epochs_note(runs: Mapping[int, Path]) -> str:
    """Whether held-out rows have chosen the epoch of the folds' models."""
    if all(open_run(folder)[0].optim.keep == "last" for folder in runs.values()):
        return "Each fold's model is of its last epoch: these rows have chosen nothing."
    return "The epoch of each fold was chosen on these rows, which flatters it; the last is kept with optim.keep=last."


def _spread(values: list[float]) -> str:
    held = np.array(values)[np.isfinite(values)]
    return NONE if not len(held) else f"{held.mean():.3f} ± {held.std(ddof=1) if len(held) > 1 else 0:.3f}"
