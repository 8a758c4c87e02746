"""pain.md, pain.json and three plots of out-of-fold answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.report.pain.charts import animals_plot, moments_plot, said_plot
from affect.engine.report.pain.decision import Decision, decide, decision_text
from affect.engine.report.pain.figures import MODEL, Figures, by_feature, by_fold, by_group, pooled
from affect.engine.report.pain.out_of_fold import PainAnswers
from affect.engine.report.pain.state import other_folds_cut_offs, state_figures
from affect.engine.report.pain.tables import animals_table, features_table, folds_table, moments_table, pooled_table, state_table
from affect.engine.report.pain.texts import plain
from affect.engine.report.render import markdown

TEXT, FIGURES = "pain.md", "pain.json"
PLOTS = ("pain_said.png", "pain_moments.png", "pain_animals.png")


def report(
    answers: PainAnswers, folds_info: Mapping[int, Mapping[str, int]], out: Path, cut_offs: Mapping[int, float] | None = None
) -> str:
    """Write everything that is said of the answers of all folds to the folder `out`; return the text of pain.md.

    folds_info: fold -> {epochs, min_epochs, best_epoch}. cut_offs: fold -> the total from which pain is said, set on its training
    rows; without them each fold's is set on the out-of-fold answers of the other folds.
    """
    out.mkdir(parents=True, exist_ok=True)
    at = other_folds_cut_offs(answers)
    if cut_offs is not None:
        at = np.array([cut_offs.get(fold, np.nan) for fold in answers.fold.tolist()], np.float64)
    found = all_figures(answers, folds_info)
    epochs = [each["epochs"] for each in found["folds"].values()]
    decision = decide(answers, at, None if None in epochs or not epochs else min(epochs))
    found |= {"decision": {"verdict": decision.verdict, **decision.figures}}
    said = "\n".join(_sections(answers, found, decision, cut_offs is None))
    (out / TEXT).write_text(said, encoding="utf-8")
    (out / FIGURES).write_text(json.dumps(plain(found), indent=1, allow_nan=False) + "\n")
    if len(answers.total):
        draw(answers, found, out)
    return said


def all_figures(answers: PainAnswers, folds_info: Mapping[int, Mapping[str, int]]) -> dict[str, Any]:
    """What pain.json holds, without the decision."""
    total = answers.total
    return {
        "clips": len(answers),
        "pooled": pooled(total),
        "moments": by_group(total, total.moment),
        "features": by_feature(answers),
        "animals": by_group(total, total.animal),
        "folds": by_fold(total, folds_info),
        "state": state_figures(answers),
    }


def draw(answers: PainAnswers, found: Mapping[str, Any], out: Path) -> None:
    said, moments, animals = (out / name for name in PLOTS)
    said_plot(answers.total, found["pooled"][MODEL], said)
    moments_plot(answers.total, moments)
    animals_plot(found["animals"], animals)


def notes(answers: PainAnswers) -> list[str]:
    """What of the answers themselves makes the figures less than they seem."""
    lines = []
    if unrated := len(answers) - len(answers.total):
        lines.append(f"{unrated} of {len(answers)} clips have no rated total and are left out of its figures.")
    for animal in np.unique(answers.animal).tolist():
        folds = np.unique(answers.fold[answers.animal == animal]).tolist()
        if len(folds) > 1:
            lines.append(
                f"Animal {animal} is answered by folds {', '.join(map(str, folds))}: each may have trained on its other clips."
            )
    return lines


def _sections(answers: PainAnswers, found: Mapping[str, Any], decision: Decision, fitted_here: bool) -> list[str]:
    count = len(answers.names) - 1
    scale = f"{count}-item bovine facial scale" if count == 7 else f"{count} scalars"
    lines = [f"# Pain from clips: the total of the {scale}, out of fold", ""]
    lines += [*notes(answers), ""] if notes(answers) else []
    lines += ["## Pooled", "", markdown(pooled_table(found["pooled"]))]
    lines += ["## Acceptable or retrain", "", decision_text(decision)]
    if fitted_here and decision.figures["cut_off"]:
        lines += ["The cut-off of each fold is set on the out-of-fold answers of the other folds.", ""]
    tables = {"moment": moments_table, "feature": features_table, "animal": animals_table, "fold": folds_table}
    for name, table in tables.items():
        lines += [f"## By {name}", "", markdown(table(found[f"{name}s"]))]
    lines += ["## State", "", _state(found["state"])]
    if len(answers.total):
        lines += ["## Plots", "", *(f"![{name}]({name})" for name in PLOTS), ""]
    return lines


def _state(found: Figures) -> str:
    if not found["rows"]:
        return f"No clip has both a state and its probabilities ({found['unsaid']} are labelled).\n"
    return markdown(state_table(found))
