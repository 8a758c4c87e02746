"""Files of soft labels are those of the reference recipe, read by row and by name; damaged or foreign ones are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affect.engine.data.build import eval_loader
from affect.engine.distill.ensemble_softlabels import soft_labels
from affect.engine.distill.softlabels import SoftLabels, standardized
from affect.engine.evaluation.evaluated_model import in_torch
from affect.engine.evaluation.predictions import predict_all
from affect.engine.metrics.classification import nll
from affect.engine.runs.trained import trained_model
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.synthetic_faces import EMOTION, SyntheticSource

HALF_ULP = 2.0**-11  # of float16, relative: what writing may cost a logit


class Folded(SyntheticSource):
    """Training rows are of fold 0 or 1, by the subject; one of them has no label."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.meta = {"fold": float}

    def samples(self):
        for i, sample in enumerate(super().samples()):
            fold = {"fold": float(int(sample.group[-4:]) % 2)} if sample.split == "train" else {}
            yield replace(sample, meta=fold, targets={} if i == 159 else sample.targets)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """160 rows: train in two folds, val and calib; another dataset than the runs' own."""
    out = tmp_path_factory.mktemp("softlabels") / "data"
    pack(Folded(160, size=48, subjects=20, val=0.4), out, calib=0.5)
    return out


def logits_of(run, data):
    config, model, _ = trained_model(run)
    dataset = Dataset(data)
    loader = eval_loader(dataset, np.arange(160), config.preprocess, (), torch.device("cpu"), batch=32)
    return predict_all(in_torch(model), loader)["emotion"]


def read(folder, data):
    return SoftLabels.read(folder, Dataset(data), "emotion")


@pytest.fixture(scope="module")
def one(trained, data, tmp_path_factory):
    """Soft labels of one run."""
    out = tmp_path_factory.mktemp("one") / "deep" / "soft"
    soft_labels([trained], [data], out)
    return out


@pytest.fixture
def copied(one, tmp_path):
    return Path(shutil.copytree(one, tmp_path / "soft"))


@pytest.mark.slow
def test_one_teacher_says_its_own_logits_of_every_row(one, trained, data):
    want, result = logits_of(trained, data), read(one, data)
    assert result.logits.dtype == np.float32 and result.scale == "raw" and result.view == "evaluation"
    assert (np.abs(result.logits - want) <= HALF_ULP * np.abs(want) + 1e-5).all()
    assert result.names == EMOTION.names


def test_the_files_are_the_seeds(one, data, trained):
    dataset = Dataset(data)
    with np.load(one / "softlabels.npz") as arrays:
        logits, y = arrays["logits"], arrays["y"]
    assert logits.dtype == np.float16 and y.dtype == np.uint8 and logits.shape == (160, 8)
    lines = [json.loads(line) for line in (one / "softlabels_index.jsonl").read_text().splitlines()]
    target = dataset.targets("emotion")
    assert [line["i"] for line in lines] == list(range(160)) and [line["y"] for line in lines] == y.tolist()
    assert [line["image_path"] for line in lines] == dataset.column("path").tolist() and lines[0]["source"] == "synthetic"
    assert (y == 255).sum() == 1 and (y[y < 255] == target[y < 255].argmax(1)).all()
    assert json.loads((one / "classorder.json").read_text()) == list(EMOTION.names)
    hashes = json.loads((one / "hash_manifest.json").read_text())
    assert (hashes["manifest"], hashes["sha256"]) == ("index.parquet", dataset.index_sha256)
    report = json.loads((one / "alignmentreport.json").read_text())
    assert sum(report["splits"]["train"].values()) == dataset.info.counts["train"] and report["rows"]["labelled"] == 159
    metrics = json.loads((one / "ensemble_metrics.json").read_text())
    rows = dataset.rows("calib")
    assert metrics["temperature"] == metrics["calibration"]["global_temperature"] > 0 and metrics["weights"] == [1.0]
    assert metrics["combined"]["calib"]["nll"] == pytest.approx(nll(logits[rows].astype(np.float32), target[rows]))
    assert metrics["combined_scaled"]["calib"]["nll"] == pytest.approx(metrics["calibration"]["nll_after"], rel=1e-5)
    assert metrics["members"][0]["name"] == trained.name and len(metrics["members"][0]["checkpoint_sha256"]) == 64
    assert metrics["members"][0]["val"]["rows"] == len(dataset.rows("val"))


def test_a_table_is_raw_or_calibrated_and_standardized(one, data):
    result = read(one, data)
    assert result.temperature and (result.table("raw", False) == result.logits).all()
    assert result.table("calibrated", False) == pytest.approx(result.logits / result.temperature)
    for scale in ("raw", "calibrated"):
        table = result.table(scale, True)
        assert table.dtype == np.float32 and np.abs(table.mean(1)).max() < 1e-5 and np.abs(table.std(1) - 1).max() < 1e-4
    bare = replace(result, temperature=None)
    with pytest.raises(InputError, match=r"no temperature was fitted.*loss.teacher.scale=raw"):
        bare.table("calibrated", False)
    assert (replace(bare, scale="calibrated").table("calibrated", False) == result.logits).all()
    assert (standardized(np.full((1, 3), 5.0)) == 0).all()


def test_another_dataset_is_refused(one, synthetic):
    with pytest.raises(InputError, match=r"made for another dataset: found .* expected .* affect softlabels RUN"):
        read(one, synthetic)


def test_another_tools_files_are_matched_by_path(copied, one, data, capsys):
    """Its rows are shuffled, its classes in another order, of its rows one is of no packed picture and three are missing."""
    want, paths, names = read(one, data).logits, Dataset(data).column("path"), ["Happy", *EMOTION.names[:1], *EMOTION.names[2:]]
    columns, rows = [1, 0, *range(2, 8)], np.random.default_rng(0).permutation(160)[:157]
    lines = [{"i": i, "image_path": f"./{paths[row]}", "source": "x", "y": 0} for i, row in enumerate(rows)]
    lines.append({"i": 157, "image_path": "elsewhere.png", "source": "x", "y": 0})
    for name in ("hash_manifest.json", "ensemble_metrics.json"):
        (copied / name).unlink()
    np.savez(copied / "softlabels.npz", logits=np.append(want[rows][:, columns], np.ones((1, 8)), 0).astype(np.float16))
    (copied / "classorder.json").write_text(json.dumps(names))
    (copied / "softlabels_index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = read(copied, data)
    assert (result.logits[rows] == want[rows]).all() and np.isnan(result.logits).all(1).sum() == 3
    assert (result.temperature, result.scale, result.view) == (None, "raw", "unknown")
    assert "157 of 158 rows matched" in capsys.readouterr().err and np.isnan(result.table("raw", True)).all(1).sum() == 3
    theirs = {"manifest": "train.csv", "sha256": next(iter(Dataset(data).info.fingerprint.values()))}
    (copied / "hash_manifest.json").write_text(json.dumps(theirs))
    assert (read(copied, data).logits[rows] == want[rows]).all()


def rewrite(folder, name, text):
    (folder / "hash_manifest.json").unlink(missing_ok=True)
    (folder / name).write_text(text)


def with_logits(folder, logits):
    (folder / "hash_manifest.json").unlink()
    np.savez(folder / "softlabels.npz", logits=logits)


DAMAGE = {
    "no labels": (lambda f: (f / "softlabels.npz").unlink(), "has no softlabels.npz; expected a folder of affect softlabels"),
    "no folder": (shutil.rmtree, "is not there"),
    "a changed byte": (lambda f: (f / "softlabels.npz").open("r+b").write(b"x"), "softlabels.npz: missing, or changed since"),
    "no npz": (lambda f: rewrite(f, "softlabels.npz", "text"), "not readable as an npz"),
    "no manifest": (lambda f: (f / "hash_manifest.json").write_text("[1]"), "expected an object, found list"),
    "half a manifest": (lambda f: (f / "hash_manifest.json").write_text("{}"), "expected {manifest, sha256}"),
    "other classes": (lambda f: rewrite(f, "classorder.json", '["a", "b"]'), "has the classes a, b; .* not the same"),
    "no lines": (lambda f: [(f / n).unlink() for n in ("hash_manifest.json", "softlabels_index.jsonl")], "has neither"),
    "bad lines": (lambda f: rewrite(f, "softlabels_index.jsonl", "{}\n"), "not readable .*image_path"),
    "few lines": (lambda f: rewrite(f, "softlabels_index.jsonl", '{"i": 0, "image_path": "a"}\n'), "1 lines, .* 160 rows"),
    "a bad temperature": (lambda f: rewrite(f, "ensemble_metrics.json", '{"temperature": -1}'), "temperature -1, scale 'raw'"),
    "a bad scale": (lambda f: rewrite(f, "ensemble_metrics.json", '{"scale": "warm"}'), "scale 'warm'; expected"),
    "few columns": (lambda f: with_logits(f, np.ones((160, 7), np.float16)), r"float16 \(160, 7\), expected floats \(N, 8\)"),
    "whole numbers": (lambda f: with_logits(f, np.ones((160, 8), int)), "found int64"),
    "half a row": (lambda f: with_logits(f, np.array([[np.nan] + [1.0] * 7] * 160)), "160 rows are not finite, first 0"),
    "another manifest": (
        lambda f: (f / "hash_manifest.json").write_text('{"manifest": "train.csv", "sha256": "abc"}'),
        r"made for train.csv with sha256 abc.*delete hash_manifest.json",
    ),
    "other paths": (
        lambda f: rewrite(f, "softlabels_index.jsonl", "".join(f'{{"i": {i}, "image_path": "{i}.png"}}\n' for i in range(160))),
        r"no image_path is one of its paths; its own:\n  0.png",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_whole_is_one_message(copied, data, damage):
    make, message = DAMAGE[damage]
    make(copied)
    with pytest.raises(InputError, match=message):
        read(copied, data)
