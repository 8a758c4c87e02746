"""What a finished run keeps: calibration fitted apart, figures, plots, graphs."""

import json
import shutil

import numpy as np
import pytest
import torch

from affect.engine.calibration.calibration import fixed, read_calibration
from affect.engine.calibration.conformal import scores
from affect.engine.config.load import load_config
from affect.engine.config.run import CalibrationConfig
from affect.engine.data.build import eval_loader
from affect.engine.evaluation.evaluate import evaluate
from affect.engine.evaluation.evaluated_model import in_torch
from affect.engine.evaluation.predictions import LabelledPredictions, predict_all
from affect.engine.evaluation.run_reports import reliability_report
from affect.engine.metrics.classification import softmax
from affect.engine.package.model_package import ModelPackage
from affect.engine.pipeline import complete, train
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST, LAST
from affect.engine.runs.trained import trained_model
from affect.engine.system.onnxruntime import metadata_of, session
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.synthetic_faces import SyntheticSource

pytestmark = pytest.mark.slow  # what is tested is trained and exported first


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """A teacher of two epochs on drawn faces of which some are for calibration; as `affect train` leaves it."""
    folder = tmp_path_factory.mktemp("complete")
    pack(SyntheticSource(600, size=48, subjects=30), folder / "data", calib=0.5)
    changed = [
        f"data.dataset={folder / 'data'}", "task=emotion_teacher", "loss.arcface={from_epoch: 0, full_epoch: 1}",
        "model.embedding=16", "model.backbone=small_cnn", "optim.ema=0.9", "species=sheep", "view=from the side",
    ]  # fmt: skip
    train(load_config("smoke", [*settings, *changed]), folder / "run")
    return folder / "run"


def test_the_folder_is_as_designed(run):
    named = """best.pt checkpoint_last.pt best.onnx last.onnx history.json reliabilitymetrics.json calibration.json
        alignmentreport.json environment.json fingerprint.json config.yaml metrics.json confmat.png confmat_present.png
        curves.png reliability.png predictions.npz package pip_freeze.txt git_commit.txt tensorboard"""
    assert {path.name for path in run.iterdir()} == set(named.split())
    assert any(line.startswith("torch==") for line in (run / "pip_freeze.txt").read_text().splitlines())


def logits_of(run, split):
    config, model, _ = trained_model(run)
    dataset = Dataset(config.data.dataset)
    loader = eval_loader(dataset, split, config.preprocess, ("emotion",), torch.device("cpu"))
    return predict_all(in_torch(model), loader)["emotion"], dataset.targets("emotion")[dataset.rows(split)]


def test_figures_are_of_val_and_the_temperature_of_calib(run):
    found, report = read_calibration(run), json.loads((run / "reliabilitymetrics.json").read_text())
    logits, target = logits_of(run, "val")
    calib, _ = logits_of(run, "calib")
    assert found.fitted_on == {"split": "calib", "rows": len(calib)}
    assert report["rows"] == len(logits) and report["split"] == "val"
    label = target.argmax(1)
    assert report["raw"]["accuracy"] == pytest.approx((logits.argmax(1) == label).mean())
    for part, values in (("raw", logits), ("temperature_scaled", logits / found.temperature[0])):
        log_p = values - np.log(np.exp(values.astype(np.float64)).sum(1, keepdims=True))
        assert report[part]["nll"] == pytest.approx(-log_p[np.arange(len(label)), label].mean(), rel=1e-5)
    assert report["sources"].keys() == {"synthetic"}
    best = max(load(run / LAST)["history"], key=lambda line: line["val"]["macro_f1"])
    assert report["epoch"] == best["epoch"]


def test_a_source_is_scored_on_the_classes_it_has():
    label, predicted = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2]
    sources = np.array(["ab"] * 4 + ["c"] * 2, object)
    val = LabelledPredictions(9 * np.eye(3, dtype=np.float32)[predicted], np.eye(3)[label], sources, tuple("abc"))
    report = reliability_report(val, fixed(2.0), {"epoch": 0, "split": "val", "label_protocol": "hard"})
    for part in ("raw", "temperature_scaled"):
        ab, c = (report["sources"][name][part] for name in ("ab", "c"))
        assert (ab["rows"], ab["macro_f1"], ab["macro_f1_classes"]) == (4, pytest.approx((2 / 3 + 4 / 5) / 2), 2)
        assert (c["rows"], c["macro_f1"], c["macro_f1_classes"]) == (2, 1.0, 1) and c["per_class_f1"] == {"c": 1.0}
        assert report[part]["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 1) / 3) and report[part]["macro_f1_classes"] == 3


def test_package_and_run_evaluate_alike_with_the_temperature_inside(run, tmp_path):
    data = load_config(str(run / "config.yaml")).data.dataset
    a = evaluate(run, data, "val", tmp_path / "a")
    b = evaluate(run / "package", data, "val", tmp_path / "b")
    assert a["nll"] == pytest.approx(b["nll"], rel=1e-5) and a["8way"] == b["8way"]
    report = json.loads((run / "reliabilitymetrics.json").read_text())
    assert a["nll"] == pytest.approx(report["temperature_scaled"]["nll"], rel=1e-5)
    both = evaluate(run, data, "val+calib", tmp_path / "c")
    assert both["rows"] == a["rows"] + read_calibration(run).fitted_on["rows"]


def test_best_is_the_package_and_last_the_average_of_the_last_step(run):
    package = ModelPackage.open(run)
    assert (run / "best.onnx").read_bytes() == package.model.read_bytes()
    assert "affect.manifest" in metadata_of(run / "last.onnx")
    assert (package.manifest.species, package.manifest.view, package.manifest.face_px) == ("sheep", "from the side", [48, 48])
    config, model, _ = trained_model(run)
    model.load_state_dict(load(run / LAST)["ema"])
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    want = in_torch(model)(torch.from_numpy(images))["emotion"] / read_calibration(run).temperature[0]
    (got,) = session(run / "last.onnx", ["CPUExecutionProvider"]).run(["emotion.logits"], {"images": images})
    assert np.abs(got - want).max() < 1e-4
    assert config.loss.arcface and bool(load(run / BEST)["model"]["head.cosine"])


def test_calibrated_anew_in_another_mode(run, capsys, monkeypatch, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    complete(run, CalibrationConfig(mode="fixed", temperature=3.0))
    assert read_calibration(run).temperature == (3.0,)
    assert ModelPackage.open(run).manifest.calibration["global_temperature"] == 3.0
    complete(run, CalibrationConfig(mode="vector", coverage=0.8))
    assert len(read_calibration(run).temperature) == 8
    logits, target = logits_of(run, "val")
    backend = session(run / "package" / "model.onnx", ["CPUExecutionProvider"])
    config, _, _ = trained_model(run)
    loader = eval_loader(Dataset(config.data.dataset), "val", config.preprocess, ("emotion",), torch.device("cpu"))
    got = predict_all(lambda images: {"emotion": backend.run(["emotion.logits"], {"images": images.numpy()})[0]}, loader)[
        "emotion"
    ]
    assert np.abs(got - logits / np.array(read_calibration(run).temperature)).max() < 1e-3
    sets_are_fitted_on_calib_and_reported_of_val(run, logits, target)
    monkeypatch.setattr("affect.engine.pipeline.export_run", lambda folder: None)  # graphs take longest
    complete(run, CalibrationConfig())
    assert "sets for coverage 0.8 held under the old temperature, and are left out" in capsys.readouterr().err
    assert read_calibration(run).conformal is None


def sets_are_fitted_on_calib_and_reported_of_val(run, logits, target):
    metrics, conformal = json.loads((run / "metrics.json").read_text()), ModelPackage.open(run).conformal_at(0.8)
    assert conformal == read_calibration(run).conformal and conformal.split == "calib" and next(iter(metrics)) == "8way"
    calib, labels = logits_of(run, "calib")
    temperature, here = np.array(read_calibration(run).temperature), np.arange(len(calib))
    own = scores(softmax(calib / temperature))[here, labels.argmax(1)]
    assert conformal.rows == len(calib)
    assert conformal.threshold == pytest.approx(np.sort(own)[int(np.ceil((len(calib) + 1) * 0.8)) - 1], abs=1e-6)
    holds = conformal.sets(softmax(logits / temperature))[np.arange(len(logits)), target.argmax(1)]
    assert metrics["conformal"]["coverage"] == pytest.approx(holds.mean()) and metrics["conformal"]["rows"] == len(logits)
    assert set(metrics["conformal"]["per_class"]) == set(metrics["per_class"])


def test_without_calib_rows_nothing_is_fitted_and_it_is_said(trained, tmp_path, capsys, monkeypatch):
    copy = shutil.copytree(trained, tmp_path / "copy")
    with monkeypatch.context() as patch:
        patch.setattr("affect.engine.pipeline.export_run", lambda folder: None)  # graphs take longest
        complete(copy)
    assert "has no calib rows to fit on: T = 1. Carve some out of val: affect pack ... --calib 0.3" in " ".join(
        capsys.readouterr().err.split()
    )
    assert read_calibration(copy).mode == "none"
    assert json.loads((copy / "reliabilitymetrics.json").read_text())["temperature_scaled"] is None
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    with pytest.raises(InputError, match="no conformal sets: .* has no calib rows to fit them on. Carve some out of val"):
        complete(copy, CalibrationConfig(coverage=0.9))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
