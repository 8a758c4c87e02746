"""Stress of mice: label distributions, two networks, the configurations of the reference recipe, the report."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affect.engine.config.load import load_config
from affect.engine.crossval.mouse_predictions import stress_levels
from affect.engine.data.batch import Batch
from affect.engine.losses.base import TrainingRows
from affect.engine.losses.build import LossFunction
from affect.engine.losses.cross_entropy import neighbourhood
from affect.engine.losses.resup import trust
from affect.engine.report import motion
from affect.engine.report.mouse_cohorts import (  # fmt: skip
    AT_TEST,
    BACKGROUND,
    MODEL,
    POSITION,
    SET,
    SHUFFLED,
    cohort_table,
    fall,
    mouse_report,
    session_position_alone,
    stress_table,
    two_by_two,
)
from affect.engine.report.ordinal import Score, Trials
from affect.engine.report.render import markdown
from affect.engine.runs.files import WRITTEN_LAST
from affect.engine.tasks import TASKS
from affect.shards.errors import InputError
from affect.shards.schema import Output, TargetLayout

LAYOUT = TargetLayout(
    (Output("stress", "classes", ("baseline", "stress")), Output("level", "classes", ("0", "50", "150", "300", "500")))
)
TWO = ["model.temporal.networks=2", "loss.resup={}"]


def loss_of(stress, level, *settings):
    """A LossFunction of mouse_clip over these training targets."""
    run = load_config("mouse_advanced", list(settings))
    dataset = SimpleNamespace(info=SimpleNamespace(layout=LAYOUT))
    rows = TrainingRows(dataset, {"stress": stress, "level": level}, np.arange(len(stress)), torch.device("cpu"))
    return LossFunction(run, TASKS["mouse_clip"], rows, 8)


def one_hot(label, classes):
    return F.one_hot(torch.as_tensor(label), classes).float()


def batch_of(stress, level, labelled=None):
    mask = {"stress": torch.ones_like(stress), "level": torch.ones_like(level)}
    if labelled is not None:
        mask["stress"] = labelled[:, None].expand_as(stress).float()
    return Batch(
        torch.zeros(len(stress)), {"stress": stress, "level": level}, mask, torch.ones(len(stress)), np.arange(len(stress))
    )


def value_and_grads(loss, outputs, batch):
    outputs = {name: values.clone().requires_grad_() for name, values in outputs.items()}
    result = loss(torch.zeros(len(batch.weight), 8), outputs, batch, loss.counts(batch))
    result.total.backward()
    return result, {name: values.grad for name, values in outputs.items()}


def drawn(rows=12, seed=0):
    random = torch.Generator().manual_seed(seed)
    stress, level = torch.arange(rows) % 2, torch.randint(0, 5, (rows,), generator=random)
    logits = {"stress": torch.randn(rows, 2, generator=random), "level": torch.randn(rows, 5, generator=random)}
    return one_hot(stress, 2), one_hot(level, 5), logits


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_a_fixed_distribution_of_two_classes_is_smoothing_of_twice_as_much(share):
    """Value and gradient; the divergence of the recipe is less by the entropy of its distributions, which is constant."""
    stress, level, logits = drawn()
    result, grads = value_and_grads(
        loss_of(stress, level, f"loss.label_smoothing={2 * share}", "loss.ordered=0"), logits, batch_of(stress, level)
    )
    z = logits["stress"].clone().requires_grad_()
    soft = torch.where(stress > 0, 1 - share, share)
    divergence = F.kl_div(z.log_softmax(1), soft, reduction="batchmean")
    divergence.backward()
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    torch.testing.assert_close(result.total, divergence.detach() + entropy)
    torch.testing.assert_close(grads["stress"], z.grad)
    torch.testing.assert_close(result.total, F.cross_entropy(logits["stress"], stress, label_smoothing=2 * share))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_a_level_becomes_a_gaussian_over_its_neighbours(sigma):
    around = neighbourhood(5, sigma)
    np.testing.assert_allclose(around.sum(1), 1, rtol=1e-6)
    for j in range(5):
        want = np.exp(-((np.arange(5) - j) ** 2) / (2 * sigma**2))
        np.testing.assert_allclose(around[j], want / want.sum(), rtol=1e-5)
    stress, level, logits = drawn()
    result, grads = value_and_grads(
        loss_of(stress, level, f"loss.neighbours={sigma}", "loss.ordered=0.5"), logits, batch_of(stress, level)
    )
    z = logits["level"].clone().requires_grad_()
    want = F.cross_entropy(z, level @ around)
    (0.5 * want).backward()
    torch.testing.assert_close(result.parts["ordered_ce"], want.detach())
    torch.testing.assert_close(grads["level"], z.grad)


def test_a_narrow_gaussian_is_the_label():
    torch.testing.assert_close(neighbourhood(5, 0.05), torch.eye(5))


def two(logits, seed=1):
    """Outputs of two networks, as a model in training gives them."""
    random = torch.Generator().manual_seed(seed)
    apart = {
        f"{name}.{which}": values + torch.randn(values.shape, generator=random)
        for name, values in logits.items()
        for which in "ab"
    }
    return logits | apart


@pytest.mark.parametrize(("epoch", "ramp"), [(0, 0.0), (1, 0.5), (7, 1.0)])
def test_each_network_is_weighted_by_the_other(epoch, ramp):
    """As the formula says, with autograd through the losses and none through the weights; the mean's logits learn nothing."""
    stress, level, logits = drawn()
    labelled = torch.arange(12) % 3 != 0
    batch, outputs = batch_of(stress, level, labelled), two(logits)
    loss = loss_of(stress, level, *TWO)
    assert loss.at_epoch(epoch)["resup_ramp"] == ramp
    result, grads = value_and_grads(loss, outputs, batch)
    around, total = neighbourhood(5, 1.0), 0.0
    leaves = {name: outputs[name].clone().requires_grad_() for name in outputs if "." in name}
    for name, target, known in (("stress", 0.8 * stress + 0.1, labelled), ("level", level @ around, torch.ones(12, dtype=bool))):
        hard = (stress if name == "stress" else level).argmax(1)
        a, b = leaves[f"{name}.a"], leaves[f"{name}.b"]
        p, q = a.detach().softmax(1), b.detach().softmax(1)
        agreed = torch.exp(-(p - q).abs().sum(1))
        by_a, by_b = (each[range(12), hard] / each.max(1).values for each in (p, q))
        rows = (1 - ramp + ramp * agreed * by_b) * F.cross_entropy(a, target, reduction="none")
        rows = rows + (1 - ramp + ramp * agreed * by_a) * F.cross_entropy(b, target, reduction="none")
        total = total + (rows * known).sum() / known.sum()
    total.backward()
    torch.testing.assert_close(result.total, total.detach())
    for name, values in leaves.items():
        torch.testing.assert_close(grads[name], values.grad)
    assert all(grads[name] is None or not grads[name].any() for name in logits)


def test_trust_is_whole_where_both_say_the_label_and_falls_with_doubt():
    """Of two that contradict each other only the one that denies the label still learns it, by e^-2."""
    sure, label = torch.tensor([[9.0, -9.0]]), one_hot([0], 2)
    cases = [(sure, sure, (1, 1)), (0 * sure, 0 * sure, (1, 1)), (-sure, -sure, (0, 0)), (sure, -sure, (0, np.exp(-2)))]
    for a, b, want in cases:
        np.testing.assert_allclose([float(weight) for weight in trust(a, b, label)], want, atol=1e-5)


def test_flipped_labels_come_to_weigh_less():
    """Two small networks on clouds of points, 30 % of whose labels are flipped."""
    torch.manual_seed(0)
    true = torch.arange(200) % 2
    points = torch.randn(200, 4) + 2.5 * (true[:, None] - 0.5)
    flipped = torch.rand(200) < 0.3
    stress, level = one_hot(torch.where(flipped, 1 - true, true), 2), one_hot(4 * true, 5)
    nets = [torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)) for _ in "ab"]
    loss, batch = loss_of(stress, level, *TWO, "loss.ordered=0"), batch_of(stress, level)
    optimizer = torch.optim.Adam([weight for net in nets for weight in net.parameters()], 3e-3)
    for epoch in range(40):
        loss.at_epoch(epoch)
        text = {f"stress.{which}": net(points) for which, net in zip("ab", nets, strict=True)}
        loss(torch.zeros(200, 8), text, batch, loss.counts(batch)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    weights = trust(text["stress.a"], text["stress.b"], stress)[0]
    assert weights[flipped].mean() < 0.4 < 0.8 < weights[~flipped].mean()


SEED = {  # of seeds/003: task, frames, stride, batch, epochs, rate, smoothing
    "baseline": ("mouse_set", 5, 2, 16, 10, 1e-2, 0.1),
    "advanced": ("mouse_clip", 10, 2, 16, 30, 1e-4, 0.2),
    "resup": ("mouse_clip", 10, 2, 16, 30, 1e-4, 0.2),
    "weak": ("mouse_clip", 32, 1, 16, 30, 1e-4, 0.2),
    "long": ("mouse_clip", 20, 1, 8, 30, 1e-4, 0.2),
    "fast": ("mouse_clip", 5, 3, 32, 30, 1e-4, 0.2),
}


@pytest.mark.parametrize("name", SEED)
def test_configurations_hold_the_seeds_values(name):
    run = load_config(f"mouse_{name}")
    clip, temporal = run.data.clip, run.model.temporal
    result = (run.task, clip.frames, clip.stride, run.data.batch_size, run.optim.epochs, run.optim.lr, run.loss.label_smoothing)
    assert result == SEED[name]
    assert (run.model.backbone, run.model.image_size, run.optim.warmup_epochs) == ("resnet34", 300, 0)
    assert (temporal.layers, temporal.heads, temporal.feed, temporal.size, temporal.hidden) == (4, 8, 2048, 512, 256)
    assert temporal.networks == 1 + (name == "resup") and (run.loss.resup is not None) == (name == "resup")
    if name == "baseline":
        assert (run.optim.optimizer, run.optim.momentum, run.optim.weight_decay, run.loss.ordered) == ("sgd", 0.9, 1e-4, 0)
    knobs = ["data.clip.frames=15", "data.clip.stride=1", "loss.label_smoothing=0.4", "model.temporal.layers=2"]
    assert load_config(f"mouse_{name}", knobs).data.clip.frames == 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss.resup={}"], "loss.resup: needs two networks"),
        ([*TWO, "loss.focal_gamma=2"], "focal_gamma: both it and resup"),
        (["loss.neighbours=-1"], "loss.neighbours"),
        (["model.temporal.heads=5"], "512 features .size. do not divide into 5 heads"),
        (["loss.resupp={}"], "did you mean 'resup'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        load_config("mouse_advanced", settings)


def _written(path):
    path.parent.mkdir(exist_ok=True)
    path.touch()


@pytest.mark.slow
def test_folds_of_levels_and_two_networks_become_one_table(tmp_path, affect, monkeypatch):
    from affect.engine.cli.mouse import mouse_report as command
    from affect.shards.pack import pack
    from affect.shards.sources.frames import chosen
    from affect.shards.sources.mouse_trials import TrialsSource
    from affect.shards.synthetic.mice import write_mice

    write_mice(tmp_path / "raw", 40, 4, cue="shortcut", size=32, frames=6)
    pack(TrialsSource(tmp_path / "raw", tmp_path / "raw" / "labels.csv", chosen(all_frames=True)), tmp_path / "packed")
    values = [
        f"data.dataset={tmp_path / 'packed'}", "data.folds={count: 2}", "data.clip.frames=2", "data.batch_size=8",
        "optim.epochs=1", "model.backbone=test_resnet", "model.image_size=32", "model.temporal.size=32", "model.temporal.heads=2",
        "model.temporal.layers=1", "model.temporal.feed=32", "train.precision=off", "train.track=[]", *TWO,
    ]  # fmt: skip
    arguments = [part for value in values for part in ("--set", value)]
    # graphs take longest
    monkeypatch.setattr("affect.engine.pipeline.export_run", lambda folder: _written(folder / WRITTEN_LAST))
    code, out, err = affect("crossval", "mouse_advanced", *arguments, "--out", tmp_path / "folds")
    assert code == 0, out + err
    command(tmp_path / "folds", shuffled=tmp_path / "folds", point=[f"both={tmp_path / 'folds'}"])
    text = (tmp_path / "folds" / "mouse-report" / "mouse.md").read_text()
    result = json.loads((tmp_path / "folds" / "mouse-report" / "mouse.json").read_text())
    assert result["scores"][MODEL]["trials"] == 40 and 0 <= result["scores"][MODEL]["mae"] <= 4
    assert {AT_TEST, POSITION, *motion.BASELINES, motion.BEFORE} <= set(result["scores"])
    assert result["scores"][SHUFFLED]["mae"] == result["scores"][MODEL]["mae"] != result["scores"][AT_TEST]["mae"]
    assert all(f"*by {what}*" in text for what in ("fold", "animal", "cohort", "sex")) and "+35-55 %" in text
    assert "cohort home | cohort external (apart) |" in text and "- Cohort external (apart): the model" in text
    assert "have chosen nothing" in text and "Each window by itself" in text


def test_stress_without_levels_is_the_high_level():
    layout = TargetLayout((Output("stress", "classes", ("baseline", "stress")),))
    target = np.array([[1, 0], [0, 1], [np.nan, np.nan]])
    dataset = SimpleNamespace(info=SimpleNamespace(layout=layout), targets=lambda name: target)
    np.testing.assert_array_equal(stress_levels(dataset, 3), [0, 3, np.nan])


def test_a_model_of_the_level_alone_predicts_in_levels(monkeypatch, tmp_path):
    from affect.engine.crossval import mouse_predictions
    from affect.engine.crossval.held_out import HeldOut

    values = {"score": np.array([[0.5], [2.0], [4.0]], np.float32)}
    held_out = HeldOut((Output("score", "scalars", ("score",)),), np.arange(3), np.zeros(3), np.array(["m"] * 3), values, values)
    dataset = SimpleNamespace(column=lambda name: np.array(["a", "b", "c"]))
    monkeypatch.setattr(mouse_predictions, "collect", lambda out: SimpleNamespace(dataset=dataset, held_out={"all": held_out}))
    clips = mouse_predictions.Clips(dataset, ["c", "a", "x"], np.arange(3), Trials(np.array([4, 0, 1]), np.array(["m"] * 3)))
    score, level = mouse_predictions.scores_of(clips, tmp_path, MODEL)
    assert level is None and score.in_levels and np.array_equal(score.values, [4, 0.5, np.nan], equal_nan=True)


@pytest.fixture(scope="module")
def trials():
    """Four animals of 30 trials, five levels in blocks, as the real ones."""
    return Trials(np.tile(np.repeat(np.arange(5), 6), 4), np.repeat(["a", "b", "c", "d"], 30))


def noisy(trials, strength, seed=0):
    return trials.level * strength + np.random.default_rng(seed).normal(size=len(trials.level))


@pytest.mark.slow
def test_the_report_says_whether_order_is_used_and_which_control_tells(trials):
    predicted, chance = noisy(trials, 2.0), noisy(trials, 0.0, 1)
    position = np.tile(np.arange(30), 4)
    scores = [
        Score(MODEL, predicted, False), Score(SET, chance, False), Score(SHUFFLED, chance, False), Score(AT_TEST, chance, False),
        Score(motion.RATIO, noisy(trials, 1.9, 2), False), Score(BACKGROUND, noisy(trials, 0.0, 3), False),
        session_position_alone(trials, position),
    ]  # fmt: skip
    text, result = mouse_report(trials, scores, levels=[Score(MODEL, trials.level + 0.5)], resamples=300)
    assert "It uses the order of frames." in text and "The temporal head adds to the mean of frames." in text
    assert f"is not shown to be better than the best of motion, {motion.RATIO} (AUC" in text
    assert f"{POSITION} tells stress from none" in text and f"{BACKGROUND} is not shown to tell anything" in text
    assert "## Each animal" in text and "Not measured: " in text and "AUC, 1 against 0" in text
    assert result["scores"][MODEL]["mae"] == 0.5 and result["scores"][MODEL]["spearman"] > 0.999
    assert result["scores"][POSITION]["auc"] == 1.0 and result["scores"][POSITION]["control"]
    useless = [Score(MODEL, chance, False), Score(SHUFFLED, noisy(trials, 0.0, 5), False)]
    assert "Not shown: it uses the order of frames." in mouse_report(trials, useless, resamples=300)[0]
    with pytest.raises(InputError, match="score 'temporal modell'; did you mean 'temporal model'"):
        mouse_report(trials, [Score("temporal modell", predicted, False)])


def test_the_session_position_is_learned_on_the_other_animals(trials):
    """An animal whose session ran backwards gets the opposite prediction."""
    position = np.tile(np.arange(30.0), 4)
    position[trials.animal == "d"] = position[trials.animal == "d"][::-1]
    values = session_position_alone(trials, position).values
    for animal, high in (("a", True), ("d", False)):
        own, level = values[trials.animal == animal], trials.level[trials.animal == animal]
        assert (own[level == 4].mean() > own[level == 0].mean()) == high
    position[:3] = np.nan
    assert np.isnan(session_position_alone(trials, position).values[:3]).all()


def test_a_shortcut_shows_between_cohorts(trials):
    cohort = np.where(trials.animal < "c", "home", "external")
    values = np.where(cohort == "home", noisy(trials, 5.0), noisy(trials, 0.0))
    row = cohort_table(trials, [Score(MODEL, values, False)], "cohort", cohort, 200).cells[0]
    home, external = (float(text.split()[0]) for text in row[1:])
    assert home == 1 and abs(external - 0.5) < 0.2
    alike = Score(MODEL, noisy(trials, 5.0), False)
    for score, verdict in ((Score(MODEL, values, False), "tells less there"), (alike, "is not shown to tell less there")):
        text = fall(trials, score, cohort == "home", cohort == "external", "external", 200)
        assert f"- Cohort external: the model {verdict}, AUC" in text and ("Part of what it learned" in text) == (
            score is not alike
        )


def test_stress_by_group_and_the_two_by_two_beside_the_claims(trials):
    high = trials.level >= 3
    target = np.where((trials.level == 1) | (trials.level == 2), np.nan, high)
    target = np.column_stack([1 - target, target])
    logits = np.column_stack([-noisy(trials, 1.0), noisy(trials, 1.0) - 2])
    table = stress_table(logits, target, ("baseline", "stress"), {"animal": trials.animal})
    assert [line[1] for line in table.cells] == ["72", "18", "18", "18", "18"] and table.breaks == {1: "by animal"}
    sides = np.where(high, 1.0, 0.0)
    half = np.where(np.arange(120) % 2, sides, 1 - sides)
    text = markdown(two_by_two(trials, {"both": sides, "baseline": half}, 200))
    assert "100.0 [100.0, 100.0]" in text and "+50.0" in text and "+35-55 %" in text and "unverified" in text
    with pytest.raises(InputError, match="point 'LDL'"):
        two_by_two(trials, {"LDL": sides})
