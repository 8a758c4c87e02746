"""Pain over the folds: the report of each strategy, all strategies side by side, ensembles, the seed's criteria."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.crossval.fold_results import ANSWERS, FoldResults
from affect.engine.crossval.pain_rows import pain_answers
from affect.engine.crossval.plan import ALL, CONTINUE, FINETUNE, SPECIALIST, select_by
from affect.engine.report.pain.compare import compare, comparison_table
from affect.engine.report.pain.decision import CRITERIA, Decision, decide
from affect.engine.report.pain.ensemble import ORACLE, mean_of, with_specialist, with_true_moment
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT, PainAnswers
from affect.engine.report.pain.report import report
from affect.engine.report.pain.state import other_folds_cut_offs
from affect.engine.report.render import NONE, Table, markdown
from affect.engine.report.run_figures import CHOSEN_MARK
from affect.engine.runs.folder import open_run, read_history
from affect.engine.system.log import say
from affect.engine.training.early_stopping import merit
from affect.shards.errors import InputError

Strategies = dict[str, PainAnswers]


def pain_report(found: FoldResults, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write pain.md of every strategy; return the comparison as text and figures."""
    answers, told = Strategies(), {name: found.told(name) for name in found.runs}
    for name, held in found.held.items():
        answers[name] = pain_answers(held, found.dataset, found.train)
        answers[name].save(found.out / name / ANSWERS)
    main = next(iter(answers))
    for name, own in answers.items():
        report(own, told[name], folder if name == main else folder / name)
    least = {name: min(of["epochs"] for of in own.values()) for name, own in told.items()}
    with_others = answers | gated(answers)
    least |= {name: min(least[part] for part in least if part in name.split(" ")) for name in with_others if name not in least}
    decisions = {
        name: decide(own, other_folds_cut_offs(own), least[name])
        for name, own in with_others.items()
        if name != SPECIALIST and ORACLE not in name
    }
    tables = list(strategies_tables(with_others))
    sections = ["# Strategies, out of fold", *map(markdown, tables), *remarks(told)]
    sections += ["# Criteria", markdown(criteria_of(decisions))]
    tested = test_answers(found)
    if tested:
        sections += ["# Test animals", markdown(comparison_table(compare(tested))), TEST_NOTE]
    figures = {
        "strategies": {name: {"verdict": one.verdict, **one.figures} for name, one in decisions.items()},
        "told": told, "test": compare(tested) if tested else {},
    }  # fmt: skip
    return "\n".join(sections) + f"\nMore of {main}: {folder / 'pain.md'}\n", figures


TEST_NOTE = "Nothing was chosen by the test animals; whoever chooses a strategy by this table uses them up.\n"


def remarks(told: Mapping[str, Mapping[int, Mapping[str, int]]]) -> list[str]:
    """What the tables do not say by themselves, a line each."""
    before, after, lines = told.get(ALL, {}), told.get(CONTINUE, {}), list[str]()
    if both := [fold for fold in after if fold in before]:
        better = [fold for fold in both if after[fold]["best_epoch"] != before[fold]["best_epoch"]]
        which = f" ({', '.join(map(str, better))})" if better else ""
        same = "; the others answer as before" if len(better) < len(both) else ""
        lines.append(f"{CONTINUE}: {len(better)} of {len(both)} folds{which} found a better epoch by going on{same}.\n")
    if SPECIALIST in told:
        what = f"trained on a part of the clips (pain_m2: on {ACUTE_MOMENT} alone)"
        lines.append(f"{SPECIALIST}: {what}; its figure is the MAE of {ACUTE_MOMENT}, not those of all clips.\n")
    return lines


def gated(answers: Strategies) -> Strategies:
    """Each general strategy with the specialist, by its own probability of acute pain, and by the true moment."""
    found = Strategies()
    for name in (ALL, CONTINUE):
        if SPECIALIST not in answers or name not in answers or _samples(answers[name]) != _samples(answers[SPECIALIST]):
            continue
        try:
            found[f"{name} + {SPECIALIST}"] = with_specialist(answers[name], answers[SPECIALIST])
        except InputError as error:  # no state is said of these clips
            say(f"crossval: {name} + {SPECIALIST}: {error}")
        found[f"{name} + {SPECIALIST} ({ORACLE})"] = with_true_moment(answers[name], answers[SPECIALIST])
    return found


def _samples(answers: PainAnswers) -> frozenset[int]:
    return frozenset(answers.sample.tolist())


def strategies_tables(answers: Strategies) -> list[Table]:
    """Of those that answer what the first one does; then each of the others beside it on the clips that it answers."""
    first = next(iter(answers))
    same = {name: own for name, own in answers.items() if _samples(own) == _samples(answers[first])}
    tables = [comparison_table(compare(same))]
    for name, own in answers.items():
        if name not in same and _samples(own) & _samples(answers[first]):
            folds = ", ".join(map(str, np.unique(own.fold).tolist()))
            beside = {f"{first}, fold {folds}": answers[first].where(np.isin(answers[first].sample, own.sample)), name: own}
            tables.append(comparison_table(compare(beside), chosen=beside if name == FINETUNE else ()))
    return tables


def criteria_of(decisions: Mapping[str, Decision]) -> Table:
    """The seed's success criteria, a column a strategy."""
    cells = []
    for criterion in CRITERIA:
        values = [decision.figures[criterion.metric] for decision in decisions.values()]
        judged = [NONE if v is None else f"{'pass' if criterion.met_by(v) else 'fail'} {v:.3g}" for v in values]
        cells.append([criterion.name, criterion.before, criterion.expected, *judged])
    cells.append(["verdict", "", "", *(decision.verdict for decision in decisions.values())])
    caption = [
        "Before and expected: the seed's own report, of its data; R2 there was of one fold, the best of nine, here it is pooled.",
        *([f"{CHOSEN_MARK}: of one fold, by whose own clips it was chosen."] if FINETUNE in decisions else []),
    ]
    names = [name + CHOSEN_MARK * (name == FINETUNE) for name in decisions]
    return Table(["criterion", "before", "expected", *names], cells, set(), caption)


def test_answers(found: FoldResults) -> Strategies:
    """Of test animals, which no fold was trained on: the fold that its own validation says is best, and the mean of all."""
    answers = Strategies()
    for strategy, folds in found.test.items():
        if strategy in (SPECIALIST, FINETUNE) or not folds:
            continue
        own = {fold: pain_answers(held, found.dataset, found.train) for fold, held in folds.items()}
        best = best_fold(found.runs[strategy])
        answers[f"{strategy}, mean of {len(own)} folds"] = mean_of(list(own.values()))
        answers[f"{strategy}, fold {best}, the best by its validation"] = own[best]
        special = [pain_answers(held, found.dataset, found.train) for held in found.test.get(SPECIALIST, {}).values()]
        if special and np.isfinite(answers[f"{strategy}, mean of {len(own)} folds"].state_probs).all():
            general = answers[f"{strategy}, mean of {len(own)} folds"]
            answers[f"{strategy} + {SPECIALIST}, means of folds"] = with_specialist(general, mean_of(special))
    return answers


def best_fold(runs: Mapping[int, Path]) -> int:
    """By the figure that selects, each on its own validation."""
    reached = {}
    for fold, folder in runs.items():
        figure = select_by(open_run(folder)[0])
        reached[fold] = max(merit(figure, line["val"][figure]) for line in read_history(folder) if line["final_head"])
    return max(reached, key=lambda fold: reached[fold])
