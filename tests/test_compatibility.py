"""Configs, datasets, runs and packages of version 0.1, in tests/fixtures/v0_1, still load; its run goes on where it stopped.

They were made before the tree and its names became what they are: `clahe.clip` was the key of `clahe.clip_limit`.
"""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

OLD = Path(__file__).parent / "fixtures" / "v0_1"
DIGEST = json.loads((OLD / "run/fingerprint.json").read_text())["config"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder in which the old config's paths hold: data/faces, runs/old."""
    shutil.copytree(OLD / "dataset", tmp_path / "data/faces")
    shutil.copytree(OLD / "run", tmp_path / "runs/old")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_config_reads_as_before_under_the_digest_of_before():
    from affect.engine.config.load import load_config

    run = load_config(str(OLD / "config.yaml"))
    assert (run.data.clahe.clip_limit, run.data.clahe.clip_jitter, run.preprocess.clahe.clip_limit) == (3.0, 0.3, 3.0)
    assert run.digest == DIGEST
    assert "clip_limit" in yaml.safe_load(run.dump())["data"]["clahe"]


def test_both_names_of_a_key_at_once_are_refused(tmp_path):
    from affect.engine.config.load import load_config
    from affect.shards.errors import InputError

    with pytest.raises(InputError, match=r"data\.clahe\.clip: unknown key"):
        load_config(str(OLD / "config.yaml"), ["data.clahe.clip_limit=2.0"])


def test_a_dataset_verifies_and_reads(place, affect):
    from affect.shards.dataset import Dataset

    assert affect("verify", place / "data/faces")[0] == 0
    dataset = Dataset(place / "data/faces")
    assert sum(dataset.info.counts.values()) == 60 and dataset.info.layout.output("emotion").names[0] == "neutral"


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(place, affect):
    code, _, err = affect("train", OLD / "config.yaml", "--out", "runs/old", "--resume")
    assert code == 0, err
    history, undisturbed = (
        json.loads(Path(file).read_text()) for file in ("runs/old/history.json", OLD / "history_undisturbed.json")
    )
    assert [line["epoch"] for line in history] == [0, 1, 2]
    assert history[:2] == json.loads((OLD / "run/history.json").read_text())
    assert history[2]["train_loss"] == pytest.approx(undisturbed[2]["train_loss"], rel=1e-3)  # processors round differently


@pytest.mark.slow
def test_a_run_is_evaluated_and_exported(place, affect):
    code, _, err = affect("evaluate", "runs/old", "--data", "data/faces")
    assert code == 0, err


def test_a_package_answers():
    from affect.engine import Engine

    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8), (32, 32))
    with Engine.load(OLD / "package", backend="onnxruntime") as engine:
        assert engine.package.preprocess.clahe.clip_limit == 3.0
        face = engine.predict(image)[0].faces[0]
    assert sum(face.probs.values()) == pytest.approx(1, abs=1e-5)
