"""Pain over the folds: the report of each strategy, all strategies side by side, ensembles, the reference recipe's criteria."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.crossval.fold_results import ANSWERS, FoldResults
from affect.engine.crossval.pain_rows import pain_predictions
from affect.engine.crossval.plan import ALL, CONTINUE, FINETUNE, SPECIALIST, select_by
from affect.engine.report.pain.compare import compare, comparison_table
from affect.engine.report.pain.decision import CRITERIA, Decision, decide
from affect.engine.report.pain.ensemble import ORACLE, mean_of, with_specialist, with_true_moment
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT, PainPredictions
from affect.engine.report.pain.report import report
from affect.engine.report.pain.state import other_folds_cut_offs
from affect.engine.report.render import NONE, Table, markdown
from affect.engine.report.run_figures import CHOSEN_MARK
from affect.engine.runs.folder import open_run, read_history
from affect.engine.system.log import say
from affect.engine.training.early_stopping import merit
from affect.shards.errors import InputError

Strategies = dict[str, PainPredictions]


def pain_report(results: FoldResults, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write pain.md of every strategy; return the comparison as text and figures."""
    predictions, folds_info = Strategies(), {name: results.folds_info(name) for name in results.runs}
    for name, held_out in results.held_out.items():
        predictions[name] = pain_predictions(held_out, results.dataset, results.train)
        predictions[name].save(results.out / name / ANSWERS)
    main = next(iter(predictions))
    for name, strategy in predictions.items():
        report(strategy, folds_info[name], folder if name == main else folder / name)
    least = {name: min(info["epochs"] for info in folds.values()) for name, folds in folds_info.items()}
    with_others = predictions | gated(predictions)
    least |= {name: min(least[part] for part in least if part in name.split(" ")) for name in with_others if name not in least}
    decisions = {
        name: decide(strategy, other_folds_cut_offs(strategy), least[name])
        for name, strategy in with_others.items()
        if name != SPECIALIST and ORACLE not in name
    }
    tables = list(strategies_tables(with_others))
    sections = ["# Strategies, out of fold", *map(markdown, tables), *remarks(folds_info)]
    sections += ["# Criteria", markdown(criteria_of(decisions))]
    tested = test_predictions(results)
    if tested:
        sections += ["# Test animals", markdown(comparison_table(compare(tested))), TEST_NOTE]
    figures = {
        "strategies": {name: {"verdict": one.verdict, **one.figures} for name, one in decisions.items()},
        "told": folds_info, "test": compare(tested) if tested else {},
    }  # fmt: skip
    return "\n".join(sections) + f"\nMore of {main}: {folder / 'pain.md'}\n", figures


TEST_NOTE = "Nothing was chosen by the test animals; choosing a strategy by this table uses them up.\n"


def remarks(folds_info: Mapping[str, Mapping[int, Mapping[str, int]]]) -> list[str]:
    """Return remarks on the strategies that the tables do not show, a line each."""
    before, after, lines = folds_info.get(ALL, {}), folds_info.get(CONTINUE, {}), list[str]()
    if both := [fold for fold in after if fold in before]:
        better = [fold for fold in both if after[fold]["best_epoch"] != before[fold]["best_epoch"]]
        which = f" ({', '.join(map(str, better))})" if better else ""
        same = "; the others predict as before" if len(better) < len(both) else ""
        lines.append(f"{CONTINUE}: {len(better)} of {len(both)} folds{which} found a better epoch by going on{same}.\n")
    if SPECIALIST in folds_info:
        what = f"trained on a part of the clips (pain_m2: on {ACUTE_MOMENT} alone)"
        lines.append(f"{SPECIALIST}: {what}; its figure is the MAE of {ACUTE_MOMENT}, not those of all clips.\n")
    return lines


def gated(predictions: Strategies) -> Strategies:
    """Combine each general strategy with the specialist, by its own probability of acute pain, and by the true moment."""
    combined = Strategies()
    for name in (ALL, CONTINUE):
        if (
            SPECIALIST not in predictions
            or name not in predictions
            or _samples(predictions[name]) != _samples(predictions[SPECIALIST])
        ):
            continue
        try:
            combined[f"{name} + {SPECIALIST}"] = with_specialist(predictions[name], predictions[SPECIALIST])
        except InputError as error:  # the general model predicts no state
            say(f"crossval: {name} + {SPECIALIST}: {error}")
        combined[f"{name} + {SPECIALIST} ({ORACLE})"] = with_true_moment(predictions[name], predictions[SPECIALIST])
    return combined


def _samples(predictions: PainPredictions) -> frozenset[int]:
    return frozenset(predictions.sample.tolist())


def strategies_tables(predictions: Strategies) -> list[Table]:
    """Compare the strategies that predict the same clips as the first; then each of the others beside it on its own clips."""
    first = next(iter(predictions))
    same = {name: one for name, one in predictions.items() if _samples(one) == _samples(predictions[first])}
    tables = [comparison_table(compare(same))]
    for name, one in predictions.items():
        if name not in same and _samples(one) & _samples(predictions[first]):
            folds = ", ".join(map(str, np.unique(one.fold).tolist()))
            beside = {
                f"{first}, fold {folds}": predictions[first].where(np.isin(predictions[first].sample, one.sample)),
                name: one,
            }
            tables.append(comparison_table(compare(beside), chosen=beside if name == FINETUNE else ()))
    return tables


def criteria_of(decisions: Mapping[str, Decision]) -> Table:
    """Tabulate the reference recipe's success criteria, a column a strategy."""
    cells = []
    for criterion in CRITERIA:
        values = [decision.figures[criterion.metric] for decision in decisions.values()]
        judged = [NONE if v is None else f"{'pass' if criterion.met_by(v) else 'fail'} {v:.3g}" for v in values]
        cells.append([criterion.name, criterion.before, criterion.expected, *judged])
    cells.append(["verdict", "", "", *(decision.verdict for decision in decisions.values())])
    caption = [
        "Before and expected: the reference recipe's report, of its data; its R2 is of the best of nine folds, here of all.",
        *([f"{CHOSEN_MARK}: of one fold, by whose own clips it was chosen."] if FINETUNE in decisions else []),
    ]
    names = [name + CHOSEN_MARK * (name == FINETUNE) for name in decisions]
    return Table(["criterion", "before", "expected", *names], cells, set(), caption)


def test_predictions(results: FoldResults) -> Strategies:
    """Predict test animals, which no fold was trained on: by the fold with the best validation, and by the mean of all folds."""
    predictions = Strategies()
    for strategy, folds in results.test.items():
        if strategy in (SPECIALIST, FINETUNE) or not folds:
            continue
        each = {fold: pain_predictions(held_out, results.dataset, results.train) for fold, held_out in folds.items()}
        best = best_fold(results.runs[strategy])
        mean = f"{strategy}, mean of {len(each)} folds"
        predictions[mean] = mean_of(list(each.values()))
        predictions[f"{strategy}, fold {best}, the best by its validation"] = each[best]
        special = [
            pain_predictions(held_out, results.dataset, results.train) for held_out in results.test.get(SPECIALIST, {}).values()
        ]
        if special and np.isfinite(predictions[mean].state_probs).all():
            both = with_specialist(predictions[mean], mean_of(special))
            predictions[f"{strategy} + {SPECIALIST}, means of folds"] = both
    return predictions


def best_fold(runs: Mapping[int, Path]) -> int:
    """Return the fold with the best selecting figure, each on its own validation."""
    reached = {}
    for fold, folder in runs.items():
        figure = select_by(open_run(folder)[0])
        reached[fold] = max(merit(figure, line["val"][figure]) for line in read_history(folder) if line["final_head"])
    return max(reached, key=lambda fold: reached[fold])
