"""Writes pain.md, pain.json and three plots of out-of-fold predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.report.pain.charts import animals_plot, moments_plot, predicted_plot
from affect.engine.report.pain.decision import Decision, decide, decision_text
from affect.engine.report.pain.figures import MODEL, Figures, by_feature, by_fold, by_group, pooled
from affect.engine.report.pain.out_of_fold import PainPredictions
from affect.engine.report.pain.state import other_folds_cut_offs, state_figures
from affect.engine.report.pain.tables import animals_table, features_table, folds_table, moments_table, pooled_table, state_table
from affect.engine.report.pain.texts import plain
from affect.engine.report.render import markdown

TEXT, FIGURES = "pain.md", "pain.json"
PLOTS = ("pain_said.png", "pain_moments.png", "pain_animals.png")


def report(
    predictions: PainPredictions,
    folds_info: Mapping[int, Mapping[str, int]],
    out: Path,
    cut_offs: Mapping[int, float] | None = None,
) -> str:
    """Write text, figures and plots of all folds' predictions to the folder `out`; return the text of pain.md.

    folds_info: fold -> {epochs, min_epochs, best_epoch}. cut_offs: fold -> the total that counts as pain, set on its own training
    rows; without them each fold's is set on the out-of-fold predictions of the other folds.
    """
    out.mkdir(parents=True, exist_ok=True)
    at = other_folds_cut_offs(predictions)
    if cut_offs is not None:
        at = np.array([cut_offs.get(fold, np.nan) for fold in predictions.fold.tolist()], np.float64)
    figures = all_figures(predictions, folds_info)
    epochs = [each["epochs"] for each in figures["folds"].values()]
    decision = decide(predictions, at, None if None in epochs or not epochs else min(epochs))
    figures |= {"decision": {"verdict": decision.verdict, **decision.figures}}
    text = "\n".join(_sections(predictions, figures, decision, cut_offs is None))
    (out / TEXT).write_text(text, encoding="utf-8")
    (out / FIGURES).write_text(json.dumps(plain(figures), indent=1, allow_nan=False) + "\n")
    if len(predictions.total):
        draw(predictions, figures, out)
    return text


def all_figures(predictions: PainPredictions, folds_info: Mapping[int, Mapping[str, int]]) -> dict[str, Any]:
    """Return what pain.json holds, without the decision."""
    total = predictions.total
    return {
        "clips": len(predictions),
        "pooled": pooled(total),
        "moments": by_group(total, total.moment),
        "features": by_feature(predictions),
        "animals": by_group(total, total.animal),
        "folds": by_fold(total, folds_info),
        "state": state_figures(predictions),
    }


def draw(predictions: PainPredictions, figures: Mapping[str, Any], out: Path) -> None:
    totals, moments, animals = (out / name for name in PLOTS)
    predicted_plot(predictions.total, figures["pooled"][MODEL], totals)
    moments_plot(predictions.total, moments)
    animals_plot(figures["animals"], animals)


def notes(predictions: PainPredictions) -> list[str]:
    """Return what in the predictions makes the figures less than they seem, a line each."""
    lines = []
    if unrated := len(predictions) - len(predictions.total):
        lines.append(f"{unrated} of {len(predictions)} clips have no true total and are left out of its figures.")
    for animal in np.unique(predictions.animal).tolist():
        folds = np.unique(predictions.fold[predictions.animal == animal]).tolist()
        if len(folds) > 1:
            lines.append(
                f"Animal {animal} is predicted by folds {', '.join(map(str, folds))}: each may have trained on its other clips."
            )
    return lines


def _sections(predictions: PainPredictions, figures: Mapping[str, Any], decision: Decision, fitted_here: bool) -> list[str]:
    count = len(predictions.names) - 1
    scale = f"{count}-item bovine facial scale" if count == 7 else f"{count} scalars"
    lines = [f"# Pain from clips: the total of the {scale}, out of fold", ""]
    lines += [*notes(predictions), ""] if notes(predictions) else []
    lines += ["## Pooled", "", markdown(pooled_table(figures["pooled"]))]
    lines += ["## Acceptable or retrain", "", decision_text(decision)]
    if fitted_here and decision.figures["cut_off"]:
        lines += ["The cut-off of each fold is set on the out-of-fold predictions of the other folds.", ""]
    tables = {"moment": moments_table, "feature": features_table, "animal": animals_table, "fold": folds_table}
    for name, table in tables.items():
        lines += [f"## By {name}", "", markdown(table(figures[f"{name}s"]))]
    lines += ["## State", "", _state(figures["state"])]
    if len(predictions.total):
        lines += ["## Plots", "", *(f"![{name}]({name})" for name in PLOTS), ""]
    return lines


def _state(figures: Figures) -> str:
    if not figures["rows"]:
        return f"No clip has both a state and its probabilities ({figures['unsaid']} are labelled).\n"
    return markdown(state_table(figures))
