"""Figures of pooled predictions, and by moment, feature, animal and fold, in numpy float64.

The R2 here, `r2`, is against the mean of the training rows of the clip's fold: 1 - sum (y - p)^2 / sum (y - train_mean)^2,
p being the prediction: the gain over a model that sees no clip. `r2_own_mean` is against the mean of the scored rows, which
is never higher, and with two animals depends more on the two than on the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from affect.engine.metrics.regression import errors
from affect.engine.report.pain.agreement import icc
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT, PainPredictions, Scored
from affect.engine.report.pain.resample import animal_interval

Figures = dict[str, Any]
MODEL, TRAIN_MEAN, MOMENT_MEAN = "model", "training mean", "moment mean"
RANKS = 0.3  # an r above it with an R2 below 0 is flagged


def r2_against(true: np.ndarray, predicted: np.ndarray, null: np.ndarray) -> float | None:
    """None without rows, or where the null model has no error or no value."""
    spread = float(((true - null) ** 2).sum())
    return 1 - float(((true - predicted) ** 2).sum()) / spread if np.isfinite(spread) and spread > 0 else None


def naive(scored: Scored) -> dict[str, np.ndarray]:
    """Return the baselines' predictions; the moment mean knows the true moment, which no clip shows."""
    return {TRAIN_MEAN: scored.train_mean, MOMENT_MEAN: scored.moment_mean}


def pooled(scored: Scored) -> dict[str, Figures]:
    """model, training mean, moment mean -> figures over all clips, R2 and MAE with their intervals over animals."""
    return {name: pooled_of(scored, predicted) for name, predicted in ({MODEL: scored.predicted} | naive(scored)).items()}


def pooled_of(scored: Scored, predicted: np.ndarray) -> Figures:
    figures, acute = errors(predicted, scored.true), scored.moment == ACUTE_MOMENT
    squared, null = (scored.true - predicted) ** 2, (scored.true - scored.train_mean) ** 2
    parts = np.stack([squared, null, np.abs(scored.true - predicted), np.ones(len(scored))], 1)
    return {
        "rows": len(scored),
        "animals": len(np.unique(scored.animal)),
        "r2": r2_against(scored.true, predicted, scored.train_mean),
        "r2_interval": animal_interval(scored.animal, parts, lambda sums: 1 - sums[:, 0] / sums[:, 1]),
        "r2_own_mean": figures["r2"],
        "mae": figures["mae"],
        "mae_interval": animal_interval(scored.animal, parts, lambda sums: sums[:, 2] / sums[:, 3]),
        "acute_rows": int(acute.sum()),
        "acute_mae": errors(predicted[acute], scored.true[acute])["mae"],
        "bias": figures["bias"],
        "pearson": figures["pearson"],
        "icc": icc(np.stack([scored.true, predicted], 1)),
    }


def by_group(scored: Scored, group: np.ndarray) -> dict[str, Figures]:
    """Moment, animal or fold -> figures of its clips, in the order of the names. group: (N,)."""
    return {str(name): group_figures(scored.where(group == name)) for name in np.unique(group).tolist()}


def group_figures(scored: Scored) -> Figures:
    """Return the figures of some clips; pearson is the r within them. The baselines' MAE stands beside the model's."""
    figures = errors(scored.predicted, scored.true)
    shown = {key: figures[key] for key in ("rows", "mae", "bias", "pearson")}
    return shown | {
        "r2": r2_against(scored.true, scored.predicted, scored.train_mean),
        "r2_own_mean": figures["r2"],
        "deviation": float((scored.predicted - scored.true).std()) if len(scored) else None,
        "naive_mae": {name: errors(predicted, scored.true)["mae"] for name, predicted in naive(scored).items()},
    }


def by_feature(predictions: PainPredictions) -> dict[str, Figures]:
    """Each scalar, the total last -> feature_figures."""
    return {name: feature_figures(predictions.of(name)) for name in predictions.names}


def feature_figures(scored: Scored) -> Figures:
    """Return r, R2, slope of predicted on true (below 1, values are drawn to the mean, as the best guesses are), calibration: the
    slope of true on predicted (1 is calibrated), bias, sd_ratio: SD of predicted by that of true.

    Of the mean squared error, bias^2 is `offset`, (1 - r^2) var(true) is what no line through these predictions could mend, and
    what remains between them is `scale`; as shares of the whole. `mended_r2`: R2 if offset and scale were right.
    """
    figures = errors(scored.predicted, scored.true) | {"r2": r2_against(scored.true, scored.predicted, scored.train_mean)}
    figures |= {
        "naive_r2": {name: r2_against(scored.true, predicted, scored.train_mean) for name, predicted in naive(scored).items()}
    }
    figures |= dict.fromkeys(("slope", "calibration", "sd_ratio", "offset", "scale", "mended_r2", "flag"))
    if not len(scored) or not scored.true.std():
        return figures
    r, spread, whole = figures["pearson"], float(scored.true.var()), figures["rmse"] ** 2
    figures["sd_ratio"] = float(scored.predicted.std() / scored.true.std())
    figures["slope"] = (r or 0.0) * figures["sd_ratio"]
    if r is None or not whole:
        return figures
    figures["calibration"] = r / figures["sd_ratio"]
    left = (1 - r**2) * spread
    figures["offset"], figures["scale"] = figures["bias"] ** 2 / whole, max(whole - figures["bias"] ** 2 - left, 0.0) / whole
    null = float(((scored.true - scored.train_mean) ** 2).mean())
    figures["mended_r2"] = 1 - left / null if null else None
    if r > RANKS and figures["r2"] is not None and figures["r2"] < 0:
        figures["flag"] = flag(figures)
    return figures


def flag(figures: Figures) -> str:
    """Say in words why a scalar that ranks clips well is worse than the mean."""
    return (
        f"r {figures['pearson']:.2f} with R2 {figures['r2']:.2f}: it ranks, but its values are off, scale or bias; "
        f"{figures['offset']:.0%} of the squared error is the offset ({figures['bias']:+.2f}), {figures['scale']:.0%} the scale "
        f"(SD ratio {figures['sd_ratio']:.2f}, calibration {figures['calibration']:.2f}); "
        f"with both right R2 would be {figures['mended_r2']:.2f}"
    )


def by_fold(scored: Scored, folds_info: Mapping[int, Mapping[str, int]]) -> dict[str, Figures]:
    """Return fold -> figures, its animals, and of its training epochs, best_epoch, min_epochs; stopped_early: before min_epochs.

    folds_info: fold -> those three; None where it has no entry. A fold with an entry and without clips has rows 0.
    """
    figures = {}
    for fold in sorted({*np.unique(scored.fold).tolist(), *map(int, folds_info)}):
        here = scored.where(scored.fold == fold)
        known = {key: folds_info.get(fold, {}).get(key) for key in ("epochs", "min_epochs", "best_epoch")}
        both = known["epochs"] is not None and known["min_epochs"] is not None
        early = known["epochs"] < known["min_epochs"] if both else None  # type: ignore[operator]
        figures[str(fold)] = group_figures(here) | {"animals": np.unique(here.animal).tolist(), **known, "stopped_early": early}
    return figures
