"""The loop learns, resumes to the bit, and refuses what would be another run."""

import json
import signal
import subprocess
import sys

import pytest
import torch

from affect.engine.config.load import load_config
from affect.engine.data.build import train_loader
from affect.engine.losses.base import TrainingRows
from affect.engine.losses.build import LossFunction
from affect.engine.models.build import build_model
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST, LAST
from affect.engine.runs.folder import read_history
from affect.engine.system.distributed import Ranks
from affect.engine.system.folder_lock import LOCK
from affect.engine.tasks import TASKS
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

from ..stubs import same


def test_a_run_folder_is_complete(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {BEST, LAST, "history.json", "config.yaml", "environment.json", "fingerprint.json"}
    assert not [name for name in names if name.endswith("partial")]
    history = read_history(trained)
    assert [line["epoch"] for line in history] == [0, 1]
    assert history[0].keys() >= {"train_loss", "lr", "seconds", "waiting_share", "val"}
    assert history[0]["val"].keys() >= {"accuracy", "macro_f1", "bacc", "nll"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["emotion_student", "emotion_teacher"])
def test_a_trial_ends_after_its_steps_and_the_kernels_train_as_their_reference(task, settings, train, tmp_path, monkeypatch):
    more = (
        ["loss.arcface.from_epoch=0", "loss.arcface.full_epoch=0", "loss.arcface.margin=.2"] if task == "emotion_teacher" else []
    )
    histories = {}
    for provider in ("reference", "triton"):
        monkeypatch.setenv("KERNELS", provider)
        train([*settings, f"task={task}", "optim.steps=3", *more], tmp_path / provider)
        histories[provider] = read_history(tmp_path / provider)
        assert load(tmp_path / provider / LAST)["step"] == 3
    (want,), (got,) = histories["reference"], histories["triton"]
    assert got["train_loss"] == pytest.approx(want["train_loss"], rel=1e-5)


def test_a_trial_without_its_cosine_head_is_refused(settings, train, tmp_path):
    more = ["task=emotion_teacher", "loss.arcface.from_epoch=1", "loss.arcface.full_epoch=1", "optim.steps=3"]
    with pytest.raises(InputError, match="optim.steps: 3 updates end in epoch 0, before the cosine head.*from_epoch=0"):
        train([*settings, *more], tmp_path / "run")


KILLED = """
import os, signal, sys
from affect.engine.cli.main import main
from affect.engine.training import trainer
write, saves = trainer.save, []
def save(path, state):
    saves.append(path)
    if len(saves) == 8:                     # amid the first epoch's eight checkpoints
        path.with_name(f".{path.name}.partial").write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, state)
trainer.save = save
main()
"""


@pytest.mark.slow
def test_killed_amid_an_epoch_and_resumed_equals_undisturbed(trained, settings, train, tmp_path):
    arguments = ["train", "smoke", "--out", str(tmp_path / "run")]
    for setting in [*settings, "train.checkpoint_every_s=1e-6"]:
        arguments += ["--set", setting]
    process = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    step = load(tmp_path / "run" / LAST)["step"]
    assert 0 < step < 10  # 320 pictures by 32

    train(settings, tmp_path / "run", resume=True)
    for name in (BEST, LAST):
        a, b = load(tmp_path / "run" / name), load(trained / name)
        assert a.keys() == b.keys()
        for key in a:
            assert same(a[key], b[key]), f"{name}: {key}"


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_resumes_to_the_same(trained, settings, train, tmp_path, monkeypatch):
    from affect.engine.training import trainer as module

    def interrupted(batches, timed=module._timed):
        for i, pair in enumerate(timed(batches)):
            if i == 4:
                signal.raise_signal(signal.SIGINT)
            yield pair

    with monkeypatch.context() as patch:
        patch.setattr(module, "_timed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / "run")
    assert load(tmp_path / "run" / LAST)["step"] == 5
    train(settings, tmp_path / "run", resume=True)
    assert same(load(tmp_path / "run" / LAST)["model"], load(trained / LAST)["model"])


TERMINATED = """
import signal
from affect.engine.cli.main import main
from affect.engine.training import trainer
def terminated(batches, timed=trainer._timed):
    for i, pair in enumerate(timed(batches)):
        if i == 4:
            signal.raise_signal(signal.SIGTERM)
        yield pair
trainer._timed = terminated
main()
"""


@pytest.mark.slow
def test_sigterm_saves_the_step_as_ctrl_c_does(trained, settings, train, tmp_path):
    sets = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-c", TERMINATED, "train", "smoke", "--out", str(tmp_path / "run"), *sets]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 130 and "Traceback" not in process.stderr, process.stderr
    assert load(tmp_path / "run" / LAST)["step"] == 5 and not (tmp_path / "run" / LOCK).exists()
    train(settings, tmp_path / "run", resume=True)
    assert same(load(tmp_path / "run" / LAST)["model"], load(trained / LAST)["model"])


def test_a_finished_run_resumes_to_itself(trained, settings, train):
    before = load(trained / LAST)
    train(settings, trained, resume=True)
    assert same(load(trained / LAST), before)


def test_a_run_is_never_overwritten(trained, settings, train):
    with pytest.raises(InputError, match="is there already; go on with it: add --resume"):
        train(settings, trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [("optim.lr=0.5", "optim.lr: 0.002 in the run, 0.5 now"), ("model.backbone=test_vit", "model.backbone")],
)
def test_resume_refuses_another_configuration(trained, settings, train, change, message):
    with pytest.raises(InputError, match=message):
        train([*settings, change], trained, resume=True)


def test_resume_needs_a_run_and_a_whole_checkpoint(trained, settings, train, tmp_path):
    import shutil

    with pytest.raises(InputError, match="no run to resume"):
        train(settings, tmp_path / "none", resume=True)
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / LAST).write_bytes((copy / LAST).read_bytes()[:1000])
    with pytest.raises(InputError, match="not readable as a checkpoint"):
        train(settings, copy, resume=True)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(settings, train, tmp_path):
    with pytest.raises(InputError, match="is not finite since step 1"):
        train([*settings, "optim.lr=1e30", "optim.clip_norm=null", "optim.min_lr=0"], tmp_path / "run")


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050", "test_convnext", "test_efficientnet", "test_vit"])
def test_the_head_is_as_wide_as_the_backbone_says(backbone, settings):
    """A MobileNetV3 has one more layer behind its pooling."""
    run = load_config("smoke", [*settings, f"model.backbone={backbone}", "model.image_size=160"])
    task, dataset = TASKS[run.task], Dataset(run.data.dataset)
    model = build_model(run, task, dataset.info.layout).eval()
    features, outputs = model(torch.zeros(2, 160, 160, 3, dtype=torch.uint8))
    assert features.shape == (2, model.head.width) and outputs["emotion"].shape == (2, 8)


def test_backbones_by_name(settings, train, tmp_path):
    with pytest.raises(InputError, match="timm has no 'resnet81'.*did you mean"):
        train([*settings, "model.backbone=resnet81"], tmp_path / "run")


def first_losses(settings, steps=3):
    """The losses of some plain steps, and the gradient of the last."""
    run, ranks = load_config("smoke", settings), Ranks(torch.device("cpu"))
    task, dataset = TASKS[run.task], Dataset(run.data.dataset)
    torch.manual_seed(0)
    model = build_model(run, task, dataset.info.layout)
    if run.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if run.train.compile == "default" else model
    loader = train_loader(run, task, dataset, ranks)
    rows = TrainingRows(dataset, loader.targets, loader.order.rows, ranks.device)
    loss_fn, stream = LossFunction(run, task, rows, model.head.width), loader.from_step(0)
    dtype = {"bf16": torch.bfloat16, "off": None}[run.train.precision]
    values = []
    for _ in range(steps):
        batch = next(stream)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            features, outputs = forward(batch.inputs)
        loss = loss_fn(features, outputs, batch, loss_fn.counts(batch)).total
        model.zero_grad()
        loss.backward()
        values.append(loss.item())
    return values, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "setting", "tolerance"),
    [
        ("test_resnet", "train.channels_last=true", 1e-4),
        ("small_cnn", "train.compile=default", 1e-3),  # few layers: each is compiled
        ("test_resnet", "train.precision=bf16", 0.05),
    ],
    ids=["channels_last", "compiled", "bf16"],
)
def test_a_fast_step_agrees_with_the_plain_one(settings, backbone, setting, tolerance):
    plain = [*settings, "train.channels_last=false", f"model.backbone={backbone}"]
    (want, want_grad), (got, got_grad) = first_losses(plain), first_losses([*plain, setting])
    assert got == pytest.approx(want, rel=tolerance)
    assert (got_grad - want_grad).norm() < 3 * tolerance * want_grad.norm()


@pytest.mark.slow
def test_synthetic_faces_are_learned(settings, train, tmp_path):
    """Twelve epochs over 304 faces: far above chance (.125) on other people."""
    more = ["model.backbone=small_cnn", "optim.epochs=12", "optim.lr=3e-3", "data.augment.crop=null", "data.augment.jitter=null"]
    train([*settings, *more], tmp_path / "run")
    history = read_history(tmp_path / "run")
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert max(line["val"]["accuracy"] for line in history) > 0.3


def test_history_is_json_for_others(trained):
    assert json.loads((trained / "history.json").read_text())[0]["val"]["accuracy"] >= 0
