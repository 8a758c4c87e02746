"""Ways of training side by side, on the clips that all of them answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce

import numpy as np

from affect.engine.report.pain.ensemble import aligned
from affect.engine.report.pain.figures import MOMENT_MEAN, TRAIN_MEAN, Figures, naive, pooled_of
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT, PainAnswers, Scored
from affect.engine.report.pain.resample import animal_interval, caution
from affect.engine.report.pain.texts import ranged, text
from affect.engine.report.render import NONE, Table
from affect.engine.report.run_figures import CHOSEN_MARK
from affect.shards.errors import InputError


def compare(strategies: Mapping[str, PainAnswers]) -> dict[str, Figures]:
    """Name -> figures on the shared clips, and `r2_gain`, `mae_gain` over the first with intervals; then the two baselines.

    All are held against the first's training means, so that differences are of what is said alone. The intervals draw the
    same animals for both sides. `left_out`: clips that others do not answer. Raises InputError where no clip is shared.
    """
    if not strategies:
        raise InputError("nothing to compare; expected the answers of one strategy at least")
    clash = {TRAIN_MEAN, MOMENT_MEAN} & set(strategies)
    if clash:
        raise InputError(f"a strategy is called {clash.pop()!r}, as a baseline is; name it otherwise")
    shared = reduce(np.intersect1d, [answers.sample for answers in strategies.values()])
    if not len(shared):
        raise InputError(f"no clip is answered by all of {', '.join(strategies)}; evaluate them on the same clips")
    first, *_ = strategies.values()
    first = first.where(np.isin(first.sample, shared))
    scored = first.total
    said = {name: aligned(answers, first).total.said for name, answers in strategies.items()} | naive(scored)
    found = {name: pooled_of(scored, values) for name, values in said.items()}
    reference = next(iter(said.values()))
    for i, (name, values) in enumerate(said.items()):
        found[name] |= gain(scored, reference, values) if i else {}
        found[name]["left_out"] = len(strategies[name]) - len(shared) if name in strategies else 0
    return found


def gain(scored: Scored, reference: np.ndarray, said: np.ndarray) -> Figures:
    """R2 and MAE of `said` minus those of `reference` on the same clips, with paired intervals over animals."""
    squares, sizes = (scored.true - reference) ** 2 - (scored.true - said) ** 2, np.abs(scored.true - said)
    null = (scored.true - scored.train_mean) ** 2
    parts = np.stack([squares, null, sizes - np.abs(scored.true - reference), np.ones(len(scored))], 1)

    def r2(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / sums[:, 1]

    def mae(sums: np.ndarray) -> np.ndarray:
        return sums[:, 2] / sums[:, 3]

    whole = parts.sum(0, keepdims=True)
    found: Figures = {}
    for name, figure, below in (("r2_gain", r2, whole[0, 1]), ("mae_gain", mae, whole[0, 3])):
        found[name] = float(figure(whole)[0]) if below > 0 else None
        found[f"{name}_interval"] = animal_interval(scored.animal, parts, figure)
    return found


def comparison_table(found: Mapping[str, Figures], chosen: Collection[str] = ()) -> Table:
    """Of `compare`. chosen: the names of those that these very clips have chosen among others; they are marked."""
    cells, first = [], next(iter(found))
    for name, figures in found.items():
        cells.append([
            name + CHOSEN_MARK * (name in chosen), f"{figures['rows']:,}",
            ranged(figures["r2"], figures["r2_interval"]), text(figures["mae"]), text(figures["acute_mae"]), text(figures["icc"]),
            *(
                ranged(figures.get(f"{key}_gain"), figures.get(f"{key}_gain_interval"), sign=True) if name != first else NONE
                for key in ("r2", "mae")
            ),
        ])  # fmt: skip
    header = ["strategy", "clips", "R2", "MAE", f"MAE {ACUTE_MOMENT}", "ICC(2,1)", "R2 - first", "MAE - first"]
    left_out = sum(figures["left_out"] for figures in found.values())
    caption = [
        "Total, of clips that all answer, said by models that were not trained on their animals; R2 against the training mean of "
        f"the folds of {first}; in brackets the 95 % intervals over animals, those of differences with the same animals on both "
        "sides.",
        f"{MOMENT_MEAN}: the training mean of the clip's true moment, which no clip tells.",
        *([f"{left_out} answers to clips that others do not answer are left out."] if left_out else []),
        *([f"{CHOSEN_MARK}: chosen by these clips, so flattered."] if set(chosen) & set(found) else []),
        *filter(None, [caution(found[first]["animals"])]),
    ]
    return Table(header, cells, set(), caption, {len(found) - 2: "naive baselines"})
