"""Emotion and action units together: from drawn faces to predictions, and the warnings where labels are missing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affect.engine import Engine
from affect.engine.config.load import load_config
from affect.engine.data.build import train_loader
from affect.engine.data.selection import open_dataset
from affect.engine.evaluation.evaluate import evaluate
from affect.engine.evaluation.scorer import Scorer
from affect.engine.losses.base import TrainingRows
from affect.engine.losses.build import LossFunction
from affect.engine.models.build import build_model
from affect.engine.pipeline import train
from affect.engine.report.criteria import criteria_table
from affect.engine.runtime.pspi import pspi_proxy
from affect.engine.system.distributed import Ranks
from affect.engine.tasks import TASKS
from affect.engine.training.diagnostics import Hints, loss_ratio
from affect.engine.training.task_outputs import task_of
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.arrays import NpzSource
from affect.shards.sources.synthetic_faces import SyntheticSource

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Drawn faces with units, some of val for calibration."""
    out = tmp_path_factory.mktemp("au") / "faces"
    pack(SyntheticSource(480, size=48, subjects=20, seed=5), out, calib=0.4)
    return out


@pytest.fixture(scope="module")
def emotions(tmp_path_factory):
    """Faces of an npz without units."""
    folder, random = tmp_path_factory.mktemp("au"), np.random.default_rng(0)
    images, votes = random.integers(0, 255, (40, 48, 48), np.uint8), np.eye(10, dtype=np.uint8)[np.arange(40) % 8] * 10
    np.savez(folder / "f.npz", images=images, votes=votes)
    source = NpzSource(folder / "f.npz")
    draw = source.samples
    source.samples = lambda: (replace(sample, split="val" if i % 4 == 0 else "train") for i, sample in enumerate(draw()))
    pack(source, folder / "npz")
    return folder / "npz"


def config(dataset, *more):
    values = {
        "data.dataset": dataset, "data.batch_size": 32, "data.resize": 1.0, "data.clahe": None, "data.augment.jitter": None,
        "model.backbone": "test_resnet", "model.image_size": 32, "model.hidden": [32, 16], "model.dropout": 0.1,
        "optim.epochs": 2, "optim.warmup_epochs": 0.2, "optim.lr": 2e-3, "train.precision": "off", "train.track": [],
    }  # fmt: skip
    return load_config("rafce_multitask", [*(f"{key}={value}".replace("None", "null") for key, value in values.items()), *more])


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("au") / "run"
    train(config(faces, "model.au_attention=true"), out)
    return out


@pytest.mark.slow
def test_the_folder_says_what_both_heads_do(run):
    metrics = json.loads((run / "metrics.json").read_text())
    units = metrics["outputs"]["au"]
    low, high = metrics["macro_f1_interval"]
    assert 0 <= low <= metrics["8way"]["macro_f1"] <= high <= 1 and "gap" in metrics
    assert units["units"]["AU12"]["support"] > 0 and 0 < units["macro_auc"] <= 1
    thresholds = json.loads((run / "calibration.json").read_text())["thresholds"]
    assert set(thresholds) == set(units["units"]) and thresholds["AU12"] == units["units"]["AU12"]["threshold"]
    assert all((run / name).is_file() for name in ("au.png", "criteria.md", "confmat.png", "package/manifest.json"))
    line = json.loads((run / "history.json").read_text())[-1]
    assert loss_ratio(line) > 0 and {"au_macro_f1", "train_au_macro_f1", "gap", "min_f1"} <= set(line["val"])


@pytest.mark.slow
def test_engine_and_evaluation_give_both_heads(run, faces, tmp_path):
    engine, dataset = Engine.load(run), open_dataset(faces)
    row = int(dataset.rows("val")[0])
    (frame,) = engine.predict([np.full((48, 48, 3), 90, np.uint8)])
    outputs = frame.faces[0].outputs["run"]
    units = outputs["au"]
    holds = [name for name, value in zip(units.names, units.values, strict=True) if value >= engine.package.thresholds[name]]
    assert list(units.labels) == holds and frame.faces[0].label in outputs["emotion"].names and row >= 0
    assert outputs["pspi_proxy"].values[0] == pspi_proxy({name: name in units.labels for name in units.names})
    by_run, by_package = (evaluate(path, faces, "val", tmp_path / path.name) for path in (run, run / "package"))
    own = json.loads((run / "metrics.json").read_text())["outputs"]["au"]
    assert by_run["outputs"]["au"]["macro_f1"] == pytest.approx(own["macro_f1"], abs=1e-6)
    assert by_package["outputs"]["au"]["macro_auc"] == pytest.approx(own["macro_auc"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [True, False])
def test_an_output_does_not_depend_on_the_batch(faces, attention):
    run = config(faces, f"model.au_attention={attention}")
    layout = open_dataset(faces).info.layout
    torch.manual_seed(0)
    model = build_model(run, TASKS["emotion_au"], layout).eval()
    images = torch.randint(0, 255, (6, 32, 32, 3), dtype=torch.uint8)
    together, alone = model(images)[1], [model(images[i : i + 1])[1] for i in range(6)]
    for name in ("emotion", "au"):
        assert torch.allclose(together[name], torch.cat([out[name] for out in alone]), atol=1e-5)
    gated = model.head.guess is not None
    assert gated is attention


def test_rows_without_units_leave_the_unit_head_alone(faces, emotions):
    """A mixed dataset trains both heads; the gradient of the unit head is exactly zero on unlabelled rows."""
    run = config(f"[{emotions},{faces}]", "model.au_attention=true")
    dataset = open_dataset(run.data.dataset)
    task = task_of(run, dataset)
    assert task.outputs == ("emotion", "au")
    loader = train_loader(run, task, dataset, Ranks(CPU))
    model = build_model(run, task, dataset.info.layout)
    rows = TrainingRows(dataset, loader.targets, loader.order.rows, CPU)
    loss = LossFunction(run, task, rows, model.head.width)
    batch = next(batch for batch in loader.from_step(0) if 0 < batch.mask["au"].amax(1).sum() < 32)
    known = batch.mask["au"].amax(1) > 0
    logits = {name: torch.zeros(32, len(dataset.info.layout.output(name).names), requires_grad=True) for name in task.outputs}
    losses = loss(torch.zeros(32, 16), logits, batch, loss.counts(batch))
    emotion, units = torch.autograd.grad(losses.total, [logits["emotion"], logits["au"]])
    assert (units[~known] == 0).all() and (units[known].abs().sum(1) > 0).all() and (emotion.abs().sum(1) > 0).all()
    each = F.binary_cross_entropy_with_logits(logits["au"], batch.targets["au"], reduction="none")[known].mean()
    assert losses.parts["au_bce"].item() == pytest.approx(each.item() * known.float().mean().item(), rel=1e-5)
    assert loss.at_epoch(0)["au_ramp"] == 1
    unlabelled = replace(batch, weight=batch.weight * ~known)
    loss(*model(batch.inputs), unlabelled, loss.counts(batch)).total.backward()
    head = model.head
    of_units = [*head.outputs["au"].parameters(), *head.guess.parameters(), *head.open.parameters()]
    assert all((weight.grad == 0).all() for weight in of_units) and head.outputs["emotion"].weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_without_units_the_emotion_is_trained_alone_and_it_is_said(emotions, tmp_path, capsys):
    train(config(emotions, "optim.epochs=1", "optim.warmup_epochs=0"), tmp_path / "run")
    assert "au: " in (log := capsys.readouterr().err) and "has no such labels; training emotion alone" in log
    layout = json.loads((tmp_path / "run/package/manifest.json").read_text())["layout"]
    assert [output["name"] for output in layout] == ["emotion"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["optim.select_by=acuracy"], "no figure 'acuracy'; did you mean 'accuracy'"),
        (["data.labelled=[pain]"], "no output 'pain'"),
        (["loss.arcface={}"], "no focal loss"),
        (["loss.arcface={}", "loss.focal_gamma=0"], "no cosine head"),
        (["loss.focal_gamma=-1"], "focal_gamma"),
        (["data.sampler=balanced", "loss.class_weights=balanced"], "twice"),
        (["loss.au.from_epoch=1", "loss.au.full_epoch=2"], "whole at epoch 2, but the last of optim.epochs=2 is 1"),
        (["loss.au.pos_wieght=balanced"], "did you mean 'pos_weight'"),
    ],
)
def test_bad_settings(faces, settings, text):
    def prepared():
        run, dataset = config(faces, *settings), open_dataset(faces)
        return Scorer(run, task_of(run, dataset), dataset)

    with pytest.raises(InputError, match=text):
        prepared()


def test_only_rows_with_units_where_asked(faces, emotions):
    run = config(f"[{emotions},{faces}]", "data.labelled=[au]")
    dataset = open_dataset(run.data.dataset)
    rows = train_loader(run, task_of(run, dataset), dataset, Ranks(CPU)).planner.order.rows
    assert len(rows) == len(open_dataset(faces).rows("train"))


def line(epoch, accuracy=0.6, **val):
    weighted = {"cross_entropy": 1.0, "au_bce": val.pop("au_bce", 0.5)}
    return {"epoch": epoch, "weighted_losses": weighted, "val": {"accuracy": accuracy, "au_macro_f1": 0.5, **val}}


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ([line(i) for i in range(8)], ""),
        ([line(i, au_macro_f1=0.0) for i in range(5)], "--set loss.au.weight=2"),
        ([line(0, au_bce=0.001)], "--set loss.au.weight=1e+03"),
        ([line(0, gap=0.31)], "--set model.dropout=0.6 or --set optim.weight_decay=0.002"),
        (
            [line(i, **{"min_f1": 0.0, "f1.Happily sad": 0.0, "f1.Sadly angry": 0.1}) for i in range(5)],
            "F1 is 0 of Happily sad: --set data.sampler=balanced",
        ),
        ([line(i, 0.9 if i == 2 else 0.6) for i in range(9)], "--set optim.lr=0.00025"),
    ],
)
def test_hints_name_what_to_try_and_come_once(history, says):
    messages: list[str] = []
    hints = Hints(load_config("rafce_multitask"), messages.append)
    for each in history:
        hints.log(each)
    assert len(messages) == (1 if says else 0) and says in "".join(messages)


def test_the_criteria_are_the_seeds_and_judge():
    metrics = {"14way": {"acc": 0.56, "macro_f1": 0.4}, "outputs": {"au": {"macro_f1": float("nan")}}, "gap": 0.2}
    metrics["per_class"] = {"Happily fearful": {"f1": 0.0, "support": 0}, "Sadly surprised": {"f1": 0.3, "support": 2}}
    rows = {row[0]: row[-1] for row in criteria_table(TASKS["emotion_au"].criteria, metrics).cells}
    assert rows["validation accuracy"] == "pass" and rows["macro-F1"] == "fail" and rows["train-validation gap"] == "pass"
    assert rows["AU-F1"] == rows["F1 of Happily sad"] == rows["F1 of Happily fearful"] == "not measured"
    assert rows["F1 of Sadly surprised"] == "pass"


@pytest.mark.parametrize(
    ("holds", "want"),
    [((), 0), (("AU4", "AU7", "AU10", "AU43"), 4), (("AU6", "AU7"), 1), (("AU12",), 0)],
)
def test_the_pain_proxy_adds_presence(holds, want):
    units = ("AU4", "AU6", "AU7", "AU9", "AU10", "AU12", "AU43")
    assert pspi_proxy({name: name in holds for name in units}) == want
    assert pspi_proxy({name: True for name in units if name != "AU43"}) is None


@pytest.mark.parametrize("name", ["multitask", "au_attention", "minimal_aug", "emotion_only", "weak_au"])
def test_the_seeds_commands(name):
    run, name = load_config(f"rafce_{name}"), f"rafce_{name}"
    assert run.model.backbone == "resnet50" and run.loss.focal_gamma == 2 and run.model.hidden == [1024, 512]
    assert Path(f"runs/{run.folder}").name.startswith(name)
