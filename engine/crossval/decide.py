"""`affect evaluate CROSSVAL --fold 7`: one fold's model on the test animals, and the decision of the reference recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.crossval.fold_results import TEST, fold_info, general_data
from affect.engine.crossval.held_out import cached_predictions
from affect.engine.crossval.pain_rows import is_pain, pain_predictions
from affect.engine.crossval.plan import ALL
from affect.engine.crossval.run_folds import read_note, runs_in
from affect.engine.data.selection import open_dataset, train_rows
from affect.engine.report.pain.decision import decide, decision_text
from affect.engine.report.pain.state import cut_off
from affect.engine.report.pain.state import is_pain as has_pain
from affect.engine.report.pain.texts import plain
from affect.engine.runs.files import CROSSVAL, EVALUATED
from affect.engine.runs.folder import write_json
from affect.engine.system.log import silent
from affect.shards.errors import InputError

TRAINED = "trained.npz"
DECISION = "decision"


def decide_fold(model: Path, fold: int, out: Path | None = None) -> tuple[str, dict[str, Any]]:
    """Decide on a fold's model; return the decision in words and its figures, and write both.

    The cut-off from which a total counts as pain is the best one of the fold's own training clips.

    model: the folder of a cross-validation, or of one of its strategies. Raises InputError where it is none, the fold is not
    finished, or the dataset has no test animals.
    """
    folder, strategy = (model.parent, model.name) if (model.parent / CROSSVAL).is_file() else (model, ALL)
    read_note(folder)
    runs = runs_in(folder)
    if fold not in runs.get(strategy, {}):
        there = "; ".join(f"{name}: {', '.join(map(str, folders))}" for name, folders in runs.items()) or "none"
        raise InputError(f"{folder}: fold {fold} of {strategy} is not there or not finished; finished folds: {there}")
    data = general_data(runs).model_copy(update={"fold": fold})
    dataset = open_dataset(data.dataset)
    if not dataset.info.counts.get("test"):
        raise InputError(f"{dataset.folder}: has no split test; pack it with test animals, which no fold is trained on")
    run, train = runs[strategy][fold], {fold: train_rows(data, dataset, silent)}
    tested = cached_predictions(run, TEST, fold, dataset, dataset.rows("test"))
    if not is_pain(tested.outputs):
        raise InputError(
            f"{folder}: --fold is for pain; evaluate {run} instead: affect evaluate {run} --data DATASET --split test"
        )
    trained = pain_predictions(cached_predictions(run, TRAINED, fold, dataset, train[fold]), dataset, train)
    cut = cut_off(trained.target[:, -1], trained.predicted[:, -1], has_pain(trained))
    decision = decide(pain_predictions(tested, dataset, train), cut.at if cut else np.nan, fold_info(run)["epochs"])
    where = out or run / EVALUATED / DECISION
    where.mkdir(parents=True, exist_ok=True)
    figures = {"model": str(run), "dataset": str(data.dataset), "split": "test", "verdict": decision.verdict, **decision.figures}
    write_json(where / "decision.json", plain(figures))
    text = decision_text(decision)
    (where / "decision.md").write_text(text, encoding="utf-8")
    return f"{strategy}, fold {fold}, on the test animals of {dataset.folder}\n{text}", plain(figures) | {"out": str(where)}
