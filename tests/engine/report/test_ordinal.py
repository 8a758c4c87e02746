"""Scores of ordered levels, and the motion in a clip as the plainest of them."""

import csv

import av
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from affect.engine.report.motion import AFTER, BASELINES, BEFORE, FIRST_SECOND, RATIO, frame_differences, motion_scores
from affect.engine.report.ordinal import (
    OTHERS_MEAN,
    Score,
    Trials,
    auc,
    in_levels,
    interval,
    ordinal_figures,
    ordinal_report,
    ordinal_table,
    per_animal_table,
    permutation_p,
    spearman,
)
from affect.engine.report.render import markdown
from affect.shards.errors import InputError


def trials(animals=4, each=30, seed=0):
    """(Trials, values that rise with the level, and differ by animal)."""
    random = np.random.default_rng(seed)
    level = np.tile(np.arange(each) % 5, animals)
    animal = np.repeat([f"m{i}" for i in range(animals)], each)
    values = np.round(level + random.normal(0, 1.5, level.shape) + np.repeat(np.arange(animals), each), 1)
    return Trials(level, animal), values


def test_weighted_figures_are_those_of_trials_written_out_again():
    given, values = trials()
    random = np.random.default_rng(2)
    count = random.multinomial(120, np.full(120, 1 / 120), size=5)
    for row, rho, area in zip(count, spearman(count, values, given.level), auc(count, values, given.level >= 3), strict=True):
        rows = np.repeat(np.arange(120), row)
        assert rho == pytest.approx(spearmanr(values[rows], given.level[rows]).statistic)
        assert area == pytest.approx(roc_auc_score(given.level[rows] >= 3, values[rows]))


def test_figures_of_all_and_of_each_animal():
    given, values = trials()
    found = ordinal_figures(given, Score("a", values))
    pair = (given.level == 0) | (given.level >= 3)
    assert found["spearman"] == pytest.approx(spearmanr(values, given.level).statistic)
    assert found["auc"] == pytest.approx(roc_auc_score(given.level[pair] > 0, values[pair]))
    assert found["mae"] == pytest.approx(np.abs(values - given.level).mean())
    own = given.animal == "m2"
    assert found["per_animal"]["m2"]["spearman"] == pytest.approx(spearmanr(values[own], given.level[own]).statistic)
    for key in ("spearman", "mae", "auc"):
        low, high = found[f"{key}_trials"]
        assert low < found[key] < high
    assert found["p"] == pytest.approx(2 / 2001)


def test_trials_are_drawn_within_animals_and_animals_as_a_whole():
    animal = np.array(["a"] * 3 + ["b"] * 5)
    seen = []
    interval(animal, "trials", lambda count: seen.append(count) or count[:, 0], resamples=150)
    assert sum(map(len, seen)) == 150 and all((c[:, :3].sum(1) == 3).all() and (c[:, 3:].sum(1) == 5).all() for c in seen)
    seen.clear()
    interval(animal, "animals", lambda count: seen.append(count) or count[:, 0], resamples=50)
    assert (seen[0][:, :1] == seen[0][:, :3]).all() and (seen[0][:, 0] + seen[0][:, 3] == 2).all()


def test_p_is_flat_where_nothing_is_said_and_blind_to_what_animals_differ_in():
    random, given = np.random.default_rng(1), trials()[0]
    p = [permutation_p(random.normal(size=120), given.level, given.animal, 199, seed) for seed in range(60)]
    assert 0.3 < np.mean(p) < 0.7 and min(p) > 0.002
    level = given.level + 10 * np.repeat(np.arange(4), 30)  # animals differ in level and in value, by chance within
    values = random.normal(size=120) + 10 * np.repeat(np.arange(4), 30)
    assert spearmanr(values, level).statistic > 0.9 and permutation_p(values, level, given.animal) > 0.02
    assert permutation_p(-given.level * 1.0, given.level, given.animal) == pytest.approx(2 / 2001)


def test_other_units_become_levels_by_the_other_animals():
    given, values = trials()
    found = in_levels(values, given.level.astype(float), given.animal)
    assert in_levels(np.exp(values), given.level.astype(float), given.animal) == pytest.approx(found, abs=0.02)  # by the order
    changed = np.where(given.animal == "m1", 0, given.level).astype(float)
    own = given.animal == "m1"
    assert (in_levels(values, changed, given.animal)[own] == found[own]).all()


def test_scores_stand_beside_baseline_and_control():
    given, values = trials()
    found = ordinal_report(
        given, [Score("model", values), Score("motion", values**3, in_levels=False)], [Score("before", values[::-1], False)]
    )
    assert list(found) == ["model", "motion", OTHERS_MEAN, "before"]
    assert found[OTHERS_MEAN]["mae"] == pytest.approx(1.2) and found[OTHERS_MEAN]["spearman"] is None
    text = markdown(ordinal_table(found)) + markdown(per_animal_table(found))
    assert "before (control)" in text and "fitted on the other animals" in text and "Only 4 animals" in text
    with pytest.raises(InputError, match="one name"):
        ordinal_report(given, [Score("a", values), Score("a", values)])


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("level", "animal", "values"),
    [
        ([2], ["a"], [1.0]),
        ([0, 1, 2, 3], list("aaaa"), [1.0, 2, 3, 4]),
        ([3, 3, 3], list("abb"), [1.0, 2, 3]),
        ([0, 3, 4], list("abc"), [1.0, 1, 1]),
        ([0, 3, 4], list("abc"), [np.nan] * 3),
        ([0, 3, 4], list("abc"), [np.inf, 1, np.nan]),
        ([1, 2, 1, 2], list("aabb"), [1e300, -1e300, 0, 1]),
    ],
)
def test_the_worst_scores_have_figures(level, animal, values):
    given = Trials(np.array(level), np.array(animal))
    found = ordinal_report(given, [Score("a", np.array(values)), Score("b", np.array(values), in_levels=False)])
    text = markdown(ordinal_table(found)) + markdown(per_animal_table(found))
    assert "nan" not in text
    assert found["a"]["left_out"] == (~np.isfinite(values)).sum()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Trials(np.array([]), np.array([])),
        lambda: Trials(np.array([1, 2]), np.array(["a"])),
        lambda: Trials(np.array([1, np.nan]), np.array(["a", "b"])),
        lambda: ordinal_figures(trials()[0], Score("short", np.zeros(3))),
        lambda: motion_scores([np.zeros((2, 2), np.uint8)] * 3, [0, 1], 1),
        lambda: motion_scores([np.zeros((2, 2), np.uint8)] * 3, [0, 1, 1], 1),
        lambda: frame_differences([np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)]),
    ],
)
def test_what_does_not_fit_is_refused(make):
    with pytest.raises(InputError):
        make()


def test_motion_is_of_frames_on_one_side_of_the_stimulus():
    steps = [1, 2, 3, 50, 10, 20, 30, 40]  # of nine frames; the fourth leads into the stimulus
    frames = [np.full((4, 4, 3), value, np.uint8) for value in np.cumsum([0, *steps])]
    found = motion_scores(iter(frames), np.arange(9, dtype=np.float32) * np.float32(0.5), 2.0)
    assert found == {AFTER: 25, FIRST_SECOND: 15, RATIO: 12.5, BEFORE: 2}
    still = motion_scores(frames[:1] * 9, np.arange(9) * 0.5, 2.0)
    assert still[AFTER] == 0 and np.isnan(still[RATIO])
    assert np.isnan(list(motion_scores(frames[:1], [0.0], 0.0).values())).all()
    assert frame_differences([np.full((1, 1), 250, np.uint8), np.full((1, 1), 5, np.uint8)]).tolist() == [245]


@pytest.mark.slow
def test_motion_ranks_the_shocks_of_real_mice(real):
    rows = list(csv.DictReader((real / "mouse" / "labels.csv").open()))
    found = []
    for row in rows:
        with av.open(str(real / "mouse" / row["clip"])) as container:
            frames = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
        times, pictures = zip(*frames, strict=True)
        found.append(motion_scores(pictures, times, int(row["trigger_first_frame"]) / float(row["fps"])))
    given = Trials(np.array([int(row["intensity"]) for row in rows]), np.array([row["subject"] for row in rows]))
    scores = [Score(name, np.array([each[name] for each in found]), in_levels=False) for name in (*BASELINES, BEFORE)]
    figures = ordinal_report(given, scores[:3], scores[3:])
    areas = [figures[name]["auc"] for name in BASELINES]
    assert areas == pytest.approx([0.912, 0.937, 0.958], abs=0.0006)  # as ../shared/data/README.md says
    assert [figures[name]["spearman"] for name in BASELINES] == pytest.approx([0.74] * 3, abs=0.02)
    assert figures[BEFORE]["auc"] < 0.45  # the order of trials: what was before says something, and the other way round
