"""Loss terms against torch's own, worked examples and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affect.engine.config.load import load_config
from affect.engine.config.loss import ArcFaceConfig
from affect.engine.losses.cross_entropy import balanced_class_weights
from affect.kernels import arcface_ce
from affect.shards.errors import InputError

from ..stubs import batch_of, loss_of


def rows(count=33, classes=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=random, dtype=torch.float64, requires_grad=True)
    return logits, torch.randn(count, classes, generator=random, dtype=torch.float64).softmax(1)


def test_class_weights_of_a_worked_example():
    """beta .9: (1 - .9) / (1 - .9^n) for n = 1, 2, 10 is 1, .526316, .153534; their mean is .559950."""
    weights = balanced_class_weights(np.array([1, 2, 10]), 0.9)
    assert weights == pytest.approx([1.785874, 0.939934, 0.274192], rel=1e-5)
    assert weights.mean() == pytest.approx(1)
    assert balanced_class_weights(np.array([5, 5]), 0.9999) == pytest.approx([1, 1])
    absent = balanced_class_weights(np.array([100, 0, 100]), 0.9999)
    assert absent == pytest.approx([1, 0, 1])


@pytest.mark.parametrize(("epoch", "margin"), [(0, 0.0), (4, 0.0), (5, 0.0), (6, 0.035), (10, 0.175), (15, 0.35), (59, 0.35)])
def test_margin_schedule_of_the_recipe(epoch, margin):
    assert ArcFaceConfig().margin_at(epoch) == pytest.approx(margin)


def test_a_margin_from_the_first_epoch_on():
    assert ArcFaceConfig(from_epoch=0, full_epoch=0).margin_at(0) == 0.35


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("hard", [True, False])
def test_cross_entropy_is_torchs(hard, smoothing, weighted):
    logits, target = rows()
    target = F.one_hot(target.argmax(1), 8).double() if hard else target
    settings = [f"loss.label_smoothing={smoothing}", "loss.class_weights_beta=.9"]
    loss = loss_of(target, [*settings, f"loss.class_weights={'balanced' if weighted else 'off'}"])
    weight = loss.terms[0].class_weight.double() if weighted else None
    batch = batch_of(target.float())
    got = loss(logits, {"emotion": logits}, batch, loss.counts(batch)).total
    want = F.cross_entropy(logits, target.argmax(1) if hard else target, weight=weight, label_smoothing=smoothing)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)
    assert torch.allclose(*(torch.autograd.grad(0.37 * value, logits)[0] for value in (got, want)), atol=1e-7)


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_the_margin_of_the_epoch_is_on_the_cosines(provider, monkeypatch):
    monkeypatch.setenv("KERNELS", provider)
    _, target = rows()
    cos = torch.rand(33, 8, generator=torch.Generator().manual_seed(1)) * 1.9 - 0.95
    loss = loss_of(target, ["optim.epochs=20", "loss.arcface={}"], task="emotion_teacher")
    batch = batch_of(target.float())
    for epoch, margin in ((0, 0.0), (10, 0.175), (19, 0.35)):
        assert loss.at_epoch(epoch) == {"margin": pytest.approx(margin)}
        got = loss(cos, {"emotion": 30 * cos}, batch, loss.counts(batch)).total
        assert got.item() == pytest.approx(arcface_ce(cos, target.float(), scale=30.0, margin=margin).item(), rel=1e-5)
    assert loss.implementation().startswith(f"arcface_ce by {provider} (KERNELS={provider}")


def test_unlabelled_rows_and_sample_weights():
    logits, target = rows(4)
    mask, weight = torch.ones(4, 8), torch.tensor([1.0, 2.0, 5.0, 0.0])
    mask[2] = 0
    loss, batch = loss_of(target), batch_of(target, mask, weight)
    each = F.cross_entropy(logits, target, reduction="none")
    got = loss(logits, {"emotion": logits}, batch, loss.counts(batch)).total
    assert got.item() == pytest.approx(((each[0] + 2 * each[1]) / 3).item(), rel=1e-6)
    gradient = torch.autograd.grad(got, logits)[0]
    assert (gradient[2:] == 0).all() and (gradient[:2] != 0).any()

    nothing = batch_of(target, torch.zeros(4, 8), weight)
    zero = loss(logits, {"emotion": logits}, nothing, loss.counts(nothing)).total
    assert zero.item() == 0 and (torch.autograd.grad(zero, logits)[0] == 0).all()


@pytest.mark.parametrize("hard", [True, False])
def test_micro_batches_have_the_gradient_of_the_whole(hard):
    """With class weights, uneven sample weights and unlabelled rows, none of which the parts share equally."""
    logits, target = rows(12)
    target = F.one_hot(target.argmax(1), 8).double() if hard else target
    mask, weight = torch.ones(12, 8), torch.linspace(0, 3, 12)
    mask[[1, 4]] = 0
    loss = loss_of(target, ["loss.class_weights=balanced", "loss.class_weights_beta=.9"])
    whole = batch_of(target.float(), mask, weight)
    counts = loss.counts(whole)
    want = torch.autograd.grad(loss(logits, {"emotion": logits}, whole, counts).total, logits)[0]
    parts = [loss(logits, {"emotion": logits[i * 4 : i * 4 + 4]}, piece, counts).total for i, piece in enumerate(whole.split(3))]
    got = torch.autograd.grad(sum(parts), logits)[0]
    assert torch.allclose(got, want, atol=1e-7) and want.abs().max() > 0


def test_class_weights_on_distributions_are_warned_of(capsys):
    _, votes = rows(400)
    loss_of(votes, ["loss.class_weights=balanced"])
    assert "each share is multiplied by its class's weight, the rarest" in capsys.readouterr().err
    loss_of(F.one_hot(votes.argmax(1), 8).float(), ["loss.class_weights=balanced"])
    assert not capsys.readouterr().err


def test_a_schedule_that_does_not_fit_is_an_error_with_the_remedy():
    settings = ["task=emotion_teacher", "optim.epochs=15", "loss.arcface={}"]
    with pytest.raises(InputError, match=r"whole at epoch 15, but the last.*is 14.*arcface.from_epoch=1.*full_epoch=3"):
        load_config("smoke", settings)
    load_config("smoke", [*settings, "loss.arcface.from_epoch=1", "loss.arcface.full_epoch=3"])
    with pytest.raises(InputError, match="loss.arcface: emotion_student has no cosine head; take task: emotion_teacher"):
        load_config("smoke", ["loss.arcface={}", "optim.epochs=20"])
