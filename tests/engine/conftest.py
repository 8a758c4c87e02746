"""A tiny sweep, trained once a session: what sweep, tables and report are tested on."""

import contextlib
import io
import sys

import numpy as np
import pytest
import yaml

from affect.engine.cli.main import main
from affect.engine.distill.softlabels import write_softlabels
from affect.shards.dataset import Dataset
from affect.shards.pack import pack
from affect.shards.sources.synthetic_faces import SyntheticSource


@pytest.fixture(scope="session")
def place(tmp_path_factory, synthetic):
    """A folder with a base config of all terms, what they read, and two sets besides validation."""
    place = tmp_path_factory.mktemp("sweep")
    dataset = Dataset(synthetic)
    random = np.random.default_rng(0)
    names, label = dataset.info.layout.output("emotion").names, dataset.targets("emotion").argmax(1)
    logits = random.normal(size=(len(label), len(names))).astype(np.float16)
    write_softlabels(place / "soft", dataset, logits, label, names, {"ensemble_metrics.json": {"scale": "calibrated"}})
    axis = np.linspace(-0.8, 0.8, 5)
    centers = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    np.savez(place / "prototypes.npz", prototypes=random.normal(size=(25, 8)).astype(np.float32), centers=centers)
    pack(SyntheticSource(60, size=48, subjects=6, seed=7), place / "other")
    np.savez(place / "few.npz", images=random.integers(0, 256, (12, 48, 48), np.uint8), labels=np.arange(12) % 4)
    base = {
        "task": "emotion_student",
        "data": {"dataset": str(synthetic), "batch_size": 64, "resize": 1.0, "clahe": None},
        "model": {"backbone": "test_resnet", "image_size": 32},
        "optim": {"epochs": 1, "lr": 2e-3, "warmup_epochs": 0.2},
        "loss": {
            "teacher": {"soft_labels": str(place / "soft")}, "kd_mse": {},
            "proto_kd": {"prototypes": str(place / "prototypes.npz")},
            "d_geo": {"schedule": "constant"},
        },
        "train": {"precision": "off", "track": []},
    }  # fmt: skip
    (place / "base.yaml").write_text(yaml.safe_dump(base))
    return place


@pytest.fixture(scope="session")
def write(place):
    """write(points=...) -> the path of a sweep with these keys."""

    def write(name="sweep", **keys):
        value = {"base": str(place / "base.yaml"), "select_on": [{"other": str(place / "other")}], **keys}
        (place / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
        return str(place / f"{name}.yaml")

    return write


@pytest.fixture(scope="session")
def swept(place, write):
    """The folder of a finished sweep, and what it printed."""
    report_on = ["val", {"few": {"path": str(place / "few.npz"), "class_map": "ferplus"}}]
    points = {
        "full": {},
        "ce_only": {"loss.d_geo": None, "loss.kd_mse": None, "loss.proto_kd": None, "loss.teacher": None},
    }
    config = write(points=points, report_on=report_on)
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr("affect.engine.pipeline.export_run", lambda folder: (folder / "last.onnx").touch())  # graphs take longest
        patch.setattr("affect.engine.evaluation.class_figures.confusion_plot", lambda *_: None)
        patch.setattr(sys, "argv", ["affect", "sweep", config, "--out", str(place / "out")])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return place / "out", config, out.getvalue()
