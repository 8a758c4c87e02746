"""The pain report: each figure by hand or by another implementation, and the worst inputs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, mean_absolute_error, r2_score

from affect.engine.report.pain import out_of_fold as pain_predictions
from affect.engine.report.pain import report as pain_report
from affect.engine.report.pain.agreement import icc
from affect.engine.report.pain.compare import compare, comparison_table
from affect.engine.report.pain.decision import decide
from affect.engine.report.pain.ensemble import aligned, gated, mean_of, specialist_rows, with_specialist, with_true_moment
from affect.engine.report.pain.figures import by_feature, by_fold, by_group, pooled
from affect.engine.report.pain.out_of_fold import PainPredictions, concat, load
from affect.engine.report.pain.report import FIGURES, PLOTS, TEXT, report
from affect.engine.report.pain.resample import animal_interval
from affect.engine.report.pain.state import at_cut_off, cut_off, is_pain, other_folds_cut_offs, state_figures
from affect.engine.report.render import markdown
from affect.shards.errors import InputError
from affect.shards.sources.pain import FEATURES, STATE

MEANS = {"M0": 1.8, "M1": 2.5, "M2": 6.3, "M3": 3.8, "M4": 3.2}
SHRINK = np.linspace(1, 0.2, 8)


def make(clips=200, animals=20, folds=9, seed=0, noise=1.0, moments=tuple(MEANS)):
    """Predictions that know the moment's mean and part of the rest; features are sevenths of the total."""
    random = np.random.default_rng(seed)
    number = np.arange(clips) % animals
    moment = np.array(moments)[np.arange(clips) // animals % len(moments)]
    mean = np.array([MEANS[name] for name in moment])
    total = (mean + random.normal(0, 1, clips)).clip(0, 14)
    target = np.concatenate([np.repeat(total[:, None] / 7, 7, 1), total[:, None]], 1)
    predicted = target + random.normal(0, noise, target.shape) * ([1 / 7] * 7 + [1])
    fold = number % folds
    train_mean = np.stack([target[fold != k].mean(0) if (fold != k).any() else target.mean(0) for k in fold])
    by_moment = np.stack([
        target[(fold != k) & (moment == m)].mean(0) if ((fold != k) & (moment == m)).any() else np.full(8, np.nan)
        for k, m in zip(fold, moment, strict=True)
    ])  # fmt: skip
    state = np.array([{"M0": 0, "M1": 0, "M2": 1}.get(name, 2) for name in moment])
    probs = random.dirichlet(np.ones(3), clips) * 0.4 + 0.6 * np.eye(3)[state]
    animal = np.array([f"cow{n:02d}" for n in number])
    return PainPredictions(
        np.arange(clips) * 3, fold, animal, moment, (*FEATURES, "total"), target, predicted, state, probs, train_mean, by_moment
    )


def with_totals(predictions, total):
    """The same with other predictions of the total."""
    return replace(predictions, predicted=np.concatenate([predictions.predicted[:, :-1], np.asarray(total, float)[:, None]], 1))


def test_predictions_come_back_as_they_were_saved(tmp_path):
    predictions = make(clips=30)
    predictions = replace(predictions, target=np.where(np.arange(30)[:, None] == 4, np.nan, predictions.target))
    predictions.save(tmp_path / "answers")  # the very name, without .npz at its end
    back = load(tmp_path / "answers")
    for name in ("sample", "fold", "animal", "moment", "target", "predicted", "state", "state_probs", "train_mean"):
        np.testing.assert_array_equal(getattr(back, name), getattr(predictions, name))
    assert back.names == predictions.names and len(back.where(back.fold == 0)) == (predictions.fold == 0).sum()
    replace(predictions, animal=predictions.animal.astype(object)).save(tmp_path / "objects")
    assert load(tmp_path / "objects").animal.tolist() == predictions.animal.tolist()
    parts = [back.where(back.fold == k) for k in range(9)]
    assert sorted(concat(parts).sample.tolist()) == predictions.sample.tolist()
    (tmp_path / "broken").write_bytes((tmp_path / "answers").read_bytes()[:200])
    for name in ("broken", "missing"):
        with pytest.raises(InputError, match=name):
            load(tmp_path / name)


def test_the_states_are_the_datasets():
    assert STATE.names == pain_predictions.STATES


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: replace(a, names=("total", *FEATURES)), "last 'total'"),
        (lambda a: replace(a, state_probs=a.state_probs[:, :2]), r"state_probs: expected \(30, 3\), got \(30, 2\)"),
        (lambda a: replace(a, sample=a.sample // 6), "more than once"),
        (lambda a: replace(a, animal=np.where(a.fold == 1, "", a.animal)), "no animal"),
        (
            lambda a: replace(a, predicted=np.where(a.fold[:, None] == 2, np.nan, a.predicted)),
            r"no finite prediction \(folds 2\)",
        ),
        (lambda a: replace(a, target=np.where(a.fold[:, None] == 2, np.inf, a.target)), "infinite"),
        (lambda a: replace(a, state=a.state + 3), "state 3: expected -1"),
        (lambda a: concat([a, replace(a, fold=a.fold + 9)]), r"more than once \(folds 0, 1"),
        (lambda a: concat([]), "no predictions"),
    ],
)
def test_predictions_that_mislead_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        change(make(clips=30))


def test_pooled_figures_are_those_of_sklearn_and_the_training_mean_is_the_null():
    predictions = make()
    true, got = predictions.target[:, -1], predictions.predicted[:, -1]
    found = pooled(predictions.total)
    model = found["model"]
    assert model["r2_own_mean"] == pytest.approx(r2_score(true, got))
    assert model["mae"] == pytest.approx(mean_absolute_error(true, got))
    null = predictions.train_mean[:, -1]
    assert model["r2"] == pytest.approx(1 - ((true - got) ** 2).sum() / ((true - null) ** 2).sum())
    assert model["r2"] > model["r2_own_mean"]  # the mean of the scored rows fits them best
    assert found["training mean"]["r2"] == 0 and found["training mean"]["r2_interval"] == (0, 0)
    acute = predictions.moment == "M2"
    assert found["moment mean"]["acute_mae"] == pytest.approx(np.abs(true - predictions.train_moment_mean[:, -1])[acute].mean())


def test_a_moment_without_training_rows_has_the_training_mean():
    predictions = make()
    none = np.where((predictions.moment == "M4")[:, None], np.nan, predictions.train_moment_mean)
    found = by_group(replace(predictions, train_moment_mean=none).total, predictions.moment)
    assert found["M4"]["naive_mae"]["moment mean"] == found["M4"]["naive_mae"]["training mean"]
    assert found["M2"]["naive_mae"]["moment mean"] < found["M2"]["naive_mae"]["training mean"]


def test_the_interval_is_that_of_animals_drawn_one_by_one():
    scored = make(clips=60, animals=12).total
    scored = replace(
        scored, predicted=scored.predicted + (np.unique(scored.animal, return_inverse=True)[1] % 3)
    )  # animals differ
    low, high = pooled(scored)["model"]["r2_interval"]
    random, herd, values = np.random.default_rng(5), np.unique(scored.animal), []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(scored.animal == name) for name in random.choice(herd, len(herd))])
        true, null = scored.true[rows], scored.train_mean[rows]
        values.append(1 - ((true - scored.predicted[rows]) ** 2).sum() / ((true - null) ** 2).sum())
    assert np.percentile(values, (2.5, 97.5)) == pytest.approx((low, high), abs=0.03)
    assert animal_interval(np.array(["a"] * 5), np.ones((5, 2)), lambda sums: sums[:, 0]) is None


def test_icc_is_that_of_shrout_and_fleiss():
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    assert icc(ratings) == pytest.approx(0.29, abs=0.005)  # their table 4
    same = np.arange(5.0)
    assert icc(np.stack([same, same], 1)) == 1
    assert icc(np.stack([same, same + 3], 1)) == pytest.approx(2.5 / (2.5 + 4.5))  # agreement is absolute: an offset costs
    assert icc(np.ones((4, 2))) is None and icc(np.ones((1, 2))) is None


def test_a_feature_that_ranks_and_misses_says_why():
    predictions = make(noise=0.5)
    true = predictions.target[:, -1]
    found = by_feature(with_totals(predictions, 0.2 * true + 9))["total"]
    assert found["slope"] == pytest.approx(0.2) and found["sd_ratio"] == pytest.approx(0.2)
    assert found["pearson"] == pytest.approx(1) and found["r2"] < 0
    assert found["offset"] + found["scale"] == pytest.approx(1) and found["mended_r2"] == pytest.approx(1)
    assert found["bias"] == pytest.approx((9 - 0.8 * true).mean())
    assert "it ranks, but its values are off, scale or bias" in found["flag"]
    whole = by_feature(predictions)
    assert list(whole) == [*FEATURES, "total"] and not whole["total"]["flag"]


def test_groups_are_the_clips_of_their_name():
    predictions = make(noise=0.3)
    found = by_group(predictions.total, predictions.moment)
    assert list(found) == list(MEANS) and sum(each["rows"] for each in found.values()) == 200
    here = predictions.moment == "M3"
    assert found["M3"]["pearson"] == pytest.approx(
        np.corrcoef(predictions.target[here, -1], predictions.predicted[here, -1])[0, 1]
    )
    folds = by_fold(
        predictions.total, {0: {"epochs": 1, "min_epochs": 5, "best_epoch": 0}, 1: {"epochs": 5, "min_epochs": 5}, 12: {}}
    )
    assert [folds[k]["stopped_early"] for k in ("0", "1", "2", "12")] == [True, False, None, None]
    assert folds["12"]["rows"] == 0 and folds["0"]["animals"] == ["cow00", "cow09", "cow18"]


def test_the_cut_off_is_the_best_of_all():
    random = np.random.default_rng(3)
    pain = random.random(60) < 0.4
    totals = np.round(random.normal(3, 2, 60) + 2 * pain, 1)
    found = cut_off(totals, totals, pain)

    def youden(at):
        each = at_cut_off(totals, pain.astype(float), at)
        return each["sensitivity"] + each["specificity"] - 1

    assert found.youden == pytest.approx(max(youden(at) for at in np.arange(-3, 12, 0.05))) == pytest.approx(youden(found.at))
    assert found.at == found.rated_at and found.at not in totals.tolist()
    even = np.array([1.0, 2, 3, 4])
    assert cut_off(even, even, np.array([0, 1, 0, 1])).at == 1.5  # as good as 3.5, and misses less
    assert cut_off(totals, totals, np.ones(60)) is None
    assert cut_off(totals, np.full(60, np.nan), pain) is None
    flat = cut_off(totals, np.ones(60), pain)
    assert flat.youden == 0 and at_cut_off(np.ones(60), pain.astype(float), flat.at)["sensitivity"] == 1


def test_a_folds_cut_off_does_not_see_the_fold():
    predictions = make()
    other = with_totals(
        predictions, np.where(predictions.fold == 4, 100 - predictions.predicted[:, -1], predictions.predicted[:, -1])
    )
    here = predictions.fold == 4
    before, after = other_folds_cut_offs(predictions), other_folds_cut_offs(other)
    assert (before[here] == after[here]).all() and (before[~here] != after[~here]).any()
    assert np.isnan(other_folds_cut_offs(predictions.where(here))).all()
    assert (np.isnan(is_pain(predictions)) == (predictions.state == 2)).all()


def test_state_figures_are_sklearns():
    predictions = make()
    predictions = replace(
        predictions, state_probs=predictions.state_probs[::-1], state=np.where(np.arange(200) < 9, -1, predictions.state)
    )
    found = state_figures(predictions)
    label, got = predictions.state[9:], predictions.state_probs[9:].argmax(1)
    assert found["macro_f1"] == pytest.approx(f1_score(label, got, average="macro")) and found["rows"] == 191
    assert found["accuracy"] == pytest.approx((label == got).mean())
    some = np.where(np.arange(200)[:, None] < 50, np.nan, predictions.state_probs)
    assert state_figures(replace(predictions, state_probs=some))["unsaid"] == 41


@pytest.mark.parametrize(
    ("noise", "epochs", "verdict"), [(0.5, 6, "acceptable"), (0.5, None, "acceptable"), (0.5, 1, "retrain"), (4, 6, "retrain")]
)
def test_the_decision_names_its_thresholds(noise, epochs, verdict):
    predictions = make(noise=noise)
    decision = decide(predictions, at=4.5, least_epochs=epochs)
    assert decision.verdict == verdict and decision.text.startswith(verdict)
    assert "expected >= 0.15" in decision.text and "expected <= 3" in decision.text and "moment mean alone: R2" in decision.text
    assert "Pain at a total of 4.50 or more: sensitivity" in decision.text
    rows = {row[0]: row[-1] for row in decision.table.cells}
    assert rows["epochs of the shortest fold"] == {6: "pass", None: "not measured", 1: "fail"}[epochs]


def test_without_acute_clips_nothing_is_decided():
    decision = decide(make(noise=0.3, moments=("M0", "M3")))
    assert decision.verdict == "undecided" and "MAE of M2 not measured" in decision.text and "no cut-off was set" in decision.text


def test_the_gate_is_the_general_models_own_and_the_oracle_knows_the_moment():
    general, specialist = make(seed=1), make(seed=2)
    specialist = replace(specialist, target=general.target).where(np.random.default_rng(0).permutation(200))
    p, there = general.state_probs[:, 1:2], aligned(specialist, general)
    np.testing.assert_allclose(with_specialist(general, specialist).predicted, (1 - p) * general.predicted + p * there.predicted)
    acute = general.moment == "M2"
    oracle = with_true_moment(general, specialist).predicted
    assert (oracle[acute] == there.predicted[acute]).all() and (oracle[~acute] == general.predicted[~acute]).all()
    rows = specialist_rows(general, specialist)
    assert (
        list(rows)[-1] == "general + specialist (oracle, uses the true moment)"
        and (rows[list(rows)[-1]].predicted == oracle).all()
    )
    none = replace(general, state_probs=np.full((200, 3), np.nan))
    with pytest.raises(InputError, match="state head"):
        with_specialist(none, specialist)
    with pytest.raises(InputError, match="one model alone"):
        with_specialist(general, specialist.where(np.arange(50)))
    with pytest.raises(InputError, match="different datasets"):
        with_specialist(general, make(seed=2))
    for p in (np.array([1.2, 0]), np.array([np.nan, 0]), np.zeros(3)):
        with pytest.raises(InputError, match="probabilities"):
            gated(np.zeros((2, 8)), np.ones((2, 8)), p)


def test_the_mean_of_folds_is_of_the_same_clips_in_any_order():
    one = make(seed=1)
    two = replace(one, predicted=one.predicted + 2, fold=(one.fold + 1) % 9)
    found = mean_of([one, two.where(np.arange(200)[::-1])])
    np.testing.assert_allclose(found.predicted, one.predicted + 1)
    assert (found.fold == -1).all() and (mean_of([one, one]).fold == one.fold).all()


def test_strategies_are_compared_on_what_they_share():
    a = make(noise=2)
    b = replace(a, predicted=(a.predicted + a.target) / 2).where(np.arange(40, 200)[::-1])  # half the error, fewer clips
    found = compare({"A": a, "B": b, "again": a})
    assert list(found) == ["A", "B", "again", "training mean", "moment mean"]
    assert {each["rows"] for each in found.values()} == {160} and found["A"]["left_out"] == 40
    assert found["B"]["mae"] == pytest.approx(found["A"]["mae"] / 2)
    assert found["B"]["mae_gain"] == pytest.approx(-found["A"]["mae"] / 2) and found["B"]["mae_gain_interval"][1] < 0
    assert found["B"]["r2_gain"] == pytest.approx(found["B"]["r2"] - found["A"]["r2"]) and found["B"]["r2_gain_interval"][0] > 0
    assert found["again"]["r2_gain"] == 0 and found["again"]["r2_gain_interval"] == (0, 0)
    text = markdown(comparison_table(found, chosen=("B",)))
    assert "B†" in text and "naive baselines" in text and "80 predictions" in text
    for bad, match in (
        ({}, "nothing"),
        ({"A": a, "B": replace(a, sample=a.sample + 1)}, "no clip"),
        ({"moment mean": a}, "baseline"),
    ):
        with pytest.raises(InputError, match=match):
            compare(bad)


@pytest.mark.slow
def test_the_report_is_text_figures_and_plots(tmp_path):
    info = {fold: {"epochs": 12, "min_epochs": 5, "best_epoch": 7} for fold in range(9)}
    info[3]["epochs"] = 1
    text = report(make(), info, tmp_path / "new" / "folder")
    out = tmp_path / "new" / "folder"
    assert {path.name for path in out.iterdir()} == {TEXT, FIGURES, *PLOTS} and (out / TEXT).read_text() == text
    assert "7-item bovine facial scale" in text and "UCAPS" not in text
    assert "Stopped before min_epochs: fold 3." in text and "retrain: R2" in text
    found = json.loads((out / FIGURES).read_text())
    assert found["decision"]["verdict"] == "retrain" and found["decision"]["least_epochs"] == 1
    assert found["pooled"]["model"]["r2"] == pytest.approx(pooled(make().total)["model"]["r2"])


HOSTILE = {
    "no clip": lambda a: a.where(np.zeros(len(a), bool)),
    "one clip": lambda a: a.where(np.arange(1)),
    "one animal": lambda a: a.where(a.animal == "cow03"),
    "one moment": lambda a: a.where(a.moment == "M2"),
    "one fold": lambda a: a.where(a.fold == 2),
    "no totals": lambda a: replace(a, target=np.concatenate([a.target[:, :-1], np.full((len(a), 1), np.nan)], 1)),
    "no labels": lambda a: replace(a, target=np.full_like(a.target, np.nan), predicted=np.full_like(a.predicted, np.nan)),
    "constant": lambda a: replace(a, predicted=np.full_like(a.predicted, 3.0)),
    "equal labels": lambda a: replace(a, target=np.full_like(a.target, 2.0), train_mean=np.full_like(a.train_mean, 2.0)),
    "unknown moments": lambda a: replace(a, moment=np.full(len(a), "")),
    "no state": lambda a: replace(a, state=np.full(len(a), -1), state_probs=np.full_like(a.state_probs, np.nan)),
    "no state head": lambda a: replace(a, state_probs=np.full_like(a.state_probs, np.nan)),
    "no training means": lambda a: replace(a, train_mean=a.train_mean * np.nan, train_moment_mean=a.train_mean * np.nan),
    "float16": lambda a: replace(a, predicted=a.predicted.astype(np.float16), target=a.predicted.astype(np.float16)),
    "huge": lambda a: replace(a, predicted=a.predicted * 1e30),
}


UNRATED = ("no clip", "no totals", "no labels")  # nothing to draw
DRAWN = (*UNRATED, "one clip", "constant", "huge")


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("case", HOSTILE)
def test_the_worst_predictions_have_a_report(case, tmp_path, monkeypatch):
    predictions = HOSTILE[case](make(clips=100))
    if case not in DRAWN:
        monkeypatch.setattr(pain_report, "draw", lambda *given: None)
    text = report(predictions, {2: {"epochs": 1, "min_epochs": 5, "best_epoch": 0}}, tmp_path)
    assert "nan" not in text.lower().replace("nan,", "") and "inf" not in text.split()
    json.loads((tmp_path / FIGURES).read_text(), parse_constant=pytest.fail)
    assert (tmp_path / PLOTS[0]).exists() == (case in DRAWN and case not in UNRATED)
    compare({"a": predictions, "b": predictions}) if len(predictions) else None
    if case == "one animal":
        assert "One animal: there is no interval." in text
    if case == "one fold":
        assert "Only 2 animals" in text and "no cut-off was set" in text
    if case in ("no clip", "no totals", "no labels", "one clip", "unknown moments"):
        assert "undecided" in text or "retrain" in text


@pytest.mark.slow
def test_an_animal_of_two_folds_and_clips_without_totals_are_named(tmp_path):
    predictions = make()
    predictions = replace(predictions, fold=np.where(np.arange(200) == 0, 5, predictions.fold))
    predictions = replace(predictions, target=np.where(np.arange(200)[:, None] < 7, np.nan, predictions.target))
    text = report(predictions, {}, tmp_path)
    assert "Animal cow00 is predicted by folds 0, 5" in text and "7 of 200 clips have no true total" in text
    assert "not known: fold 0, 1" in text
