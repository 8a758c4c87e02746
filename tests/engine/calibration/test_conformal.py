"""Conformal sets hold the label as often as asked, whatever the model, and are never empty."""

import json

import numpy as np
import pytest

from affect.engine.calibration.conformal import Conformal, coverage_figures, fit_conformal, scores
from affect.engine.metrics.classification import softmax
from affect.shards.errors import InputError


def rows(count, classes=8, seed=0, sharp=2.0, wrong=0.0):
    """Probabilities of a model, and labels drawn from them; `wrong`: of a model that is not calibrated, by so much noise."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * sharp
    label = (random.random((count, 1)) > softmax(logits).cumsum(1)[:, :-1]).sum(1)
    return softmax(logits + wrong * random.normal(size=logits.shape)), label


def scores_by_hand(probs, penalty, k_reg):
    """The definition: what is ranked above a label, and the penalty of its rank."""
    found = np.zeros(len(probs))
    ranked = sorted(range(len(probs)), key=lambda i: -probs[i])
    for rank, label in enumerate(ranked, 1):
        found[label] = sum(probs[above] for above in ranked[: rank - 1]) + penalty * max(rank - k_reg, 0)
    return found


@pytest.mark.parametrize(("penalty", "k_reg"), [(0.0, 0), (0.05, 3), (1.0, 1)])
def test_scores_are_the_definition(penalty, k_reg):
    probs = np.vstack([rows(50)[0], np.full((1, 8), 1 / 8), np.eye(8)[:2]])
    assert scores(probs, penalty, k_reg) == pytest.approx(np.stack([scores_by_hand(row, penalty, k_reg) for row in probs]))


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("wrong", [0.0, 3.0])
def test_new_rows_are_covered_as_asked(coverage, wrong):
    shares, chance = [], 0.0
    for seed in range(20):
        conformal, remark = fit_conformal(*rows(1000, seed=2 * seed, wrong=wrong), coverage, "emotion", split="calib")
        probs, label = rows(4000, seed=2 * seed + 1, wrong=wrong)
        found = coverage_figures(conformal, probs, label, "abcdefgh")
        shares.append(found["coverage"])
        chance = found["chance"] / 2
        assert abs(shares[-1] - coverage) < 4 * chance and not remark and 1 < found["mean_size"] < 8
    assert abs(np.mean(shares) - coverage) < 4 * chance / np.sqrt(20)


def test_a_model_that_is_right_more_often_says_one_label():
    conformal, _ = fit_conformal(*rows(2000, sharp=20.0), 0.8, "emotion")
    found = coverage_figures(conformal, *rows(2000, sharp=20.0, seed=1), "abcdefgh")
    assert conformal.threshold == 0 and found["mean_size"] == found["one_label"] == 1 and found["coverage"] > 0.9


@pytest.mark.parametrize(
    "probs",
    [np.full((3, 5), 0.2), np.eye(5)[:3], np.array([[0.4, 0.4, 0.2, 0.0, 0.0]]), np.zeros((2, 5))],
    ids=["equal", "certain", "ties", "zeros"],
)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 2.0])
def test_sets_are_never_empty_and_grow_with_the_threshold(probs, threshold):
    sets = Conformal("emotion", 0.9, threshold, 100).sets(probs)
    assert sets[np.arange(len(probs)), probs.argmax(1)].all()
    assert (sets <= Conformal("emotion", 0.9, threshold + 0.1, 100).sets(probs)).all()


def test_ties_only_add_coverage():
    coarse = [(np.round(probs * 4) / 4 + 1e-12, label) for probs, label in (rows(1000), rows(4000, seed=1))]
    conformal, _ = fit_conformal(*coarse[0], 0.9, "emotion")
    found = coverage_figures(conformal, *coarse[1], "abcdefgh")
    assert found["coverage"] > 0.9 - 2 * found["chance"]


def test_one_class_is_its_set():
    conformal, _ = fit_conformal(np.ones((200, 1)), np.zeros(200, int), 0.9, "emotion")
    found = coverage_figures(conformal, np.ones((50, 1)), np.zeros(50, int), ["face"])
    assert found["coverage"] == found["mean_size"] == 1


@pytest.mark.parametrize(("count", "coverage"), [(1, 0.9), (8, 0.9), (18, 0.95), (3, 0.8)])
def test_too_few_rows_give_all_labels_and_a_word(count, coverage):
    conformal, remark = fit_conformal(*rows(count), coverage, "emotion")
    least = round(coverage / (1 - coverage))
    assert f"{count} rows are too few for coverage {coverage:g}" in remark and f"{least} rows are the least" in remark
    assert conformal.sets(rows(300, seed=5)[0]).all()
    enough, remark = fit_conformal(*rows(least), coverage, "emotion")
    assert "fewer than 100: the coverage of new faces may be off by" in remark and not enough.sets(rows(300, seed=5)[0]).all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 90.0, float("nan")])
def test_a_coverage_is_a_share(coverage):
    with pytest.raises(InputError, match="coverage: found .* above 0 and below 1"):
        fit_conformal(*rows(10), coverage, "emotion")


def test_without_rows_nothing_is_fitted():
    with pytest.raises(InputError, match="no labelled rows"):
        fit_conformal(np.zeros((0, 8)), np.zeros(0, int), 0.9, "emotion")


def test_classes_without_rows_have_no_figures():
    conformal, _ = fit_conformal(*rows(200), 0.9, "emotion")
    found = coverage_figures(conformal, rows(5)[0], np.zeros(5, int), "abcdefgh")["per_class"]
    assert found["a"]["rows"] == 5 and found["h"] == {"coverage": None, "mean_size": None, "rows": 0}


def test_what_is_written_is_read():
    conformal, _ = fit_conformal(*rows(200), 0.9, "emotion", split="calib")
    value = json.loads(json.dumps(conformal.to_json()))
    assert Conformal.from_json(value, "x") == conformal and "Not for frames of a video" in value["holds_for"]
    assert value["fitted_on"] == {"split": "calib", "rows": 200} and {"coverage", "threshold", "lambda", "k_reg"} < set(value)
    for broken in ({}, value | {"threshold": "high"}, value | {"fitted_on": None}):
        with pytest.raises(InputError, match="x: conformal: not readable"):
            Conformal.from_json(broken, "x")
