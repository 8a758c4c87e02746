"""Temperatures are found where they are known, and every hostile input ends in a finite T or one message."""

import json

import numpy as np
import pytest

from affect.engine.calibration.calibration import FLOOR, Calibration, fixed
from affect.engine.calibration.temperature import fit_temperature
from affect.engine.metrics.classification import nll, softmax
from affect.shards.errors import InputError

NAMES = ("anger", "fear", "happiness", "contempt")


def drawn(logits, temperature, seed=0):
    """One-hot labels drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(seed)
    cumulative = softmax(logits / np.array(temperature)).cumsum(1)
    return np.eye(logits.shape[1])[(random.random((len(logits), 1)) > cumulative[:, :-1]).sum(1)]


def gaussian(count=40_000, scale=3.0, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 4)) * scale


def cosines(count=40_000, seed=2):
    """Logits of an ArcFace head: 30 times the cosines of random features with four directions."""
    random = np.random.default_rng(seed)
    features, weight = random.normal(size=(count, 6)), random.normal(size=(6, 4))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return 30 * unit @ (weight / np.linalg.norm(weight, axis=0))


@pytest.mark.parametrize("true", [0.05, 0.5, 1.0, 3.0, 400.0])
def test_a_known_temperature_is_found(true):
    logits = gaussian() * true
    found = fit_temperature(logits, drawn(logits, true), NAMES, "global", split="val")
    assert found.temperature == pytest.approx((true,), rel=0.03)
    assert found.fitted_on == {"split": "val", "rows": 40_000} and not found.at_bound and not found.note


def test_the_seeds_ceiling_is_gone():
    logits = cosines()
    found = fit_temperature(logits, drawn(logits, 9.0), NAMES, "global")
    assert found.temperature == pytest.approx((9.0,), rel=0.05)


def test_shares_of_votes_give_the_exact_temperature():
    logits = gaussian(300)
    assert fit_temperature(logits, softmax(logits / 3), NAMES, "global").temperature == pytest.approx((3.0,), rel=1e-6)


def test_a_temperature_for_each_class_is_found():
    true, logits = (0.7, 1.5, 3.0, 6.0), gaussian()
    found = fit_temperature(logits, drawn(logits, true), NAMES, "vector")
    assert found.temperature == pytest.approx(true, rel=0.1)
    assert found.names == NAMES and found.nll_after < fit_temperature(logits, drawn(logits, true), NAMES, "global").nll_after


def test_the_optimum_is_the_best_of_a_grid():
    logits = gaussian(300, scale=5.0)
    target = drawn(logits, 2.5)
    grid = [nll(logits / t, target) for t in np.geomspace(0.1, 50, 500)]
    assert fit_temperature(logits, target, NAMES, "global").nll_after <= min(grid)


@pytest.mark.parametrize("mode", ["global", "vector"])
@pytest.mark.parametrize("seed", range(5))
def test_fitted_rows_never_get_worse(mode, seed):
    logits = gaussian(40, scale=10.0 ** (seed - 2), seed=seed)
    target = np.eye(4)[np.random.default_rng(seed).integers(0, 3, 40)]
    found = fit_temperature(logits, target, NAMES, mode)
    assert found.nll_after <= found.nll_before and np.isfinite(found.temperature).all()
    assert found.nll_after == pytest.approx(nll(found.apply(logits), target))
    assert found.note.startswith("fitted on 40 rows, fewer than 100")
    assert mode == "vector" or (found.apply(logits).argmax(1) == logits.argmax(1)).all()


def test_a_class_without_rows_keeps_the_temperature_of_all(capsys):
    logits = gaussian(2000)
    logits[:, 3] -= 100
    target = drawn(logits, 2.0)
    one, each = (fit_temperature(logits, target, NAMES, mode) for mode in ("global", "vector"))
    assert each.temperature[3] == one.temperature[0] != each.temperature[0]
    assert each.note.startswith("no rows of contempt") and each.note in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["global", "vector"])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_all_right_ends_at_the_bound(mode, scale, capsys):
    target = np.eye(4)[np.arange(200) % 4]
    found = fit_temperature(scale * target, target, NAMES, mode)
    assert found.temperature == pytest.approx((FLOOR,) * len(found.temperature)) and found.at_bound
    assert "ended at its bound, 0.01" in found.note and "ended at its bound" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["global", "vector"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_all_wrong_ends_finite_and_says_so(mode, scale):
    target = np.eye(4)[np.arange(200) % 4]
    found = fit_temperature(-scale * target, target, NAMES, mode)
    assert np.isfinite(found.temperature).all() and found.at_bound and "no finite best value" in found.note
    assert found.nll_after == pytest.approx(np.log(4), abs=1e-3)


@pytest.mark.parametrize("mode", ["global", "vector"])
@pytest.mark.parametrize("seed", [*range(10), 34, 141])  # in the last two the line search of LBFGS divides zero by zero
def test_odd_scales_and_offsets_end_finite_and_no_worse(mode, seed):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(2, 8)) * 10.0 ** random.uniform(-4, 5) + 10.0 ** random.uniform(-2, 4)
    for target in (np.eye(8)[[4, 4]], np.eye(8)[logits.argmax(1)], random.dirichlet(np.ones(8), 2)):
        found = fit_temperature(logits, target, tuple("abcdefgh"), mode)
        assert np.isfinite(found.temperature).all() and min(found.temperature) >= 0.999 * FLOOR
        assert found.nll_after <= found.nll_before + 1e-9


@pytest.mark.parametrize("mode", ["global", "vector"])
def test_nothing_to_fit_leaves_one(mode):
    target = np.eye(4)[np.arange(200) % 4]
    constant = fit_temperature(np.full((200, 4), 7.0), target, NAMES, mode)
    empty = fit_temperature(np.zeros((0, 4)), np.zeros((0, 4)), NAMES, mode)
    assert constant.temperature == empty.temperature == (1.0,) and constant.mode == empty.mode == "none"
    assert "no T changes them" in constant.note and "no labelled rows" in empty.note


def test_rows_that_are_not_finite_are_counted():
    logits, target = gaussian(200), np.eye(4)[np.arange(200) % 4]
    logits[[3, 5], 1] = np.nan, np.inf
    with pytest.raises(InputError, match="2 of 200 rows have logits that are not finite"):
        fit_temperature(logits, target, NAMES, "global")
    target[7] = np.nan
    with pytest.raises(InputError, match="1 of 200 rows have targets"):
        fit_temperature(gaussian(200), target, NAMES, "global")


@pytest.mark.parametrize("mode", ["global", "vector"])
def test_the_file_gives_back_what_was_written(mode):
    logits = gaussian(500)
    found = fit_temperature(logits, drawn(logits, 2.0), NAMES, mode, split="calib")
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert (found.to_json()["global_temperature"] is None) == (mode == "vector")


def test_the_seeds_file_is_read():
    seeds = {"mode": "global", "global_temperature": 5.0, "temperature_vector": None, "note": ""}
    assert Calibration.from_json(seeds) == Calibration("global", (5.0,))
    assert fixed(2).apply(np.array([[4.0, 2.0]])).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "not a calibration"),
        ({"mode": "global"}, "not a calibration.*global_temperature"),
        ({"mode": "warm", "global_temperature": 1}, "found 'warm', expected none, global"),
        ({"mode": "fixed", "global_temperature": 0}, "found 0, expected a number of at least 0.01"),
        ({"mode": "vector", "temperature_vector": [1, float("nan")]}, "found nan"),
    ],
)
def test_a_broken_file_is_one_message(value, message):
    with pytest.raises(InputError, match=message):
        Calibration.from_json(value)


def test_another_models_temperatures_are_refused():
    with pytest.raises(InputError, match="2 temperatures .a, b., logits of 4 classes"):
        Calibration("vector", (1.0, 2.0), ("a", "b")).apply(gaussian(3))


def test_logits_keep_their_dtype():
    assert fixed(3.0).apply(np.ones((2, 4), np.float32)).dtype == np.float32
