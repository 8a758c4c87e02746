"""Calibration figures against hand-worked examples and scikit-learn; the rest of the metrics is in test_parts.py."""

import numpy as np
import pytest
from sklearn import metrics as sk

from affect.engine.metrics.classification import (
    brier,
    classification,
    ece,
    nll,
    reliability,
    reliability_bins,
    softmax,
)

NAMES = tuple("abcd")


def rows(count=500, seed=0, hard=True):
    """Logits and targets that have something to do with each other."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, 4)) * 2
    target = random.dirichlet(np.ones(4) / 2, count)
    target[:, 0] += softmax(logits)[:, 0]
    target /= target.sum(1, keepdims=True)
    return logits, np.eye(4)[target.argmax(1)] if hard else target


def test_ece_by_hand():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    right = np.array([1, 0, 1, 1])
    # five bins (lo, hi]: .55 in (.4, .6], .7 and .8 in (.6, .8], .9 in (.8, 1]
    want = (abs(1 - 0.55) + 2 * abs(0.5 - 0.75) + abs(1 - 0.9)) / 4
    assert ece(probs, right, bins=5) == pytest.approx(want)
    votes = np.array([0.9, 0.6, 0.9, 0.55])  # what the predicted class got: mean .75 in the second bin
    assert ece(probs, votes, bins=5) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("bins", [4, 5, 10, 15])
def test_an_edge_belongs_to_the_bin_below_it(bins):
    edges = np.arange(1, bins + 1) / bins
    found = reliability_bins(np.stack([edges, np.zeros(bins)], 1), np.ones(bins), bins)
    assert found["count"].tolist() == [1] * bins
    assert found["confidence"] == pytest.approx(edges)


def test_empty_bins_count_nothing():
    found = reliability_bins(np.array([[1.0, 0.0]]), np.array([1]))
    assert found["count"].tolist() == [0] * 14 + [1] and not found["agreement"][:14].any()
    assert ece(np.array([[1.0, 0.0]]), np.array([1])) == 0


def test_brier_by_hand():
    probs = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    assert brier(probs, np.eye(3)[[0, 1]]) == pytest.approx((0.09 + 0.04 + 0.01 + 1 + 1) / 2)
    assert brier(probs, probs) == 0


def test_reliability_is_sklearns():
    logits, target = rows()
    got, label, predicted = reliability(logits, target, NAMES), target.argmax(1), logits.argmax(1)
    assert got["rows"] == 500
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(label, predicted))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(label, predicted, average="macro"))
    assert list(got["per_class_f1"].values()) == pytest.approx(sk.f1_score(label, predicted, average=None))
    assert got["bacc"] == pytest.approx(sk.balanced_accuracy_score(label, predicted))
    assert got["nll"] == pytest.approx(sk.log_loss(label, softmax(logits)))
    each = [sk.brier_score_loss(label == c, softmax(logits)[:, c]) for c in range(4)]
    assert got["brier"] == pytest.approx(sum(each))


def test_present_only_averages_the_classes_that_occur():
    label, predicted = [0, 0, 1, 1, 1], [0, 2, 1, 1, 0]  # no row is a c, one is taken for it
    logits, target = 9 * np.eye(3)[predicted], np.eye(3)[label]
    # a: 1 hit, 1 missed, 1 false: 2/4; b: 2 hits, 1 missed: 4/5; c: 1 false: 0
    source, overall = reliability(logits, target, "abc", present_only=True), reliability(logits, target, "abc")
    assert source["macro_f1"] == pytest.approx((0.5 + 0.8) / 2) and source["macro_f1_classes"] == 2
    assert source["per_class_f1"] == pytest.approx({"a": 0.5, "b": 0.8})
    assert overall["macro_f1"] == pytest.approx((0.5 + 0.8) / 3) and overall["macro_f1_classes"] == 3
    assert overall["per_class_f1"] == pytest.approx({"a": 0.5, "b": 0.8, "c": 0})
    of_f1 = {"macro_f1", "macro_f1_classes", "per_class_f1"}
    assert {name for name in source if source[name] != overall[name]} == of_f1 and overall["accuracy"] == 0.6


def test_votes_and_majority_are_one_where_labels_are_hard():
    got = reliability(*rows(), NAMES)
    assert (got["nll"], got["ece"], got["brier"]) == (got["nll_majority"], got["ece_votes"], got["brier_votes"])


def test_shares_of_votes_are_honest_about_votes_only():
    _, target = rows(hard=False)
    got = reliability(np.log(target), target, NAMES)  # predicts exactly the votes
    assert got["accuracy"] == 1 and got["ece_votes"] == pytest.approx(0, abs=1e-12) and got["brier_votes"] < 1e-12
    assert got["ece"] > 0.1 and got["brier"] > 0.1 and got["nll_majority"] < got["nll"]


def test_large_logits_stay_finite():
    logits, target = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert nll(logits, target) == pytest.approx(1e4)
    assert all(np.isfinite(value) for value in reliability(logits, target, "ab").values() if not isinstance(value, dict))


def test_present_only_counts_every_row():
    logits, target = rows()
    target[:, 2] = 0
    target[:, 3] += 1e-9
    found = classification(logits, target, NAMES)["present_only"]
    assert np.array(found["confusion"]).shape == (3, 3) and np.sum(found["confusion"]) == 500


def test_minority_classes_occur_in_fewer_rows_than_half_an_equal_share():
    label = np.repeat([0, 1, 2], [15, 3, 2])  # of four classes: an equal share is 5 rows, half of it 2.5
    found = classification(np.eye(4)[label], np.eye(4)[label], "abcd")
    assert found["minority"] == ["c"] and found["per_class"]["c"] == {"f1": 1.0, "support": 2}


def test_present_only_by_hand():
    """Classes a, b, c; no row is a c, but c is the largest logit of the second row."""
    logits = np.array([[3.0, 1, 0], [1, 2, 5], [2, 1, 0], [0, 1, 0]])
    found = classification(logits, np.eye(3)[[0, 0, 1, 1]], "abc")
    # among all: a, c, a, b -> 2 of 4; recall a 1/2, b 1/2; F1 a 2/(2+2), b 2/(2+1), c 0
    assert found["3way"] == pytest.approx({"acc": 0.5, "macro_f1": (1 / 2 + 2 / 3) / 3, "bacc": 0.5})
    # among a and b: a, b, a, b -> rows 1 and 4 right; F1 a 2/(2+2), b 2/(2+2)
    present = found["present_only"]
    assert (present["acc"], present["macro_f1"], present["bacc"]) == (0.5, 0.5, 0.5) and present["masked"] is True
    assert present["confusion"] == [[1, 1], [1, 1]]
    assert (present["present_idx"], present["present_names"]) == ([0, 1], ["a", "b"])
    logits[1] = [2, 1, 5]  # without c an a
    present = classification(logits, np.eye(3)[[0, 0, 1, 1]], "abc")["present_only"]
    assert present["confusion"] == [[2, 0], [1, 1]]
    assert (present["acc"], present["bacc"]) == (0.75, 0.75) and present["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
