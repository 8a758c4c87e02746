"""Losses, schedule and metrics against independent definitions."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from affect.engine.config.optimisation import OptimConfig
from affect.engine.metrics.classification import classification, softmax
from affect.engine.training.optim import build_optimizer, learning_rate

NAMES = tuple("abcdefgh")


def test_schedule_rises_falls_and_stops_at_the_floor():
    config = OptimConfig(epochs=10, lr=1.0, warmup_epochs=2, min_lr=0.1)
    assert [learning_rate(config, e) for e in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0.1])
    rates = [learning_rate(config, e) for e in np.linspace(2, 10, 50)]
    assert rates == sorted(rates, reverse=True)


def test_biases_and_norms_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    decayed, free = build_optimizer([model], OptimConfig(epochs=3, lr=1)).param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)] and len(free["params"]) == 3 and free["weight_decay"] == 0


@pytest.mark.parametrize("absent", [(), (7,), (0, 3, 5)])
def test_metrics_are_sklearns(absent):
    random = np.random.default_rng(1)
    logits, target = random.normal(size=(200, 8)), random.dirichlet(np.ones(8), 200)
    target[:, absent] = 0
    target /= target.sum(1, keepdims=True)
    label, predicted = target.argmax(1), logits.argmax(1)
    got = classification(logits, target, NAMES)
    assert next(iter(got)) == "8way"
    assert got["8way"]["acc"] == pytest.approx(sk.accuracy_score(label, predicted))
    assert got["8way"]["macro_f1"] == pytest.approx(
        sk.f1_score(label, predicted, average="macro", labels=range(8), zero_division=0)
    )
    present = [i for i in range(8) if i not in absent]
    recall = sk.recall_score(label, predicted, average=None, labels=present, zero_division=0)
    assert got["8way"]["bacc"] == pytest.approx(recall.mean())
    assert got["confusion"] == sk.confusion_matrix(label, predicted, labels=range(8)).tolist()
    assert got["nll"] == pytest.approx(-(target * np.log(softmax(logits))).sum(1).mean())

    among = np.array(present)[logits[:, present].argmax(1)]
    assert got["present_only"]["present_idx"] == present
    assert got["present_only"]["acc"] == pytest.approx(sk.accuracy_score(label, among))
    assert got["present_only"]["macro_f1"] == pytest.approx(
        sk.f1_score(label, among, average="macro", labels=present, zero_division=0)
    )
