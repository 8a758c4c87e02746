"""Strategies of training side by side, on the clips that all of them predict."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce

import numpy as np

from affect.engine.report.pain.ensemble import aligned
from affect.engine.report.pain.figures import MOMENT_MEAN, TRAIN_MEAN, Figures, naive, pooled_of
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT, PainPredictions, Scored
from affect.engine.report.pain.resample import animal_interval, caution
from affect.engine.report.pain.texts import ranged, text
from affect.engine.report.render import NONE, Table
from affect.engine.report.run_figures import CHOSEN_MARK
from affect.shards.errors import InputError


def compare(strategies: Mapping[str, PainPredictions]) -> dict[str, Figures]:
    """Return name -> figures on the shared clips, with the gains over the first and their intervals; then the baselines.

    All are compared with the first's training means, so that only the predictions differ. The intervals draw the same
    animals for both sides. `left_out`: clips that others do not predict. Raises InputError where no clip is shared.
    """
    if not strategies:
        raise InputError("nothing to compare; expected the predictions of one strategy at least")
    clash = {TRAIN_MEAN, MOMENT_MEAN} & set(strategies)
    if clash:
        raise InputError(f"a strategy is called {clash.pop()!r}, as a baseline is; name it otherwise")
    shared = reduce(np.intersect1d, [predictions.sample for predictions in strategies.values()])
    if not len(shared):
        raise InputError(f"no clip is predicted by all of {', '.join(strategies)}; evaluate them on the same clips")
    first, *_ = strategies.values()
    first = first.where(np.isin(first.sample, shared))
    scored = first.total
    predicted = {name: aligned(predictions, first).total.predicted for name, predictions in strategies.items()} | naive(scored)
    compared = {name: pooled_of(scored, values) for name, values in predicted.items()}
    reference = next(iter(predicted.values()))
    for i, (name, values) in enumerate(predicted.items()):
        compared[name] |= gain(scored, reference, values) if i else {}
        compared[name]["left_out"] = len(strategies[name]) - len(shared) if name in strategies else 0
    return compared


def gain(scored: Scored, reference: np.ndarray, predicted: np.ndarray) -> Figures:
    """Return R2 and MAE of `predicted` minus those of `reference` on the same clips, with paired intervals over animals."""
    squares, sizes = (scored.true - reference) ** 2 - (scored.true - predicted) ** 2, np.abs(scored.true - predicted)
    null = (scored.true - scored.train_mean) ** 2
    parts = np.stack([squares, null, sizes - np.abs(scored.true - reference), np.ones(len(scored))], 1)

    def r2(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / sums[:, 1]

    def mae(sums: np.ndarray) -> np.ndarray:
        return sums[:, 2] / sums[:, 3]

    whole = parts.sum(0, keepdims=True)
    compared: Figures = {}
    for name, figure, below in (("r2_gain", r2, whole[0, 1]), ("mae_gain", mae, whole[0, 3])):
        compared[name] = float(figure(whole)[0]) if below > 0 else None
        compared[f"{name}_interval"] = animal_interval(scored.animal, parts, figure)
    return compared


def comparison_table(compared: Mapping[str, Figures], chosen: Collection[str] = ()) -> Table:
    """Tabulate the result of `compare`. chosen: strategies that were selected by these very clips; they are marked."""
    cells, first = [], next(iter(compared))
    for name, figures in compared.items():
        cells.append([
            name + CHOSEN_MARK * (name in chosen), f"{figures['rows']:,}",
            ranged(figures["r2"], figures["r2_interval"]), text(figures["mae"]), text(figures["acute_mae"]), text(figures["icc"]),
            *(
                ranged(figures.get(f"{key}_gain"), figures.get(f"{key}_gain_interval"), sign=True) if name != first else NONE
                for key in ("r2", "mae")
            ),
        ])  # fmt: skip
    header = ["strategy", "clips", "R2", "MAE", f"MAE {ACUTE_MOMENT}", "ICC(2,1)", "R2 - first", "MAE - first"]
    left_out = sum(figures["left_out"] for figures in compared.values())
    caption = [
        "Total, of clips that all predict, by models that were not trained on their animals; R2 against the training mean of "
        f"the folds of {first}; in brackets the 95 % intervals over animals, those of differences with the same animals on both "
        "sides.",
        f"{MOMENT_MEAN}: the training mean of the clip's true moment, which no clip shows.",
        *([f"{left_out} predictions of clips that others do not predict are left out."] if left_out else []),
        *([f"{CHOSEN_MARK}: chosen by these clips, so flattered."] if set(chosen) & set(compared) else []),
        *filter(None, [caution(compared[first]["animals"])]),
    ]
    return Table(header, cells, set(), caption, {len(compared) - 2: "naive baselines"})
