"""The demo trains what the measured speed lets end in time, and says why."""

from pathlib import Path

import pytest

from affect.engine.config.load import load_config
from affect.engine.crossval.trial import Trial
from affect.engine.demo.fit_budget import BUDGET_S, CANDIDATES, fit_budget, seconds_left

LEFT_S = 120.0
STEPS = 66  # of 64 pictures, as the demo packs them


def trial_at(images_per_s):
    """The measure of a machine that trains so many pictures of 64 px a second, and smaller ones faster by their area."""

    def measure(candidate):
        step_s = 64 / images_per_s * (candidate.image_size / 64) ** 2
        return Trial(64, "cpu", 2**30, step_s, validation_s=3 * step_s, steps_an_epoch=STEPS)

    return measure


@pytest.mark.parametrize("images_per_s", [150, 200, 300, 500, 1000, 100_000])
def test_the_choice_fits_the_budget(images_per_s):
    measure = trial_at(images_per_s)
    choice = fit_budget(lambda: LEFT_S, measure)
    assert choice.epochs * measure(choice.candidate).epoch_s <= LEFT_S
    assert choice.candidate.least <= choice.epochs <= choice.candidate.most
    run = load_config("demo", choice.settings)
    assert run.model.image_size == choice.candidate.image_size and run.optim.epochs == choice.epochs
    assert f"{images_per_s:,.0f} images/s" in choice.reason and "120 s are left" in choice.reason


def test_a_slower_machine_takes_fewer_epochs_then_smaller_pictures():
    chosen = [fit_budget(lambda: LEFT_S, trial_at(speed)) for speed in (1000, 260, 150)]
    assert [one.candidate for one in chosen] == [CANDIDATES[0], CANDIDATES[0], CANDIDATES[1]]
    assert chosen[0].epochs == CANDIDATES[0].most > chosen[1].epochs >= CANDIDATES[0].least


@pytest.mark.parametrize("left_s", [10.0, -5.0])
def test_where_nothing_fits_the_least_is_trained_and_that_is_said(left_s):
    choice = fit_budget(lambda: left_s, trial_at(50))
    assert choice.candidate == CANDIDATES[-1] and choice.epochs == CANDIDATES[-1].least
    assert "takes longer" in choice.reason


def test_what_was_spent_and_what_follows_is_taken_off(monkeypatch):
    monkeypatch.setattr("affect.engine.demo.fit_budget.time.monotonic", lambda: 100.0)
    assert seconds_left(began=60.0, packing_s=0.0) == BUDGET_S - 40
    assert seconds_left(began=60.0, packing_s=60.0) < BUDGET_S - 60


def test_the_demo_takes_what_fits(monkeypatch):
    """A step of each candidate until one fits, on a small set."""
    from affect.engine.demo import synthetic_demo

    monkeypatch.setattr(synthetic_demo, "try_step", lambda run, steps, validate: trial_at(1000)(run.model))
    chosen = synthetic_demo.choose_settings(Path("packed"), began=synthetic_demo.time.monotonic(), packing_s=1.0)
    assert chosen == ["model.image_size=64", "optim.epochs=8"]
