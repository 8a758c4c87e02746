"""Figures, thresholds and losses of units that hold or do not, and the numbers of scalars."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, r2_score, roc_auc_score

from affect.engine.config.loss import AuConfig
from affect.engine.losses.cross_entropy import focal
from affect.engine.losses.multilabel import positive_weights
from affect.engine.metrics.multilabel import auc, sigmoid, tuned_thresholds, unit_figures
from affect.engine.metrics.output_metrics import all_figures
from affect.engine.metrics.regression import scalar_figures
from affect.shards.schema import Output

NAMES = ("AU1", "AU12", "AU45")


def units(count=300, seed=0):
    """Logits in steps, so that scores are equal; AU45 never holds; every fifth row has no labels."""
    random = np.random.default_rng(seed)
    logits = np.round(random.normal(size=(count, 3)), 1).astype(np.float32)
    target = (logits + random.normal(size=(count, 3)) > 0.5).astype(np.float32)
    target[:, 2] = 0
    target[::5] = np.nan
    return logits, target


def test_units_have_sklearns_figures_and_one_that_never_holds_is_not_averaged():
    logits, target = units()
    found, keep = unit_figures(logits, target, NAMES, {"AU12": 0.4}), ~np.isnan(target[:, 0])
    for i, (name, at) in enumerate((("AU1", 0.5), ("AU12", 0.4))):
        unit, probs = found["units"][name], sigmoid(logits[keep, i])
        assert unit["f1"] == pytest.approx(f1_score(target[keep, i], probs >= at))
        assert unit["auc"] == pytest.approx(roc_auc_score(target[keep, i], probs))
        assert (unit["support"], unit["rows"], unit["threshold"]) == (target[keep, i].sum(), 240, at)
    assert found["macro_f1"] == pytest.approx((found["units"]["AU1"]["f1"] + found["units"]["AU12"]["f1"]) / 2)
    assert found["units"]["AU45"]["auc"] is None and found["never_positive"] == ["AU45"] and found["macro_units"] == 2


def test_the_tuned_threshold_is_the_best_of_all_and_half_where_positives_are_few():
    logits, target = units()
    found, keep = tuned_thresholds(logits, target, NAMES), ~np.isnan(target[:, 0])
    probs = sigmoid(logits[keep, 0])
    best = max(f1_score(target[keep, 0], probs >= at) for at in np.unique(probs))
    assert f1_score(target[keep, 0], probs >= found["AU1"]) == pytest.approx(best)
    assert found["AU45"] == 0.5
    few = target.copy()
    few[np.flatnonzero(few[:, 1] == 1)[19:], 1] = 0
    assert tuned_thresholds(logits, few, NAMES)["AU12"] == 0.5


@pytest.mark.parametrize("holds", [[True, True], [False, False], []])
def test_no_area_without_both_kinds(holds):
    assert auc(np.zeros(len(holds)), np.array(holds, bool)) is None


def test_scalars_have_sklearns_figures_and_missing_ones_are_left_out():
    random = np.random.default_rng(0)
    true, said = random.normal(size=(50, 2)), random.normal(size=(50, 2))
    true[::3, 1] = np.nan
    keep = ~np.isnan(true[:, 1])
    found = scalar_figures(said, true, ("a", "total"))
    of = found["scalars"]["total"]
    assert of["r2"] == pytest.approx(r2_score(true[keep, 1], said[keep, 1])) and of["rows"] == keep.sum()
    assert of["pearson"] == pytest.approx(pearsonr(true[keep, 1], said[keep, 1])[0])
    assert found["r2"] == pytest.approx((found["scalars"]["a"]["r2"] + of["r2"]) / 2)
    constant = scalar_figures(said, np.ones((50, 2)), ("a", "total"))["scalars"]["a"]
    assert constant["r2"] is None and constant["pearson"] is None and constant["mae"] > 0


def test_figures_of_further_outputs_carry_their_name():
    logits, target = units()
    emotion = Output("emotion", "classes", ("x", "y"))
    label = np.r_[1, np.zeros(len(logits) - 1, int)]  # y is rare
    outputs = [emotion, Output("au", "multilabel", NAMES), Output("pain", "scalars", ("a", "b", "total"))]
    values = {"emotion": logits[:, :2], "au": logits, "pain": logits}
    targets = {"emotion": np.eye(2)[label], "au": target, "pain": np.full_like(target, np.nan)}
    found = all_figures(outputs, values, targets)
    assert set(found) == {"accuracy", "macro_f1", "bacc", "nll", "min_f1", "f1.y", "au_macro_f1", "au_macro_auc"}
    assert all_figures([outputs[2]], values, {"pain": target})["total_mae"] > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_is_cross_entropy_at_gamma_0_and_the_formula_above(smoothing):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 4, generator=random, requires_grad=True)
    target, weight = F.one_hot(torch.arange(9) % 4, 4).float(), torch.rand(9, generator=random)
    classes = torch.tensor([1.0, 2.0, 0.5, 1.0])
    plain = F.cross_entropy(logits, target.argmax(1), classes, label_smoothing=smoothing, reduction="none")
    assert torch.allclose(focal(logits, target, weight, 0.0, classes, smoothing), (plain * weight).sum(), rtol=1e-5)
    p = logits.softmax(1)
    want = -((1 - p.gather(1, target.argmax(1, keepdim=True))) ** 2) * p.gather(1, target.argmax(1, keepdim=True)).log()
    if not smoothing:
        assert torch.allclose(focal(logits, target, torch.ones(9), 2.0, None, 0.0), want.sum(), rtol=1e-5)
    sure = torch.tensor([[60.0, 0.0, 0.0, 0.0]], requires_grad=True)  # p = 1 in float32
    (slope,) = torch.autograd.grad(focal(sure, target[:1], torch.ones(1), 0.5, None, 0.0), sure)
    assert slope.isfinite().all()


def test_positive_weights_are_ratios_within_their_bounds():
    target = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, np.nan], [0, 0, 1, 0]], np.float32)
    assert positive_weights(target, 2.5).tolist() == [2.5, 1, 1, 2]


@pytest.mark.parametrize(("epoch", "ramp"), [(0, 0), (9, 0), (10, 1 / 11), (19, 10 / 11), (20, 1), (30, 1)])
def test_the_units_come_later_where_asked(epoch, ramp):
    assert AuConfig(from_epoch=10, full_epoch=20).ramp_at(epoch) == pytest.approx(ramp)
    assert AuConfig().ramp_at(epoch) == 1
