"""Figures of pooled predictions, and by moment, feature, animal and fold, in numpy float64.

The R2 here, `r2`, is against the mean of the training rows of the clip's fold: 1 - sum (y - said)^2 / sum (y - train_mean)^2,
what is gained over a model that sees no clip. `r2_own_mean` is against the mean of the scored rows themselves, which is never
higher, and of two animals says more of the two than of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from affect.engine.metrics.regression import errors
from affect.engine.report.pain.agreement import icc
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT, PainAnswers, Scored
from affect.engine.report.pain.resample import animal_interval

Figures = dict[str, Any]
MODEL, TRAIN_MEAN, MOMENT_MEAN = "model", "training mean", "moment mean"
RANKS = 0.3  # an r above it with an R2 below 0 is flagged


def r2_against(true: np.ndarray, said: np.ndarray, null: np.ndarray) -> float | None:
    """None without rows, or where the null model has no error or says nothing."""
    spread = float(((true - null) ** 2).sum())
    return 1 - float(((true - said) ** 2).sum()) / spread if np.isfinite(spread) and spread > 0 else None


def naive(scored: Scored) -> dict[str, np.ndarray]:
    """What the baselines say; the moment mean knows the true moment, which no clip tells."""
    return {TRAIN_MEAN: scored.train_mean, MOMENT_MEAN: scored.moment_mean}


def pooled(scored: Scored) -> dict[str, Figures]:
    """model, training mean, moment mean -> figures over all clips, R2 and MAE with their intervals over animals."""
    return {name: pooled_of(scored, said) for name, said in ({MODEL: scored.said} | naive(scored)).items()}


def pooled_of(scored: Scored, said: np.ndarray) -> Figures:
    found, acute = errors(said, scored.true), scored.moment == ACUTE_MOMENT
    squared, null = (scored.true - said) ** 2, (scored.true - scored.train_mean) ** 2
    parts = np.stack([squared, null, np.abs(scored.true - said), np.ones(len(scored))], 1)
    return {
        "rows": len(scored),
        "animals": len(np.unique(scored.animal)),
        "r2": r2_against(scored.true, said, scored.train_mean),
        "r2_interval": animal_interval(scored.animal, parts, lambda sums: 1 - sums[:, 0] / sums[:, 1]),
        "r2_own_mean": found["r2"],
        "mae": found["mae"],
        "mae_interval": animal_interval(scored.animal, parts, lambda sums: sums[:, 2] / sums[:, 3]),
        "acute_rows": int(acute.sum()),
        "acute_mae": errors(said[acute], scored.true[acute])["mae"],
        "bias": found["bias"],
        "pearson": found["pearson"],
        "icc": icc(np.stack([scored.true, said], 1)),
    }


def by_group(scored: Scored, group: np.ndarray) -> dict[str, Figures]:
    """Moment, animal or fold -> figures of its clips, in the order of the names. group: (N,)."""
    return {str(name): group_figures(scored.where(group == name)) for name in np.unique(group).tolist()}


def group_figures(scored: Scored) -> Figures:
    """Of some clips; pearson is the r within them. The baselines' MAE beside the model's."""
    found = errors(scored.said, scored.true)
    kept = {key: found[key] for key in ("rows", "mae", "bias", "pearson")}
    return kept | {
        "r2": r2_against(scored.true, scored.said, scored.train_mean),
        "r2_own_mean": found["r2"],
        "deviation": float((scored.said - scored.true).std()) if len(scored) else None,
        "naive_mae": {name: errors(said, scored.true)["mae"] for name, said in naive(scored).items()},
    }


def by_feature(answers: PainAnswers) -> dict[str, Figures]:
    """Each scalar, the total last -> feature_figures."""
    return {name: feature_figures(answers.of(name)) for name in answers.names}


def feature_figures(scored: Scored) -> Figures:
    """r, R2, slope of said on true (below 1, values are drawn to the mean, as the best guesses are), calibration: the slope of
    true on said (1 is calibrated), bias, sd_ratio: SD of said by that of true.

    Of the mean squared error, bias^2 is `offset`, (1 - r^2) var(true) is what no line through these answers could mend, and
    what remains between them is `scale`; as shares of the whole. `mended_r2`: R2 if offset and scale were right.
    """
    found = errors(scored.said, scored.true) | {"r2": r2_against(scored.true, scored.said, scored.train_mean)}
    found |= {"naive_r2": {name: r2_against(scored.true, said, scored.train_mean) for name, said in naive(scored).items()}}
    found |= dict.fromkeys(("slope", "calibration", "sd_ratio", "offset", "scale", "mended_r2", "flag"))
    if not len(scored) or not scored.true.std():
        return found
    r, spread, whole = found["pearson"], float(scored.true.var()), found["rmse"] ** 2
    found["sd_ratio"] = float(scored.said.std() / scored.true.std())
    found["slope"] = (r or 0.0) * found["sd_ratio"]
    if r is None or not whole:
        return found
    found["calibration"] = r / found["sd_ratio"]
    left = (1 - r**2) * spread
    found["offset"], found["scale"] = found["bias"] ** 2 / whole, max(whole - found["bias"] ** 2 - left, 0.0) / whole
    null = float(((scored.true - scored.train_mean) ** 2).mean())
    found["mended_r2"] = 1 - left / null if null else None
    if r > RANKS and found["r2"] is not None and found["r2"] < 0:
        found["flag"] = flag(found)
    return found


def flag(found: Figures) -> str:
    """In words why a scalar that ranks clips well is worse than the mean."""
    return (
        f"r {found['pearson']:.2f} with R2 {found['r2']:.2f}: it ranks, but its values are off, scale or bias; "
        f"{found['offset']:.0%} of the squared error is the offset ({found['bias']:+.2f}), {found['scale']:.0%} the scale "
        f"(SD ratio {found['sd_ratio']:.2f}, calibration {found['calibration']:.2f}); "
        f"with both right R2 would be {found['mended_r2']:.2f}"
    )


def by_fold(scored: Scored, told: Mapping[int, Mapping[str, int]]) -> dict[str, Figures]:
    """Fold -> figures, its animals, and of its training epochs, best_epoch, min_epochs; stopped_early: before min_epochs.

    told: fold -> those three; None where nothing is told. A fold that is told of and has no clips has rows 0.
    """
    found = {}
    for fold in sorted({*np.unique(scored.fold).tolist(), *map(int, told)}):
        here = scored.where(scored.fold == fold)
        known = {key: told.get(fold, {}).get(key) for key in ("epochs", "min_epochs", "best_epoch")}
        both = known["epochs"] is not None and known["min_epochs"] is not None
        early = known["epochs"] < known["min_epochs"] if both else None  # type: ignore[operator]
        found[str(fold)] = group_figures(here) | {"animals": np.unique(here.animal).tolist(), **known, "stopped_early": early}
    return found
