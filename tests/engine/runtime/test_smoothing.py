"""Smoothing goes by seconds, not by frames; labels do not flicker."""

import numpy as np
import pytest

from affect.engine.runtime.smoothing import OFF, Event, Events, Smoother, Smoothing
from affect.shards.errors import InputError

SAD, HAPPY = np.array([0.8, 0.2]), np.array([0.1, 0.9])


DEFAULT = Smoothing()


def run(values, times, kind="classes", smoothing=DEFAULT, **options):
    smoother = Smoother(kind, smoothing, **options)
    return [smoother.step(np.asarray(value), time) for value, time in zip(values, times, strict=True)]


def changed_at(steps, times):
    labels = [labels for _, labels in steps]
    return [time for time, a, b in zip(times[1:], labels, labels[1:], strict=False) if a != b]


@pytest.mark.parametrize("rate_hz", [10, 25, 30, 60, 240])
def test_a_change_is_seen_at_the_same_time_at_any_frame_rate(rate_hz):
    times = np.arange(0, 3, 1 / rate_hz)
    steps = run([SAD if time < 1 else HAPPY for time in times], times)
    (seen_s,) = changed_at(steps, times)
    assert 1.2 <= seen_s <= 1.5  # within half a second, never before it has held
    after = steps[int(np.searchsorted(times, 1.5))]
    held = times[int(np.searchsorted(times, 1.5))] - times[int(np.searchsorted(times, 1.0)) - 1]
    want = HAPPY + (SAD - HAPPY) * np.exp(-held / 0.15)
    assert after[0] == pytest.approx(want, abs=1e-6)


def test_uneven_times_are_taken_as_they_are():
    times = [0.0, 0.1, 0.11, 0.4, 0.4, 0.39, 1.0]
    (mean, _) = run([SAD, *[HAPPY] * 6], times)[-1]
    assert mean == pytest.approx(HAPPY + (SAD - HAPPY) * np.exp(-1.0 / 0.15), abs=1e-5)


def test_hysteresis_and_duration_stop_the_flicker():
    times = np.arange(0, 10, 0.04)
    random = np.random.default_rng(0)
    noise = 0.5 + 0.08 * random.standard_normal(len(times))
    values = np.stack([noise, 1 - noise], 1)
    assert len(changed_at(run(values, times, smoothing=OFF), times)) > 60
    assert len(changed_at(run(values, times), times)) <= 1
    short = [HAPPY if 1 <= time < 1.15 else SAD for time in times]
    assert not changed_at(run(short, times), times)
    assert len(changed_at(run(short, times, smoothing=OFF), times)) == 2


def test_off_gives_back_what_came():
    values = np.random.default_rng(0).dirichlet(np.ones(4), 50)
    steps = run(values, np.arange(50) / 25, smoothing=OFF)
    assert np.allclose([mean for mean, _ in steps], values) and [label for _, (label,) in steps] == values.argmax(1).tolist()


def test_units_have_a_threshold_each_with_room_on_both_sides():
    times = np.arange(0, 4, 0.04)
    values = [[0.52, 0.52, 0.9 if 1 <= time < 2 else 0.1] for time in times]
    steps = run(values, times, "multilabel", thresholds=np.array([0.5, 0.6, 0.5]))
    assert {labels for _, labels in steps} == {(0,), (0, 2)}
    on, off = changed_at(steps, times)
    assert 1.2 <= on <= 1.5 and 2.2 <= off <= 2.5


def test_scalars_have_no_labels_and_a_bad_frame_changes_nothing():
    steps = run([[3.0], [np.nan], [3.0]], [0.0, 0.1, 0.2], "scalars")
    assert [labels for _, labels in steps] == [(), (), ()] and steps[-1][0][0] == pytest.approx(3.0)


@pytest.mark.parametrize("wrong", [{"tau_s": -1}, {"margin": float("nan")}, {"hold_s": float("inf")}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=f"smoothing: {next(iter(wrong))}: found"):
        Smoothing(**wrong)


def test_events_and_flips_of_tracks():
    events, ended = Events(), []
    for i in range(100):  # 4 s at 25 fps
        time_s = i / 25
        ended += events.step(0, ["sad"] if time_s < 1 else ["happy"], time_s)
        if 1 <= time_s <= 2:
            ended += events.step(1, ["AU1", "AU2"] if time_s < 1.6 else ["AU2"], time_s)
    ended += events.end([1, 7])
    assert set(ended) == {Event(0, "sad", 0.0, 1.0), Event(1, "AU1", 1.0, 1.6), Event(1, "AU2", 1.0, 2.0)}
    assert events.end() == [Event(0, "happy", 1.0, 3.96)] and events.end() == []
    assert events.flips == 2 and events.flips_per_minute == pytest.approx(60 * 2 / (3.96 + 1.0))
    assert Events().flips_per_minute == 0
