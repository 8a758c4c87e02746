"""The decision of the reference recipe (docs/recipes/cattle_pain.md): is a model acceptable, or must it be trained again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from affect.engine.report.criteria import criteria_table
from affect.engine.report.pain.figures import MODEL, MOMENT_MEAN, TRAIN_MEAN, Figures, pooled
from affect.engine.report.pain.out_of_fold import ACUTE_MOMENT, PainPredictions
from affect.engine.report.pain.resample import caution
from affect.engine.report.pain.state import at_cut_off, is_pain
from affect.engine.report.pain.texts import ranged, text
from affect.engine.report.render import Table, markdown
from affect.engine.tasks.spec import Criterion

Verdict = Literal["acceptable", "retrain", "undecided"]
R2 = Criterion("R2 of the total", "r2", "0.091", low=0.15)
TARGET = Criterion("R2 of the total, target", "r2", "0.091", low=0.20)
ACUTE_MAE = Criterion(f"MAE of {ACUTE_MOMENT}", "acute_mae", "3.570", high=3.0)
EPOCHS = Criterion("epochs of the shortest fold", "least_epochs", "1", low=5)
CRITERIA = (R2, TARGET, ACUTE_MAE, EPOCHS)
DECIDES = (R2, ACUTE_MAE)  # must be measured and met; EPOCHS must be met where it is known


@dataclass(frozen=True)
class Decision:
    """figures: what `CRITERIA` read, with mae, sensitivity, specificity and the baselines. text: the reasons, in a few lines."""

    verdict: Verdict
    figures: Figures
    text: str

    @property
    def table(self) -> Table:
        return criteria_table(CRITERIA, self.figures)


def decide(predictions: PainPredictions, at: float | np.ndarray | None = None, least_epochs: int | None = None) -> Decision:
    """Judge the predictions of one fold, of test animals, or of all folds pooled.

    at: the total from which a clip counts as pain, set on other clips than these: one, or one a clip (N,).
    least_epochs: of the fold that trained least.
    """
    naive = pooled(predictions.total)
    figures = naive.pop(MODEL) | {"least_epochs": least_epochs, "naive": naive}
    cuts = np.full(len(predictions), np.nan) if at is None else np.broadcast_to(np.asarray(at, np.float64), (len(predictions),))
    figures |= at_cut_off(predictions.predicted[:, -1], is_pain(predictions), cuts)
    figures["cut_off"] = sorted(set(cuts[np.isfinite(cuts)].tolist()))
    verdict = verdict_of(figures)
    return Decision(verdict, figures, "\n".join([*_because(verdict, figures), *_beside(figures), _pain(figures)]))


def verdict_of(figures: Mapping[str, Any]) -> Verdict:
    states = [_state(criterion, figures) for criterion in DECIDES]
    if False in states or _state(EPOCHS, figures) is False:
        return "retrain"
    return "undecided" if None in states else "acceptable"


def _state(criterion: Criterion, figures: Mapping[str, Any]) -> bool | None:
    """Met or not; None where it is not measured."""
    value = figures[criterion.metric]
    return None if value is None else criterion.met_by(value)


def _because(verdict: Verdict, figures: Figures) -> list[str]:
    parts = []
    for criterion in (*DECIDES, EPOCHS):
        met, value = _state(criterion, figures), figures[criterion.metric]
        shown = "not measured" if met is None else text(value, 0 if criterion is EPOCHS else 3)
        if criterion is not EPOCHS or met is not None:
            parts.append(f"{criterion.name} {shown} (expected {criterion.expected}{', missed' if met is False else ''})")
    target = ", its target too" if verdict == "acceptable" and _state(TARGET, figures) else ""
    return [f"{verdict}: {'; '.join(parts)}{target}."]


def _beside(figures: Figures) -> list[str]:
    """Return the caveats that belong to the verdict."""
    lines = [
        f"R2 {ranged(figures['r2'], figures['r2_interval'])} against the training mean, {text(figures['r2_own_mean'])} against "
        f"the mean of these {figures['rows']} clips of {figures['animals']} animals, as the reference recipe counts; "
        f"MAE {ranged(figures['mae'], figures['mae_interval'])}."
    ]
    for name in (TRAIN_MEAN, MOMENT_MEAN):
        r2, mae, acute = (text(figures["naive"][name][key]) for key in ("r2", "mae", "acute_mae"))
        lines.append(f"The {name} alone: R2 {r2}, MAE {mae}, MAE of {ACUTE_MOMENT} {acute}.")
    interval = figures["r2_interval"]
    if interval and R2.low is not None and interval[0] < R2.low <= interval[1]:
        lines.append(f"The interval of R2 has {R2.low:g} within: these animals do not settle on which side of it the model is.")
    r2_own_mean = figures["r2_own_mean"]
    if r2_own_mean is not None and figures["r2"] is not None and R2.met_by(figures["r2"]) and not R2.met_by(r2_own_mean):
        lines.append(f"Against the mean of these clips R2 is below {R2.low:g}.")
    return [*lines, *filter(None, [caution(figures["animals"])])]


def _pain(figures: Figures) -> str:
    if not figures["cut_off"]:
        return "Sensitivity and specificity: no cut-off was set."
    low, high = figures["cut_off"][0], figures["cut_off"][-1]
    where = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}, by fold,"
    return (
        f"Pain at a total of {where} or more: sensitivity {text(figures['sensitivity'])} of {figures['pain']} acute clips, "
        f"specificity {text(figures['specificity'])} of {figures['no_pain']} without pain; residual pain is in neither."
    )


def decision_text(decision: Decision) -> str:
    return "\n".join([decision.text, "", markdown(decision.table)])
