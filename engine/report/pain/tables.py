"""Tables of the figures of `figures.py` and `state.py`, the naive baselines beside each."""

from __future__ import annotations

from collections.abc import Mapping

from affect.engine.report.pain.figures import MODEL, MOMENT_MEAN, TRAIN_MEAN, Figures
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT
from affect.engine.report.pain.resample import RESAMPLES, caution
from affect.engine.report.pain.texts import ranged, text
from affect.engine.report.render import NONE, Table

NAIVE = (TRAIN_MEAN, MOMENT_MEAN)
SEVERAL = "several models"  # of fold -1


def pooled_table(figures: Mapping[str, Figures]) -> Table:
    cells = [
        [
            name, ranged(each["r2"], each["r2_interval"]), text(each["r2_own_mean"]), ranged(each["mae"], each["mae_interval"]),
            text(each["acute_mae"]), text(each["bias"], sign=True), text(each["pearson"]), text(each["icc"]),
        ]
        for name, each in figures.items()
    ]  # fmt: skip
    header = ["", "R2", "R2, own mean", "MAE", f"MAE {ACUTE_MOMENT}", "bias", "r", "ICC(2,1)"]
    model = figures[MODEL]
    caption = [
        f"{model['rows']:,} clips of {model['animals']} animals. R2: against the mean of the training rows of each clip's fold; "
        "own mean: against the mean of the clips scored here.",
        f"In brackets: 95 % over {RESAMPLES:,} draws of animals. {MOMENT_MEAN}: knows the true moment, which no clip shows.",
        *filter(None, [caution(model["animals"])]),
    ]
    return Table(header, cells, set(), caption)


def moments_table(figures: Mapping[str, Figures]) -> Table:
    header = ["moment", "clips", "MAE", *(f"MAE {name}" for name in NAIVE), "bias", "r within"]
    cells = [
        [
            name or "unknown", f"{each['rows']:,}", text(each["mae"]), *_naive(each), text(each["bias"], sign=True),
            text(each["pearson"]),
        ]
        for name, each in figures.items()
    ]  # fmt: skip
    return Table(header, cells, set(), ["bias: predicted - true. r within: among the clips of one moment."])


def features_table(figures: Mapping[str, Figures]) -> Table:
    header = ["scalar", "clips", "r", "R2", f"R2 {MOMENT_MEAN}", "MAE", "slope", "calibration", "SD ratio", "bias"]
    cells, notes = [], []
    for name, each in figures.items():
        cells.append([
            name + " *" * bool(each["flag"]), f"{each['rows']:,}", text(each["pearson"]), text(each["r2"]),
            text(each["naive_r2"][MOMENT_MEAN]), text(each["mae"]), text(each["slope"]), text(each["calibration"]),
            text(each["sd_ratio"]), text(each["bias"], sign=True),
        ])  # fmt: skip
        notes += [f"\\* {name}: {each['flag']}."] if each["flag"] else []
    caption = [
        f"R2 of the {TRAIN_MEAN} is 0. slope: of predicted on true, below 1 values are drawn to the mean, as the best "
        "guesses are; calibration: the slope of true on predicted, 1 is calibrated; SD ratio: of predicted by true.",
        *notes,
    ]
    return Table(header, cells, set(), caption)


def animals_table(figures: Mapping[str, Figures]) -> Table:
    header = ["animal", "clips", "MAE", *(f"MAE {name}" for name in NAIVE), "bias", "r"]
    cells = [
        [name, f"{each['rows']:,}", text(each["mae"]), *_naive(each), text(each["bias"], sign=True), text(each["pearson"])]
        for name, each in figures.items()
    ]
    return Table(header, cells, set(), ["r: among the clips of one animal."])


def folds_table(figures: Mapping[str, Figures]) -> Table:
    header = ["fold", "animals", "clips", "MAE", *(f"MAE {name}" for name in NAIVE), "R2", "R2, own mean"]
    header += ["epochs", "best", "at least"]
    cells = [
        [
            SEVERAL if name == "-1" else name, ", ".join(each["animals"]) or NONE, f"{each['rows']:,}", text(each["mae"]),
            *_naive(each), text(each["r2"]), text(each["r2_own_mean"]),
            text(each["epochs"], 0) + " (stopped early)" * bool(each["stopped_early"]),
            text(each["best_epoch"], 0), text(each["min_epochs"], 0),
        ]
        for name, each in figures.items()
    ]  # fmt: skip
    caption = [
        "R2 of one fold says as much of its few animals as of its model, and the best of the folds is the luckiest: chosen "
        "by its own figure, no result. The pooled R2 is the result.",
        _stops(figures),
    ]
    return Table(header, cells, set(), caption)


def _stops(figures: Mapping[str, Figures]) -> str:
    early = [name for name, each in figures.items() if each["stopped_early"]]
    silent = [name for name, each in figures.items() if each["stopped_early"] is None]
    parts = [f"Stopped before min_epochs: {'fold ' + ', '.join(early) if early else 'none'}"]
    parts += [f"not known: fold {', '.join(silent)}"] if silent else []
    return "; ".join(parts) + "."


def state_table(figures: Figures) -> Table:
    header = ["state", "clips", "recall", "precision", "F1"]
    cells = [
        [name, f"{each['rows']:,}", text(each["recall"]), text(each["precision"]), text(each["f1"])]
        for name, each in figures["states"].items()
    ]
    caption = [
        f"Accuracy {text(figures['accuracy'])}; {text(figures['commonest'])} by predicting the commonest state of these clips. "
        f"Macro-F1 {text(figures['macro_f1'])}, over the states that occur.",
        *([f"{figures['unsaid']} labelled clips have no probabilities and are left out."] if figures["unsaid"] else []),
    ]
    return Table(header, cells, set(), caption)


def _naive(each: Figures) -> list[str]:
    return [text(each["naive_mae"][name]) for name in NAIVE]
