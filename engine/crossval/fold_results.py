"""The finished folds of a cross-validation, with their predictions of rows that they were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affect.engine.config.data import DataConfig
from affect.engine.crossval.held_out import HeldOut, cached_predictions, concat
from affect.engine.crossval.plan import STRATEGIES, select_by
from affect.engine.crossval.run_folds import read_note, runs_in
from affect.engine.data.selection import open_dataset, train_rows, val_selection
from affect.engine.runs.folder import open_run, read_history
from affect.engine.system.log import silent
from affect.engine.training.early_stopping import best_epoch
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

ANSWERS, OUT_OF_FOLD, TEST = "answers.npz", "out_of_fold.npz", "test.npz"


@dataclass(frozen=True)
class FoldResults:
    """All finished folds. runs: strategy -> fold -> folder; held_out: strategy -> its out-of-fold predictions; train: fold -> the
    training rows of the general configuration; test: strategy -> fold -> rows of the split test, empty without one.
    """

    out: Path
    dataset: Dataset
    folds: tuple[int, ...]
    runs: dict[str, dict[int, Path]]
    train: dict[int, np.ndarray]
    held_out: dict[str, HeldOut]
    test: dict[str, dict[int, HeldOut]]

    def folds_info(self, strategy: str) -> dict[int, dict[str, int]]:
        """Return fold -> epochs, best_epoch, min_epochs."""
        return {fold: fold_info(folder) for fold, folder in self.runs[strategy].items()}


def fold_info(folder: Path) -> dict[str, int]:
    """Return a run's epochs, best_epoch and min_epochs."""
    run, history = open_run(folder)[0], read_history(folder)
    rule = run.optim.early_stopping
    least = rule.min_epochs if rule else 0
    return {"epochs": len(history), "best_epoch": best_epoch(history, select_by(run), run.optim.keep), "min_epochs": least}


def collect(out: Path) -> FoldResults:
    """Predict with every finished fold the rows that it was not trained on. Raises InputError where none is finished."""
    runs = runs_in(out)
    if not runs:
        raise InputError(f"{out}: no fold is finished yet; go on with it: affect crossval CONFIG --out {out}")
    data = general_data(runs)
    dataset = open_dataset(data.dataset)
    folds = sorted({fold for folders in runs.values() for fold in folders})
    per_fold = {fold: data.model_copy(update={"fold": fold}) for fold in folds}
    rows = {fold: dataset.rows(val_selection(one)) for fold, one in per_fold.items()}
    train = {fold: train_rows(one, dataset, silent) for fold, one in per_fold.items()}
    held_out = {
        name: concat([cached_predictions(folder, OUT_OF_FOLD, fold, dataset, rows[fold]) for fold, folder in folders.items()])
        for name, folders in runs.items()
    }
    tested = dataset.rows("test") if dataset.info.counts.get("test") else np.zeros(0, np.int64)
    test = {
        name: {fold: cached_predictions(folder, TEST, fold, dataset, tested) for fold, folder in folders.items()}
        if len(tested)
        else {}
        for name, folders in runs.items()
    }
    return FoldResults(out, dataset, tuple(read_note(out)["folds"]), runs, train, held_out, test)


def general_data(runs: Mapping[str, Mapping[int, Path]]) -> DataConfig:
    """Return the data section whose rows are judged: the specialist's rows are a part of them."""
    strategy = next(name for name in STRATEGIES if name in runs)
    return open_run(next(iter(runs[strategy].values())))[0].data


def epochs_note(runs: Mapping[int, Path]) -> str:
    """Return a sentence: whether the held-out rows have chosen the epoch of the folds' models."""
    if all(open_run(folder)[0].optim.keep == "last" for folder in runs.values()):
        return "Each fold's model is of its last epoch: these rows have chosen nothing."
    return "The epoch of each fold was chosen on these rows, which flatters it; the last is kept with optim.keep=last."
