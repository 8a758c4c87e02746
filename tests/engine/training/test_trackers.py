"""Each epoch's numbers reach the services that were asked for, once."""

import json
import sys
from types import SimpleNamespace

import pytest

from affect.engine.training.trackers import SENT, scalars, tracker
from affect.shards.errors import InputError

CONFIG = {"task": "emotion_student", "optim": {"lr": 1e-3, "epochs": 3}}


def line(epoch, loss=1.0):
    return {
        "epoch": epoch, "train_loss": loss, "losses": {"cross_entropy": loss}, "margin": 0.2, "lr": 1e-3, "seconds": 2.0,
        "images_per_s": 100.0, "waiting_share": 0.01, "final_head": True,
        "val": {"accuracy": 0.5, "macro_f1": 0.4, "bacc": 0.45, "nll": 1.5},
    }  # fmt: skip


NAMES = {
    "train/loss", "train/cross_entropy", "train/margin", "train/lr", "train/seconds", "train/images_per_s",
    "train/waiting_share", "val/accuracy", "val/macro_f1", "val/bacc", "val/nll",
}  # fmt: skip


def send(services, out, *lines):
    with tracker(services, out, "RN18_seed1", CONFIG) as tracked:
        for each in lines:
            tracked.log(each)


def events(out):
    """Name -> [(epoch, value)], as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(out / "tensorboard"))
    read.Reload()
    return {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


@pytest.fixture
def mlflow(monkeypatch):
    """A module that writes down what it is asked."""
    calls = []

    def start_run(**settings):
        calls.append(("start_run", settings))
        return SimpleNamespace(info=SimpleNamespace(run_id="m1"))

    fake = SimpleNamespace(
        start_run=start_run, calls=calls,
        set_experiment=lambda name: calls.append(("set_experiment", name)),
        log_params=lambda values: calls.append(("log_params", values)),
        log_metrics=lambda values, step: calls.append(("log_metrics", values, step)),
        end_run=lambda: calls.append(("end_run",)),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


@pytest.fixture
def wandb(monkeypatch):
    calls = []
    run = SimpleNamespace(
        id="w1", log=lambda values, step: calls.append(("log", values, step)), finish=lambda: calls.append(("finish",))
    )

    def init(**settings):
        calls.append(("init", settings))
        return run

    fake = SimpleNamespace(init=init, calls=calls)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_a_line_is_numbers_by_name():
    found = scalars(line(3, loss=0.7))
    assert found.keys() == NAMES
    assert found["train/loss"] == 0.7 and found["val/accuracy"] == 0.5


def test_event_files_hold_the_scalars(tmp_path):
    send(["tensorboard"], tmp_path, line(0, 2.0), line(1, 1.0))
    found = events(tmp_path)
    assert found.keys() == NAMES
    assert found["train/loss"] == [(0, 2.0), (1, 1.0)]


def test_a_resumed_run_has_each_epoch_once(tmp_path):
    send(["tensorboard"], tmp_path, line(0, 2.0), line(1, 9.0))
    send(["tensorboard"], tmp_path, line(1, 1.0), line(2, 0.5))
    assert events(tmp_path)["train/loss"] == [(0, 2.0), (1, 1.0), (2, 0.5)]


def test_mlflow_is_sent_each_epoch_once(mlflow, tmp_path):
    send(["mlflow"], tmp_path, line(0), line(1))
    send(["mlflow"], tmp_path, line(1), line(2))
    assert mlflow.calls == [
        ("set_experiment", "affect"),
        ("start_run", {"run_name": "RN18_seed1"}),
        ("log_params", {"task": "emotion_student", "optim.lr": 1e-3, "optim.epochs": 3}),
        ("log_metrics", scalars(line(0)), 0),
        ("log_metrics", scalars(line(1)), 1),
        ("end_run",),
        ("start_run", {"run_id": "m1"}),
        ("log_metrics", scalars(line(2)), 2),
        ("end_run",),
    ]


def test_wandb_is_sent_each_epoch_once(wandb, tmp_path):
    send(["wandb"], tmp_path, line(0))
    send(["wandb"], tmp_path, line(0), line(1))
    settings = {"project": "affect", "name": "RN18_seed1", "dir": str(tmp_path), "config": CONFIG, "resume": "allow"}
    assert wandb.calls == [
        ("init", {**settings, "id": None}),
        ("log", scalars(line(0)), 0),
        ("finish",),
        ("init", {**settings, "id": "w1"}),
        ("log", scalars(line(1)), 1),
        ("finish",),
    ]
    assert json.loads((tmp_path / SENT).read_text()) == {"wandb": {"id": "w1", "epoch": 1}}


def test_who_logs_nothing_begins_nothing(mlflow, wandb, tmp_path):
    send(["tensorboard", "mlflow", "wandb"], tmp_path / "run")
    assert not mlflow.calls and not wandb.calls and not (tmp_path / "run").exists()


def test_a_server_that_fails_ends_no_training(mlflow, tmp_path, monkeypatch, capsys):
    def refuse(values, step):
        raise ConnectionError("no route")

    monkeypatch.setattr(mlflow, "log_metrics", refuse)
    send(["mlflow", "tensorboard"], tmp_path, line(0))
    assert "mlflow did not take epoch 0 (ConnectionError: no route); history.json has it" in capsys.readouterr().err
    assert events(tmp_path)["train/loss"] == [(0, 1.0)]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named_with_its_remedy(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"{name} is not installed: pip install {name}, or take it out of train.track"):
        tracker([name], tmp_path, "run", CONFIG)


def test_an_unknown_service_is_named(tmp_path):
    with pytest.raises(InputError, match="'tensorbord'; did you mean 'tensorboard'"):
        tracker(["tensorbord"], tmp_path, "run", CONFIG)
