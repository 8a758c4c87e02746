"""Fixtures of all tests: small packed datasets, one trained run, one package; each is made once, also for several workers."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # a test is the same on every machine, unless it asks for a GPU
if not os.environ["CUDA_VISIBLE_DEVICES"]:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before any import: read where a kernel is decorated
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # the workers of pytest-xdist share the cores; before any import too

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real():
    """The folder of real data."""
    if not REAL.is_dir():
        pytest.skip(f"real data not found beside the checkout ({REAL.parent.name}/{REAL.name})")
    return REAL


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, make) -> the folder that make(folder) filled, once in a run of pytest for all workers; to be read only."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"

    def once(name, make):
        folder, done = shared / name / name, shared / name / "done"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def videos(real):
    return real / "videos"


@pytest.fixture(scope="session")
def synthetic(once):
    """400 drawn faces of 20 people, 48 px, packed."""
    from affect.shards.pack import pack
    from affect.shards.sources.synthetic_faces import SyntheticSource

    return once("synthetic", lambda out: pack(SyntheticSource(400, size=48, subjects=20), out, shard_samples=150))


@pytest.fixture(scope="session")
def settings(synthetic):
    """`--set` values that make the smoke config tiny."""
    values = {
        "data.dataset": synthetic, "data.batch_size": 32, "model.backbone": "test_resnet", "model.image_size": 32,
        "optim.epochs": 2, "train.precision": "off",
    }  # fmt: skip
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="session")
def train():
    """train(settings, out, resume=False, init_from=None): the training of `affect train smoke --set ...`."""
    from affect.engine.config.load import load_config
    from affect.engine.distill.teacher import open_teacher
    from affect.engine.evaluation.scorer import Scorer
    from affect.engine.tasks import TASKS
    from affect.engine.training.trainer import fit
    from affect.shards.dataset import Dataset

    def train(settings, out, **options):
        run = load_config("smoke", settings)
        task, dataset = TASKS[run.task], Dataset(run.data.dataset)
        teacher = open_teacher(run, dataset, task.outputs[0])
        return fit(run, task, dataset, out, Scorer(run, task, dataset), open_teacher=teacher, **options)

    return train


@pytest.fixture(scope="session")
def trained(train, settings, once, tmp_path_factory):
    """The folder of a run of two epochs; each worker has its copy, which a package is added to."""
    return shutil.copytree(once("tiny", lambda out: train(settings, out)), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def package(trained, once):
    """The package of the trained run."""
    from affect.engine.export.export_run import export

    made = once("package", lambda out: export(shutil.copytree(trained, out / "tiny")))
    return shutil.copytree(made / "tiny" / "package", trained / "package", dirs_exist_ok=True)


@pytest.fixture
def picture():
    """(H, W, 3) uint8 with structure at every scale."""

    def make(height=48, width=48, seed=0):
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        import cv2

        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
        return (smooth + random.integers(-20, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)

    return make


@pytest.fixture
def affect(monkeypatch, capsys):
    """affect("train", "smoke") -> (exit code, standard output, standard error)."""

    from affect.engine.cli.main import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["affect", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return call
