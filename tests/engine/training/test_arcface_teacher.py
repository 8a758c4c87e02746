"""The ArcFace teacher: which head is trained, what resumes, what is refused, several processes as one."""

import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch

from affect.engine.config.load import load_config
from affect.engine.data.loader import Loader
from affect.engine.models.heads import ArcFaceHead
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST, LAST
from affect.engine.runs.folder import locked, read_history
from affect.engine.system.folder_lock import LOCK
from affect.engine.tasks import TASKS
from affect.engine.training import trainer as module
from affect.engine.training.auto_batch_size import with_batch_size
from affect.engine.training.early_stopping import best_epoch, stale_epochs
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

from ..stubs import same

TEACHER = [
    "task=emotion_teacher", "optim.epochs=3", "optim.warmup_epochs=0.5", "loss.class_weights=balanced",
    "loss.arcface={from_epoch: 1, full_epoch: 2}", "model.embedding=16", "model.dropout=0.2", "optim.ema=0.9",
    "optim.accumulate=2", "data.augment.mixup=0.2",
]  # fmt: skip


@pytest.fixture(scope="module")
def teacher(train, settings, tmp_path_factory):
    """Three epochs: one of the plain head, two of the cosine head; EMA, accumulation, mixup and class weights on."""
    out = tmp_path_factory.mktemp("runs") / "teacher"
    train([*settings, *TEACHER], out)
    return out


@pytest.mark.slow
def test_the_margin_rises_and_the_best_is_of_the_cosine_head(teacher):
    history = read_history(teacher)
    assert [line["margin"] for line in history] == [0, 0, 0.35]
    assert [line["final_head"] for line in history] == [False, True, True]
    best = load(teacher / BEST)
    assert len(best["history"]) > 1  # not of epoch 0, whatever it scored
    assert bool(best["model"]["head.cosine"])


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 13])
def test_resumed_with_ema_accumulation_and_mixup_equals_undisturbed(teacher, settings, train, tmp_path, monkeypatch, stop):
    """Stopped within the plain epoch and within the cosine head's first."""

    class Stop(Exception):
        pass

    def stopped(batches, timed=module._timed):
        for i, pair in enumerate(timed(batches)):
            if i == stop:
                raise Stop
            yield pair

    with monkeypatch.context() as patch:
        patch.setattr(module, "_timed", stopped)
        with pytest.raises(Stop):
            train([*settings, *TEACHER, "train.checkpoint_every_s=1e-6"], tmp_path / "run")
    assert load(tmp_path / "run" / LAST)["step"] == stop
    train([*settings, *TEACHER], tmp_path / "run", resume=True)
    for name in (BEST, LAST):
        a, b = load(tmp_path / "run" / name), load(teacher / name)
        for key in a:
            assert same(a[key], b[key]), f"{name}: {key}"


def test_the_average_is_what_is_scored_and_kept(teacher):
    best, last = load(teacher / BEST), load(teacher / LAST)
    if len(best["history"]) == len(last["history"]):
        assert same(best["model"], last["ema"])
    assert not same(last["ema"], last["model"])


@pytest.mark.parametrize("cosine", [False, True])
def test_the_head_that_is_trained_is_the_one_that_answers(settings, cosine):
    run = load_config("smoke", [*settings, *TEACHER])
    head = ArcFaceHead(12, {"emotion": 8}, run).eval()
    head.at_epoch(1 if cosine else 0)
    features = torch.randn(5, 12)
    embedding, logits = head(features)
    weight = head.classes["emotion"]
    cosines = torch.nn.functional.cosine_similarity(embedding[:, None], weight[None], dim=2)
    want = 30 * cosines if cosine else head.plain["emotion"](embedding)
    assert torch.allclose(logits["emotion"], want, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        _, half = head(features)
    assert half["emotion"].dtype is torch.float32
    grads = torch.autograd.grad(logits["emotion"].square().sum(), [weight, head.plain["emotion"].weight], materialize_grads=True)
    assert [bool(grad.any()) for grad in grads] == [cosine, not cosine]


@pytest.mark.parametrize("change", ["loss.label_smoothing=0.1", "loss.arcface.margin=0.2", "optim.ema=0", "optim.weight_decay=0"])
def test_resume_refuses_another_loss_or_optimiser(teacher, settings, train, change):
    with pytest.raises(InputError, match=f"{change.partition('=')[0]}: .* in the run, "):
        train([*settings, *TEACHER, change], teacher, resume=True)


@pytest.mark.slow
def test_stage_b_starts_from_stage_a_at_another_size(teacher, settings, train, tmp_path):
    stage_b = [*settings, *TEACHER, "model.image_size=48", "optim.epochs=1", "loss.arcface={from_epoch: 0, full_epoch: 0}"]
    train(stage_b, tmp_path / "b", init_from=teacher)
    lineage = json.loads((tmp_path / "b" / "alignmentreport.json").read_text())["init_from"]
    import hashlib

    assert lineage["sha256"] == hashlib.sha256((teacher / BEST).read_bytes()).hexdigest()
    assert load(tmp_path / "b" / BEST)["fingerprint"]["init"] == lineage["sha256"]
    assert read_history(tmp_path / "b")[0]["margin"] == 0.35

    with pytest.raises(InputError, match="of the backbone are not in it.*start from a run of the same model.backbone"):
        train([*stage_b, "model.backbone=test_vit"], tmp_path / "c", init_from=teacher)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("values", "min_delta", "stale"),
    [([0.1, 0.2, 0.3], 0, 0), ([0.1, 0.3, 0.2, 0.3], 0, 2), ([0.1, 0.105, 0.11], 0.02, 2), ([], 0, 0)],
)
def test_stale_epochs_of_those_that_count(values, min_delta, stale):
    plain = [{"final_head": False, "val": {"f1": 0.9}}] * 5  # better, and of no account
    assert stale_epochs(plain + [{"final_head": True, "val": {"f1": v}} for v in values], "f1", min_delta) == stale


@pytest.mark.slow
def test_early_stopping_ends_the_run_and_so_does_its_resume(settings, train, tmp_path, capsys):
    early = [*settings, "optim.epochs=6", "optim.lr=1e-9", "optim.early_stopping={patience: 1, min_delta: 0.5, min_epochs: 3}"]
    train(early, tmp_path / "run")
    assert len(read_history(tmp_path / "run")) == 3
    assert "ended after epoch 2: macro_f1 has not improved for 2 epochs" in capsys.readouterr().err
    before = load(tmp_path / "run" / LAST)
    train(early, tmp_path / "run", resume=True)
    assert same(load(tmp_path / "run" / LAST), before)


@pytest.mark.slow
def test_the_last_epoch_is_kept_where_none_is_to_be_chosen(settings, train, tmp_path):
    last = [*settings, "optim.epochs=2", "optim.lr=1e-9", "optim.select_by=min_f1", "optim.keep=last"]
    train(last, tmp_path / "run")
    history = read_history(tmp_path / "run")
    assert best_epoch(history, "min_f1") == 0 and best_epoch(history, "min_f1", "last") == 1
    assert len(load(tmp_path / "run" / BEST)["history"]) == 2
    with pytest.raises(InputError, match="keep: last, but early_stopping"):
        load_config("smoke", [*last, "optim.early_stopping={patience: 1}"])


def test_one_process_at_a_time(teacher, settings, train):
    with locked(teacher), pytest.raises(InputError, match="is being written by process"):
        train([*settings, *TEACHER], teacher, resume=True)
    assert not (teacher / LOCK).exists()


@pytest.mark.slow
def test_a_run_that_ended_before_its_first_checkpoint_may_start_anew(settings, train, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "step", full)
        with pytest.raises(
            InputError, match=r"out of memory with 32 pictures of 32 px at once\. .*optim.accumulate=2.*batch_size=16"
        ):
            train(settings, tmp_path / "run")
    train([*settings, "optim.epochs=1"], tmp_path / "run")
    assert len(read_history(tmp_path / "run")) == 1


@pytest.mark.slow
def test_a_part_that_is_not_finite_is_named_with_step_and_samples(settings, train, tmp_path, monkeypatch):
    step = module.Trainer.step

    def poisoned(self, batch):
        parts = step(self, batch)
        return parts | {"cross_entropy": parts["cross_entropy"] * float("nan")} if self.state.step == 12 else parts

    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "step", poisoned)
        with pytest.raises(
            InputError, match=r"loss: cross_entropy is not finite since step 12, whose 32 samples are \d+, .*before remain"
        ):
            train(settings, tmp_path / "run")
    assert load(tmp_path / "run" / LAST)["step"] == 10  # the end of epoch 0


def test_batch_size_auto_is_said_and_kept(settings, tmp_path, capsys):
    run = load_config("smoke", [*settings, "data.batch_size=auto"])
    layout = Dataset(run.data.dataset).info.layout
    assert with_batch_size(run, TASKS[run.task], layout, None).data.batch_size == 64
    assert "auto: 64 samples per update (on a CPU memory is not the limit)" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("data: {batch_size: 48}")
    assert with_batch_size(run, TASKS[run.task], layout, tmp_path).data.batch_size == 48


RANKS = """
import sys
from pathlib import Path
from affect.engine.config.load import load_config
from affect.engine.data.loader import Loader
from affect.engine.evaluation.scorer import Scorer
from affect.engine.system.distributed import first_process
from affect.engine.tasks import TASKS
from affect.engine.training.trainer import fit
from affect.shards.dataset import Dataset

out, settings = Path(sys.argv[1]), sys.argv[2:]
seen, from_step = [], Loader.from_step
def noted(self, step):
    for number, batch in enumerate(from_step(self, step), step):
        if self.planner.augment:
            seen.append((number, batch.sample.tolist()))
        yield batch
Loader.from_step = noted
run = load_config("smoke", settings)
task, dataset = TASKS[run.task], Dataset(run.data.dataset)
fit(run, task, dataset, out, Scorer(run, task, dataset))
import os
Path(f"{out}.seen{os.environ.get('RANK', '0')}").write_text(repr(seen))
"""


@pytest.mark.slow
def test_two_processes_are_one(settings, tmp_path, monkeypatch):
    """The same samples in each step, the same metrics, also with a loss term that learns a projection.

    A network without batch norms, which see a process's share only.
    """
    prototypes = np.random.default_rng(0).standard_normal((4, 6), np.float32)
    np.savez(tmp_path / "p.npz", prototypes=prototypes, centers=np.float32([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]))
    projected = f"loss.proto_kd={{prototypes: {tmp_path / 'p.npz'}, weight: 5, temperature: .5}}"
    settings = [*settings, "model.backbone=test_convnext", "optim.epochs=1", projected]
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    alone, both = tmp_path / "alone", tmp_path / "both"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run([*torchrun, str(script), str(both), *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    monkeypatch.setattr(Loader, "from_step", Loader.from_step)  # which the script changes
    monkeypatch.setattr(sys, "argv", [str(script), str(alone), *settings])
    runpy.run_path(str(script))

    def read(path):
        return dict(eval(path.read_text()))  # a list of (step, samples) that this test wrote

    one, *two = (read(tmp_path / name) for name in ("alone.seen0", "both.seen0", "both.seen1"))
    steps = len(read_history(alone)) * 304 // 32
    for step in range(steps):
        assert one[step] == two[0][step] + two[1][step]
    for a, b in zip(read_history(alone), read_history(both), strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
        assert b["losses"] == pytest.approx(a["losses"], rel=1e-4)
        assert b["val"] == pytest.approx(a["val"], rel=1e-3)
