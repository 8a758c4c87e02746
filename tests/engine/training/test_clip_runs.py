"""A run on clips: its losses, its windows, its graphs, and what its package says of a recording."""

import json
from collections import Counter

import av
import numpy as np
import pytest
import torch

from affect.engine import ClipEngine, Engine
from affect.engine.config.load import load_config
from affect.engine.config.optimisation import OptimConfig, PlateauConfig
from affect.engine.data.batch import Batch
from affect.engine.data.build import eval_loader
from affect.engine.data.selection import open_dataset
from affect.engine.evaluation.evaluate import evaluate
from affect.engine.evaluation.evaluated_model import open_model
from affect.engine.evaluation.predictions import pooled, predict_samples
from affect.engine.evaluation.unpacked import evaluate_npz
from affect.engine.losses.scalars import correlation_weights
from affect.engine.pipeline import train
from affect.engine.training.optim import learning_rate
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sample import Clip, Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout

from ..stubs import scalar_loss

pytestmark = pytest.mark.slow  # what is tested is trained and exported first

PAIN = Output("pain", "scalars", ("ears", "eyes", "total"))
STATE = Output("state", "classes", ("no_pain", "acute"))
RATE_HZ = 10.0


def recording(level, frames=12, seed=0):
    """A gray square that grows with the level, on noise."""
    images = np.random.default_rng(seed).integers(60, 90, (frames, 40, 40), np.uint8)
    images[:, 4 : 6 + 3 * level, 4 : 6 + 3 * level] = 220
    return images


class Recordings:
    """40 clips of eight animals, levels 0 to 7; every ninth has no scores."""

    layout, label_protocol, clip = TargetLayout((PAIN, STATE)), "rated", ClipFacts("all")

    def __init__(self):
        self.filtered, self.meta = Counter(), {"moment": str}

    def samples(self):
        for i in range(40):
            level = i % 8
            scores = {"pain.ears": level / 4, "pain.eyes": level / 4, "pain.total": level / 2} if i % 9 else {}
            clip = Clip(tuple(recording(level, seed=i)), tuple(np.arange(12) / RATE_HZ))
            split, state = "val" if i >= 28 else "train", "acute" if level > 3 else "no_pain"
            yield Sample(
                clip, f"clip{i}", split, scores | STATE.one_hot(state), "drawn", group=f"cow{i // 8}x{i >= 28}",
                meta={"moment": "M2" if level > 3 else "M0"},
            )  # fmt: skip

    def fingerprint(self):
        return {"drawn": "1"}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    out = tmp_path_factory.mktemp("clips") / "recordings"
    pack(Recordings(), out)
    return out


@pytest.fixture(scope="module")
def settings(recordings):
    values = {
        "data.dataset": recordings, "data.batch_size": 8, "data.clahe": "null", "model.image_size": 32,
        "model.temporal.hidden": 16, "data.clip.frames": 4, "optim.epochs": 3, "optim.lr": 2e-3, "train.precision": "off",
        "train.track": [], "optim.early_stopping": "null", "data.augment.blur": "null", "loss.scalars.moments": "{M2: 2.0}",
    }  # fmt: skip
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("clips") / "run"
    train(load_config("pain_v2", settings), out)
    return out


@pytest.fixture(scope="module")
def windowed(settings, tmp_path_factory):
    """With a temporal head that a control takes, seen through windows of four frames."""
    out = tmp_path_factory.mktemp("clips") / "windowed"
    more = ["data.clip.choice=window", "model.temporal.head=mean", "optim.epochs=1"]
    train(load_config("pain_v2", [*settings, *more]), out)
    return out


def test_the_folder_has_figures_of_scores_and_state(run):
    metrics = json.loads((run / "metrics.json").read_text())
    pain = metrics["outputs"]["pain"]["scalars"]
    assert pain["total"]["rows"] == 11 and pain["total"]["mae"] < 4 and "2way" in metrics  # one of twelve has no scores
    line = json.loads((run / "history.json").read_text())[-1]
    assert set(line["losses"]) == {"scalar_mse", "cross_entropy", "sum_consistency"} and line["val"]["total_mae"] > 0
    files = json.loads((run / "package/manifest.json").read_text())["files"]
    assert set(files) == {"model.onnx", "encoder.onnx", "temporal.onnx"}
    assert all(fact["parity"]["pain"]["max_abs_logit"] < 1e-3 for fact in files.values())
    assert all((run / name).is_file() for name in ("pain.png", "confmat.png", "curves.png"))


def test_a_package_says_of_frames_what_the_run_says_of_the_clip(run, recordings):
    dataset, engine = open_dataset(recordings), Engine.load(run)
    row = int(dataset.rows("val")[3])
    subject = open_model(run)
    outputs = subject.layout.outputs
    loader = eval_loader(
        dataset, np.array([row]), subject.preprocess, ("pain", "state"), torch.device("cpu"), clip=subject.clip, kind="plain"
    )
    want = predict_samples(subject.predict, loader, outputs).values["pain"][0]
    level, seed = int(dataset.column("path")[row].removeprefix("clip")) % 8, int(dataset.column("path")[row].removeprefix("clip"))
    (clip,) = engine.predict(recording(level, seed=seed), np.arange(12) / RATE_HZ)
    assert isinstance(engine, ClipEngine) and (clip.start_s, clip.end_s) == (0.0, pytest.approx(1.1))
    assert clip.outputs["run"]["pain"].values == pytest.approx(want, abs=1e-3)
    assert clip.outputs["run"]["state"].labels[0] in STATE.names


def test_windows_of_a_video_file_stand_side_by_side(windowed, tmp_path):
    path = tmp_path / "cow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width = stream.height = 40
        for image in recording(5, 48):
            frame = av.VideoFrame.from_ndarray(np.repeat(image[:, :, None], 3, 2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clips = Engine.load(windowed).predict(path)
    assert [clip.start_s for clip in clips] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2.0])  # 20 fps, seen at the 10 of training
    assert clips[0].end_s == pytest.approx(0.3)
    metrics = json.loads((windowed / "metrics.json").read_text())
    assert metrics["windows"]["total_mae"] > 0


def test_windows_are_averaged_clip_by_clip():
    sample, means = pooled(np.array([7, 7, 3, 9, 9, 9]), {"a": np.arange(12.0).reshape(6, 2)})
    assert sample.tolist() == [7, 3, 9] and means["a"].tolist() == [[1, 2], [4, 5], [8, 9]]


def test_run_and_package_evaluate_alike(run, recordings, tmp_path):
    by_run, by_package = (evaluate(path, recordings, "val", tmp_path / path.name) for path in (run, run / "package"))
    for found in (by_run, by_package):
        assert found["rows"] == 12 and found["outputs"]["pain"]["rows"] == 11
    assert by_run["outputs"]["pain"]["mae"] == pytest.approx(by_package["outputs"]["pain"]["mae"], abs=1e-4)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "no frames"),
        ("nowhere.mp4", "nowhere.mp4: missing file"),
        (np.zeros((4, 8, 8, 3), np.float32), "expected .* uint8"),
    ],
)
def test_bad_recordings(run, given, text):
    with pytest.raises(InputError, match=text):
        Engine.load(run).predict(given)


def test_times_that_run_backwards(run):
    with pytest.raises(InputError, match="expected 3 ascending seconds"):
        Engine.load(run).predict(np.zeros((3, 8, 8, 3), np.uint8), [0, 2, 1])


@pytest.mark.parametrize("shape", [(40, 40, 3), (40, 40)])
def test_one_picture_is_no_recording(run, shape):
    """Its rows would be taken for frames."""
    with pytest.raises(InputError, match=r"found one picture, \(40, 40"):
        Engine.load(run).predict(np.zeros(shape, np.uint8))


def test_pictures_are_no_clips(run, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.zeros(4, np.int64))
    with pytest.raises(InputError, match="sees clips of 4 frames"):
        evaluate_npz(run, tmp_path / "x.npz")


def test_the_loss_of_scalars_is_its_formula():
    random = np.random.default_rng(0)
    target = random.uniform(0, 2, (6, 3)).astype(np.float32)
    target[1], target[2, 0] = np.nan, np.nan
    moments = ["M0", "M2", "M2", "M0", "", "M2"]
    loss = scalar_loss(target, moments, ["loss.scalars.moments={M2: 3.0}", "loss.scalars.sum_weight=0.1"])
    said = torch.from_numpy(random.uniform(0, 2, (6, 3)).astype(np.float32)).requires_grad_()
    mask = torch.from_numpy(~np.isnan(target)).float()
    given = torch.from_numpy(np.nan_to_num(target))
    batch = Batch(torch.zeros(6), {"score": given}, {"score": mask}, torch.ones(6), np.arange(6))
    losses = loss(torch.zeros(6, 4), {"score": said}, batch, loss.counts(batch))
    row = torch.tensor([1, 3, 3, 1, 1, 3.0])
    assert losses.parts["scalar_mse"].item() == pytest.approx((((said - given) * mask) ** 2).sum(1).mul(row).sum().item() / 5)
    (slope,) = torch.autograd.grad(losses.parts["scalar_mse"], said)
    assert (slope[1] == 0).all() and slope[2, 0] == 0 and slope[2, 1] != 0


def test_weights_by_correlation_with_the_total():
    total = np.arange(20.0)
    noise = np.random.default_rng(0).normal(size=20)
    targets = np.stack([total, noise, np.ones(20), total], 1)
    found = correlation_weights(targets, ("a", "b", "c", "total"))
    r = abs(np.corrcoef(noise, total)[0, 1])
    assert found == pytest.approx([*(np.array([1, r, r]) / np.mean([1, r, r])), 1])
    with pytest.raises(InputError, match="there is only a, b"):
        correlation_weights(targets[:, :2], ("a", "b"))


@pytest.mark.parametrize(
    ("merits", "factor"),
    [([], 1), ([1, 2, 3], 1), ([3, 2, 2], 1), ([3, 2, 2, 2], 0.5), ([3, 2, 2, 2, 1, 1, 1], 0.25), ([3, 2, 2, 2, 4, 1], 0.5)],
)
def test_the_rate_falls_after_more_than_patience_epochs_without_gain(merits, factor):
    config = OptimConfig(epochs=50, lr=1e-3, warmup_epochs=0, min_lr=1e-7, plateau=PlateauConfig(patience=2))
    assert learning_rate(config, len(merits), merits) == pytest.approx(1e-3 * factor)
    assert learning_rate(config.model_copy(update={"min_lr": 1e-3}), len(merits), merits) == 1e-3
