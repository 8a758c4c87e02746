"""Students trained from soft labels, prototypes and live teachers; every refusal comes before the first step."""

import json

import numpy as np
import pytest
import torch

from affect.engine.config.load import load_config
from affect.engine.data.build import eval_loader
from affect.engine.distill.ensemble_softlabels import soft_labels
from affect.engine.distill.extract import extract
from affect.engine.distill.prototypes import make_prototypes
from affect.engine.distill.teacher import open_teacher
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST, LAST
from affect.engine.runs.folder import read_history
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

from ..stubs import same


@pytest.fixture(scope="module")
def knowledge(trained, synthetic, tmp_path_factory):
    """A folder with soft labels, features and prototypes of the trained run."""
    out = tmp_path_factory.mktemp("knowledge")
    soft_labels([trained], [synthetic], out / "soft")
    extract(trained, [synthetic], "train", out / "features.npz")
    make_prototypes(out / "features.npz", out / "prototypes.npz")
    return out


@pytest.fixture
def everything(knowledge, settings):
    """All terms at once, D-Geo and DKD with their schedules."""
    return [
        *settings, f"loss.teacher={{soft_labels: {knowledge / 'soft'}, scale: raw}}", "loss.cross_entropy=.5",
        "loss.kd={weight: .2, temperature: 2}", "loss.dkd={weight: .2, warmup_epochs: 1}", "loss.kd_mse={}",
        f"loss.proto_kd={{prototypes: {knowledge / 'prototypes.npz'}}}", "loss.d_geo={start_epoch: 0, end_epoch: 1}",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_student_learns_from_all_terms_and_resumes_to_the_bit(everything, train, tmp_path, monkeypatch):
    from affect.engine.training import trainer as module

    train(everything, tmp_path / "whole")
    history = read_history(tmp_path / "whole")
    assert history[0]["losses"].keys() == {"cross_entropy", "kd", "dkd", "kd_mse", "proto_kd", "d_geo"}
    assert [line["dkd_ramp"] for line in history] == [0, 1] and [line["d_geo_ramp"] for line in history] == [0, 1]
    assert history[0]["losses"]["dkd"] == 0 and history[1]["losses"]["dkd"] > 0
    assert history[1]["losses"]["kd"] < history[0]["losses"]["kd"]
    made_from = json.loads((tmp_path / "whole" / "fingerprint.json").read_text())
    assert made_from.keys() >= {"soft_labels", "prototypes"}

    step = module.Trainer.step
    monkeypatch.setattr(module.Trainer, "step", lambda self, batch: exit(3) if self.state.step == 13 else step(self, batch))
    with pytest.raises(SystemExit):
        train([*everything, "train.checkpoint_every_s=1e-6"], tmp_path / "cut")
    monkeypatch.setattr(module.Trainer, "step", step)
    train(everything, tmp_path / "cut", resume=True)
    for name in (BEST, LAST):
        a, b = load(tmp_path / "cut" / name), load(tmp_path / "whole" / name)
        assert all(same(a[key], b[key]) for key in b), name


def test_a_gathered_table_is_what_the_live_teacher_says_of_the_evaluation_view(trained, knowledge, synthetic, settings):
    dataset = Dataset(synthetic)
    stored = f"loss.teacher={{soft_labels: {knowledge / 'soft'}, features: {knowledge / 'features.npz'}, scale: raw}}"
    live = f"loss.teacher={{run: {trained}, online: true, scale: raw}}"
    rows = dataset.rows("train")[:40]
    outputs = []
    for setting in (stored, live):
        run = load_config("smoke", [*settings, "loss.kd={}", setting])
        loader = eval_loader(dataset, rows, run.preprocess, ("emotion",), torch.device("cpu"))
        teacher = open_teacher(run, dataset, "emotion")(torch.device("cpu"))
        outputs.append(teacher(next(loader.from_step(0))))
    table, online = outputs
    assert torch.allclose(table.gathered(), online.gathered(), rtol=2e-3, atol=2e-3)  # float16
    assert torch.allclose(table.features, online.features, atol=1e-5)


@pytest.mark.slow
def test_an_online_teacher_teaches(trained, settings, train, tmp_path):
    more = [f"loss.teacher={{run: {trained}, online: true, scale: raw}}", "loss.kd={}", "data.augment.mixup=.3", "optim.steps=6"]
    train([*settings, *more], tmp_path / "run")
    (line,) = read_history(tmp_path / "run")
    assert line["losses"]["kd"] > 0
    assert "teacher" in json.loads((tmp_path / "run" / "fingerprint.json").read_text())


def test_a_missing_row_fails_before_the_first_step(knowledge, settings, train, tmp_path):
    arrays = dict(np.load(knowledge / "features.npz", allow_pickle=False))
    others = arrays["sample"] != arrays["sample"][5]
    rows = len(others)
    np.savez(
        tmp_path / "f.npz", **{name: value[others] if value.shape[:1] == (rows,) else value for name, value in arrays.items()}
    )
    more = [f"loss.teacher={{features: {tmp_path / 'f.npz'}}}", "optim.steps=2"]
    more += [f"loss.proto_kd={{prototypes: {knowledge / 'prototypes.npz'}, target: teacher}}"]
    with pytest.raises(InputError, match=rf"f.npz: 1 of 304 training rows are not in it, first sample {arrays['sample'][5]};"):
        train([*settings, *more], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_soft_labels_that_changed_are_refused_on_resume(everything, knowledge, train, tmp_path):
    train([*everything, "optim.steps=2"], tmp_path / "run")
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)
    state["fingerprint"]["soft_labels"] = "0" * 64
    torch.save(state, tmp_path / "run" / LAST)
    with pytest.raises(InputError, match="its soft_labels is another file by now"):
        train([*everything, "optim.steps=2"], tmp_path / "run", resume=True)


def test_a_live_teacher_of_other_pictures_is_refused(trained, settings, train, tmp_path):
    more = [f"loss.teacher={{run: {trained}, online: true}}", "loss.kd={}", "model.image_size=48"]
    with pytest.raises(InputError, match=r"sees rgb pictures of 32 px, the student rgb ones of 48; .*affect softlabels"):
        train([*settings, *more], tmp_path / "run")
