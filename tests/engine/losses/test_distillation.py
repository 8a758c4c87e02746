"""Distillation terms against their formulas, and students trained by them."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affect.engine.config.load import load_config
from affect.engine.losses.base import TeacherOutput
from affect.engine.losses.d_geo import DGeoConfig
from affect.engine.losses.distillation import DkdConfig
from affect.shards.errors import InputError

from ..stubs import batch_of, loss_of

SOFT = "loss.teacher={soft_labels: somewhere}"
ONLY = "loss.cross_entropy=0"


class FixedTeacher:
    """A teacher that predicts the same of every batch."""

    def __init__(self, logits=None, features=None, rows=None):
        self.origins = {"teacher": "0" * 64}
        self.output = TeacherOutput(logits, rows, features)

    def __call__(self, batch):
        return self.output


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def value(loss, features, logits, batch):
    return loss(features, {"emotion": logits}, batch, loss.counts(batch)).total


@pytest.mark.parametrize(
    "term", ["loss.kd={temperature: 3}", "loss.dkd={warmup_epochs: 0}", "loss.kd_mse={}"], ids=["kd", "dkd", "kd_mse"]
)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(term):
    logits = draw(9, 8).requires_grad_()
    loss = loss_of(draw(9, 8).softmax(1), [SOFT, ONLY, term], teacher=FixedTeacher(logits.detach()))
    got = value(loss, logits, logits, batch_of(draw(9, 8).softmax(1)))
    assert abs(got.item()) < 1e-5
    assert torch.autograd.grad(got, logits)[0].abs().max() < 1e-6


def test_kd_is_torchs_divergence_over_all_samples_labelled_or_not():
    student, teacher, target = draw(9, 8).requires_grad_(), draw(9, 8, seed=1), draw(9, 8, seed=2).softmax(1)
    mask, weight = torch.ones(9, 8), torch.linspace(0, 2, 9)
    mask[3:5] = 0
    loss = loss_of(target, [SOFT, ONLY, "loss.kd={temperature: 3, weight: .5}"], teacher=FixedTeacher(teacher))
    got = value(loss, student, student, batch_of(target, mask, weight))
    each = F.kl_div((student / 3).log_softmax(1), (teacher / 3).log_softmax(1), reduction="none", log_target=True).sum(1)
    want = 0.5 * 9 * (weight * each).sum() / weight.sum()
    assert got.item() == pytest.approx(want.item(), rel=1e-5)
    assert torch.allclose(*(torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (got, want)), atol=1e-6)


def test_kd_mse_is_the_mean_over_samples_and_classes():
    student, teacher, target = draw(9, 8), draw(9, 8, seed=1), draw(9, 8, seed=2).softmax(1)
    loss = loss_of(target, [SOFT, ONLY, "loss.kd_mse={temperature: 2}"], teacher=FixedTeacher(teacher))
    assert value(loss, student, student, batch_of(target)).item() == pytest.approx(
        0.3 * F.mse_loss(student / 2, teacher / 2).item(), rel=1e-5
    )


def test_a_table_is_gathered_by_sample_number():
    target, student, table = draw(5, 8).softmax(1), draw(5, 8, seed=1), draw(20, 8, seed=2)
    rows = torch.tensor([7, 0, 19, 7, 3])
    settings = [SOFT, "loss.kd={}", "loss.dkd={warmup_epochs: 0}", "loss.kd_mse={}"]
    gathered = loss_of(target, settings, teacher=FixedTeacher(table[rows]))
    table = loss_of(target, settings, teacher=FixedTeacher(table, rows=rows))
    got, want = (value(loss, student, student, batch_of(target)).item() for loss in (table, gathered))
    assert got == pytest.approx(want, rel=1e-6)


def test_dkd_warms_up():
    assert [DkdConfig().ramp_at(epoch) for epoch in (0, 5, 20, 99)] == [0, 0.25, 1, 1]
    target, student = draw(5, 8).softmax(1), draw(5, 8, seed=1)
    settings = ["loss.dkd={warmup_epochs: 4}", "optim.epochs=9", SOFT, ONLY]
    loss = loss_of(target, settings, teacher=FixedTeacher(draw(5, 8, seed=3)))
    values = {}
    for epoch in (0, 2, 4, 8):
        assert loss.at_epoch(epoch) == {"dkd_ramp": min(epoch / 4, 1)}
        values[epoch] = value(loss, student, student, batch_of(target)).item()
    assert values[0] == 0 and values[2] == pytest.approx(values[4] / 2, rel=1e-5) and values[8] == values[4] > 0


def test_schedule_of_d_geo():
    ramp = DGeoConfig().ramp_at
    assert [ramp(epoch) for epoch in (0, 19, 20, 40, 60, 100)] == pytest.approx([0, 0, 0, 0.5, 1, 1])
    assert DGeoConfig(schedule="constant").ramp_at(0) == 1


GEO = "loss.d_geo={schedule: constant, weight: 1, positive_classes: [happy, surprise]}"


def plain_d_geo(features, label, centre, gate=0.2, margin=0.5):
    """centre: class -> unit-feature average, moved by this batch already."""
    total = 0.0
    for c in (1, 2):  # happiness, surprise
        rows = [i for i, y in enumerate(label) if y == c]
        if rows:
            mu = F.normalize(centre[c].detach(), dim=0)
            total = total + sum((1 - F.normalize(features[i], dim=0) @ mu - gate).relu() for i in rows) / len(rows)
    for a, b in itertools.combinations(sorted(set(label)), 2):
        total = total + (F.cosine_similarity(centre[a], centre[b], dim=0) - (1 - margin)).relu()
    return total


def test_d_geo_is_its_formula_over_two_batches_and_skips_absent_classes():
    random = draw(12, 8) + 1.5  # near each other, so that both sums are active
    loss = loss_of(torch.eye(8), [GEO, ONLY])
    centre = {}
    for features, label in ((random[:6], [0, 1, 1, 3, 2, 0]), (random[6:], [1, 1, 3, 3, 5, 5])):
        features.requires_grad_()
        unit = F.normalize(features)
        for c in set(label):
            mean = unit[[i for i, y in enumerate(label) if y == c]].mean(0)
            centre[c] = 0.9 * centre[c].detach() + 0.1 * mean if c in centre else mean
        want = plain_d_geo(features, label, centre)
        got = value(loss, features, draw(6, 8), batch_of(torch.eye(8)[label]))
        assert got.item() == pytest.approx(want.item(), rel=1e-5) and want > 0.1
        assert torch.allclose(*(torch.autograd.grad(x, features, retain_graph=True)[0] for x in (got, want)), atol=1e-6)


def test_d_geo_without_labels_is_zero_and_evaluating_remembers_nothing():
    loss = loss_of(torch.eye(8), [GEO, ONLY])
    features = (draw(6, 8) + 1).requires_grad_()
    nothing = value(loss, features, draw(6, 8), batch_of(torch.eye(8)[:6], mask=torch.zeros(6, 8)))
    assert nothing.item() == 0 and not torch.autograd.grad(nothing, features)[0].any()
    loss.eval()
    value(loss, features, draw(6, 8), batch_of(torch.eye(8)[:6]))
    assert not loss.terms[0].seen.any()


def test_names_of_positive_classes_are_checked():
    with pytest.raises(InputError, match="positive_classes: no class 'hapiness'.*happiness"):
        loss_of(torch.eye(8), ["loss.d_geo={schedule: constant, positive_classes: [hapiness]}"])


@pytest.fixture
def prototypes(tmp_path):
    grid = np.linspace(-0.8, 0.8, 5)
    centers = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    np.savez(tmp_path / "p.npz", prototypes=draw(25, 6, seed=5).numpy(), centers=centers, counts=np.ones(25, np.int64))
    return tmp_path / "p.npz"


def test_proto_kd_pulls_features_to_the_cells_of_their_class_through_a_projection(prototypes, capsys):
    loss = loss_of(torch.eye(8), [f"loss.proto_kd={{prototypes: {prototypes}, weight: 1}}", ONLY])
    assert "25 prototypes of 6 features" in (log := capsys.readouterr().err) and "features are projected" in log
    term = loss.terms[0]
    assert term.grid.shape == (8, 25) and torch.allclose(term.grid.sum(1), torch.ones(8))
    features, target = draw(4, 8), torch.eye(8)[:4]
    s = F.normalize(term.project(features)) @ F.normalize(term.prototypes).t() / 0.9
    want = (target @ term.grid * ((target @ term.grid).log() - s.log_softmax(1))).sum(1).mean()
    got = value(loss, features, draw(4, 8), batch_of(target))
    assert got.item() == pytest.approx(want.item(), rel=1e-5)
    assert torch.autograd.grad(got, term.project.weight)[0].abs().max() > 0
    assert loss.origins["prototypes"]


def test_proto_kd_learns_from_the_teachers_features(prototypes):
    settings = [f"loss.proto_kd={{prototypes: {prototypes}, target: teacher}}", "loss.teacher={features: f.npz}", ONLY]
    features = draw(4, 6)
    loss = loss_of(torch.eye(8), settings, width=6, teacher=FixedTeacher(features=features))
    unlabelled = batch_of(torch.eye(8)[:4], mask=torch.zeros(4, 8))
    assert abs(value(loss, features, draw(4, 8), unlabelled).item()) < 1e-6
    assert value(loss, draw(4, 6, seed=9), draw(4, 8), unlabelled).item() > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss.kd={}"], r"kd: needs a teacher: teacher.soft_labels, a folder of affect softlabels"),
        (["loss.teacher={soft_labels: a}"], "teacher: no term learns from it; add kd, dkd or kd_mse"),
        (["loss.kd={}", "loss.teacher={run: a}"], "run: with online: true .*affect softlabels a"),
        (
            ["loss.kd={}", "loss.teacher={run: a, online: true, soft_labels: b}"],
            "an online teacher takes the place of soft_labels",
        ),
        (["loss.proto_kd={prototypes: p, target: teacher}"], "proto_kd: learns from a teacher.s features and needs"),
        (["loss.d_geo={}"], r"loss.d_geo: its weight is whole at epoch 60, but .* is 0.*--set loss.d_geo.start_epoch=0"),
        (["loss.dkd={}", SOFT], r"loss.dkd.warmup_epochs: 20 is not below optim.epochs \(1\)"),
        (["loss.kd={}", SOFT, "data.augment.mixup=.2"], "stored soft labels are of single pictures; with mixup or cutmix"),
        ([ONLY], "cross_entropy: 0 leaves no loss"),
        (["loss.kd={temperature: 0}", SOFT], "loss.kd.temperature"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        load_config("smoke", settings)
