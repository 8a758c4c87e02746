"""The report of cross-validations of mice: models beside motion and controls, and what holds in separate cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.crossval.fold_results import epochs_note
from affect.engine.crossval.held_out import HeldOut
from affect.engine.crossval.mouse_predictions import STRESS, Clips, clips_apart, clips_of, motion_of, scores_of, windows_of
from affect.engine.crossval.run_folds import runs_in
from affect.engine.report import mouse_cohorts as mouse
from affect.engine.report.ordinal import Score, Trials
from affect.engine.report.render import Table, markdown

GROUPS = {"animal": "group", "cohort": "source", "sex": "meta.sex"}  # what trials are grouped by -> index column
APART = " (apart)"


def mouse_report(folders: Mapping[str, Path], points: Mapping[str, Path], high: float = 3) -> tuple[str, dict[str, Any]]:
    """Return the text and the figures. folders: name of a score -> its cross-validation; mouse.MODEL is among them.

    points: of the 2x2, name -> its cross-validation. high: the level from which a trial is stress.
    Raises: InputError where one is not finished, or is of other clips.
    """
    model = folders[mouse.MODEL]
    clips, held_out = clips_of(model, high)
    pairs = [scores_of(clips, folder, name) for name, folder in folders.items()]
    pairs.append(scores_of(clips, model, mouse.AT_TEST, "shuffled"))
    scores = [stress for stress, _ in pairs] + motion_of(clips)
    if clips.dataset.has("meta.session_position"):
        scores.append(mouse.session_position_alone(clips.trials, clips.of("meta.session_position")))
    text, figures = mouse.mouse_report(clips.trials, scores, [level for _, level in pairs if level])
    notes = dict.fromkeys(epochs_note(next(iter(runs_in(folder).values()))) for folder in folders.values())
    text += "\n".join(["", *notes, ""])
    if STRESS in held_out.values:  # and not the level alone
        text += "\n".join(["", f"## {mouse.MODEL.capitalize()}, stress", "", markdown(_stress(clips, held_out))])
    if windows := windows_of(model):
        text += f"\n{windows}\n"
    if tested := clips_apart(model, high):
        text += _apart(clips, scores, *tested, folders)
    if points:
        stress = {name: scores_of(clips, folder, name)[0].values for name, folder in points.items()}
        text += f"\n## The reference recipe's two changes\n\n{markdown(mouse.two_by_two(clips.trials, stress))}"
    return text, figures


def _stress(clips: Clips, held_out: HeldOut) -> Table:
    names = clips.dataset.info.layout.output("stress").names
    groups = {} if clips.tested else {"fold": held_out.fold.astype(str)}
    groups |= {name: clips.of(column).astype(str) for name, column in GROUPS.items() if clips.dataset.has(column)}
    return mouse.stress_table(held_out.values["stress"], held_out.targets["stress"], (names[0], names[1]), groups)


def _apart(clips: Clips, scores: list[Score], tested: Clips, predictions: HeldOut, folders: Mapping[str, Path]) -> str:
    """Compare the split test with the folds' held-out clips: each score that exists for both."""
    there = {name: scores_of(tested, folder, name)[0] for name, folder in folders.items()}
    there |= {score.name: score for score in motion_of(tested)}
    both = [Score(s.name, np.concatenate([s.values, there[s.name].values]), False) for s in scores if s.name in there]
    level, animal = (np.concatenate([getattr(of.trials, part) for of in (clips, tested)]) for part in ("level", "animal"))
    cohort = np.concatenate([clips.of("source").astype(str), np.char.add(tested.of("source").astype(str), APART)])
    trials, home = Trials(level, animal, clips.trials.high), np.arange(len(level)) < len(clips.path)
    model = next(score for score in both if score.name == mouse.MODEL)
    falls = [
        mouse.fall(trials, model, home, ~home & (cohort == name), name) for name in dict.fromkeys(cohort[~home].tolist())
    ]  # fmt: skip
    table = markdown(mouse.cohort_table(trials, both, "cohort", cohort))
    title = "## Cohorts apart, on which no fold was trained or chosen"
    return "\n".join(["", title, "", table, *falls, "", markdown(_stress(tested, predictions))])
