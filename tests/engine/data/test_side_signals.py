"""Side signals: numbers beside clips that a model learns from, from the index to a package's answer."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from affect.engine import Engine
from affect.engine.cli import running
from affect.engine.config.digest import digest_of
from affect.engine.config.load import load_config
from affect.engine.config.run import RunConfig
from affect.engine.data import side_signals as side
from affect.engine.data.augment import Mix
from affect.engine.data.build import eval_loader, train_loader
from affect.engine.data.mixup import mixed
from affect.engine.data.selection import open_dataset
from affect.engine.evaluation.evaluate import evaluate
from affect.engine.evaluation.evaluated_model import open_model
from affect.engine.evaluation.scorer import Scorer
from affect.engine.export.export_run import export
from affect.engine.models.side_signals import scale_of
from affect.engine.package.model_package import ModelPackage
from affect.engine.pipeline import train
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST, LAST
from affect.engine.runtime.backends import tensorrt_engine as tensorrt
from affect.engine.runtime.backends.onnxruntime import OnnxRuntime
from affect.engine.runtime.backends.openvino import OpenVino
from affect.engine.runtime.backends.torch import TorchBackend
from affect.engine.runtime.side_signals import row_of, signals_by_package
from affect.engine.system.distributed import Ranks
from affect.engine.system.log import say_once
from affect.engine.training.task_outputs import task_of
from affect.engine.training.trainer import Trainer, fit
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sample import Clip, Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout

pytestmark = pytest.mark.slow  # what is tested is trained and exported first

STRESS = Output("stress", "classes", ("none", "stress"))
CPU = torch.device("cpu")
TRAINED, ALL, FRAMES, RATE_HZ = 192, 256, 2, 10.0
SIDE = ["meta.heart_rate", "meta.activity"]


def frames_of(i):
    """Noise that stands still: what moves so much is a cut to a stream."""
    return np.random.default_rng(i).integers(0, 256, (1, 16, 16), np.uint8).repeat(FRAMES, 0)


def numbers_of(i):
    """Of clip i: whether it is stress, and what was measured; every eighth has no activity."""
    random = np.random.default_rng(1000 + i)
    stress = bool(i % 2)
    measured = {"heart_rate": random.normal(560 if stress else 480, 10), "activity": random.normal(0.3, 0.1)}
    return stress, measured if i % 8 else {"heart_rate": measured["heart_rate"]}


class Noise:
    """Clips of noise, in which nothing but the heart rate carries the label."""

    layout, label_protocol, clip = TargetLayout((STRESS,)), "drawn", ClipFacts("all")

    def __init__(self):
        self.filtered = Counter()
        self.meta = dict.fromkeys(("heart_rate", "activity", "always", "never"), float) | {"site": str}

    def samples(self):
        for i in range(ALL):
            stress, measured = numbers_of(i)
            clip = Clip(tuple(frames_of(i)), tuple(np.arange(FRAMES) / RATE_HZ))
            meta = measured | {"always": 3.0, "site": "north" if i < 20 else "south"}
            split = "train" if i < TRAINED else "val"
            yield Sample(clip, f"{i}", split, STRESS.one_hot(STRESS.names[stress]), "drawn", f"m{i}", meta=meta)

    def fingerprint(self):
        return {"drawn": "1"}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    out = tmp_path_factory.mktemp("side") / "noise"
    pack(Noise(), out)
    return out


@pytest.fixture(scope="module")
def config(noise):
    """config(*settings): a small mouse_set on the noise."""
    values = {
        "data.dataset": noise, "data.folds": "null", "data.batch_size": 16, "data.clahe": "null", "data.loader": "plain",
        "data.workers": 1, "data.clip": "{frames: 2}", "data.augment.jitter": "null", "data.augment.blur": "null",
        "model.backbone": "small_cnn", "model.image_size": 16, "model.dropout": 0.5, "optim.epochs": 12, "optim.lr": 0.05,
        "optim.momentum": 0.5,
        "train.precision": "off", "train.track": [],
    }  # fmt: skip
    return lambda *more: load_config("mouse_baseline", [*(f"{key}={value}" for key, value in values.items()), *more])


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("side") / "run"
    train(config(f"data.side={SIDE}"), out)
    return out


@pytest.fixture(scope="module")
def given(noise, run):
    """A batch of the validation clips as the run sees them, some without activity: images and side as arrays."""
    subject = open_model(run)
    loader = eval_loader(
        open_dataset(noise), "val", subject.preprocess, (), CPU, clip=subject.clip, kind="plain", workers=1, side=SIDE
    )
    return [one.numpy() for one in next(loader.from_step(0)).args]


def accuracy(folder):
    return json.loads((folder / "history.json").read_text())[-1]["val"]["accuracy"]


def test_what_the_signal_alone_tells_is_learned_from_it_alone(run, config, tmp_path):
    without = config()
    dataset = open_dataset(without.data.dataset)
    task = task_of(without, dataset)
    fit(without, task, dataset, tmp_path / "without", Scorer(without, task, dataset))
    assert accuracy(run) >= 0.95 and 0.25 <= accuracy(tmp_path / "without") <= 0.75


def test_the_scale_is_that_of_the_training_rows_and_is_kept(run):
    measured = [numbers_of(i)[1] for i in range(TRAINED)]
    held = [[one[name] for one in measured if name in one] for name in ("heart_rate", "activity")]
    signals = json.loads((run / "package/manifest.json").read_text())["side"]
    assert [signal["name"] for signal in signals] == ["heart_rate", "activity"]
    assert [signal["column"] for signal in signals] == SIDE
    assert [signal["mean"] for signal in signals] == pytest.approx([np.mean(of) for of in held], rel=1e-5)
    assert [signal["deviation"] for signal in signals] == pytest.approx([np.std(of) for of in held], rel=1e-4)
    for name in (BEST, LAST):
        assert load(run / name)["model"]["head.standardise.mean"].tolist() == [signal["mean"] for signal in signals]


def test_every_graph_says_what_the_run_says_missing_values_included(run, given):
    want = open_model(run).predict(*map(torch.from_numpy, given))["stress"]
    assert np.isnan(given[1]).sum() == 8
    files = json.loads((run / "package/manifest.json").read_text())["files"]
    assert set(files) == {"model.onnx", "encoder.onnx", "temporal.onnx"}
    assert all(fact["parity"]["stress"]["max_abs_logit"] < 1e-4 for fact in files.values())
    package = ModelPackage.open(run)
    for backend in (OnnxRuntime(package.model), TorchBackend(package, compile=False)):
        assert backend.run(*given)["stress.logits"] == pytest.approx(want, abs=1e-4)
        shown = np.full_like(given[1], np.nan)
        assert np.array_equal(backend.run(given[0])["stress.logits"], backend.run(given[0], shown)["stress.logits"])
    assert open_model(package.model).predict(*map(torch.from_numpy, given))["stress"] == pytest.approx(want, abs=1e-4)
    assert OnnxRuntime(package.model.with_name("encoder.onnx")).signals == 0


def test_openvino_says_so_too(run, given):
    pytest.importorskip("openvino")
    package = ModelPackage.open(run)
    for folder_file in ("model.onnx", "temporal.onnx"):
        graph = package.model.with_name(folder_file)
        images = given[0]
        if folder_file == "temporal.onnx":
            encoder = OnnxRuntime(package.model.with_name("encoder.onnx"))
            images = encoder.run(images.reshape(-1, *images.shape[2:]))["features"].reshape(len(images), FRAMES, -1)
        want = OnnxRuntime(graph).run(images, given[1])["stress.logits"]
        assert OpenVino(graph).run(images, given[1])["stress.logits"] == pytest.approx(want, abs=1e-3)
        assert np.isfinite(OpenVino(graph).run(images)["stress.logits"]).all()


def test_a_missing_value_is_the_mean(run, given):
    package, images = ModelPackage.open(run), given[0][:1]
    backend = OnnxRuntime(package.model)
    mean = np.array([[signal["mean"] for signal in package.side]], np.float32)
    assert backend.run(images)["stress.logits"] == pytest.approx(backend.run(images, mean)["stress.logits"], abs=1e-5)
    slow, fast = (backend.run(images, np.array([[rate, 0.3]]))["stress.probs"][0, 1] for rate in (470.0, 570.0))
    assert slow < 0.2 and fast > 0.8


def test_an_engine_takes_signals_by_name(run, capsys):
    say_once.cache_clear()
    i = next(i for i in range(TRAINED, ALL) if i % 2)
    images = [np.repeat(frame[:, :, None], 3, 2) for frame in frames_of(i)]
    with Engine.load(run, backend="onnxruntime") as engine:
        (calm,), (stressed,) = (engine.predict(images, side={"heart_rate": rate, "activity": 0.3}) for rate in (470.0, 570))
        assert [clip.outputs["run"]["stress"].labels for clip in (calm, stressed)] == [("none",), ("stress",)]
        (streamed,) = engine.stream(images, rate_hz=RATE_HZ, side={"activity": 0.3, "heart_rate": 570})
        assert streamed.outputs["run"]["stress"].values == pytest.approx(stressed.outputs["run"]["stress"].values, abs=1e-4)
        assert "side signals missing" not in capsys.readouterr().err
        (half,), (none,) = engine.predict(images, side={"heart_rate": 570.0}), engine.predict(images)
        (again,) = engine.predict(images, side={"heart_rate": 570.0, "activity": None})
    half, again, none = (clip.outputs["run"]["stress"] for clip in (half, again, none))
    assert half.labels == ("stress",) and np.array_equal(half.values, again.values) and not np.allclose(half.values, none.values)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "side signals missing, for which the mean of training is taken: activity 0." in said[0]
    assert "heart_rate 52" in said[1] and "activity" in said[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heartrate": 512}, "'heartrate': run takes heart_rate, activity; did you mean 'heart_rate'"),
        ({"heart_rate": float("inf")}, "heart_rate: found inf; expected a number"),
        ({"heart_rate": "512"}, "heart_rate: found '512'"),
    ],
)
def test_unknown_signals_are_refused(given, message, run):
    with pytest.raises(InputError, match=message):
        row_of(ModelPackage.open(run), given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["heart_rate"], "--side heart_rate: expected NAME=NUMBER"),
        (["heart_rate=fast"], "--side heart_rate=fast: expected NAME=NUMBER"),
        (["heart_rate=1", "heart_rate=600"], r"--side heart_rate=600: heart_rate was given before \(1\); give it once"),
    ],
)
def test_signals_at_the_command_line_are_numbers_given_once(words, message):
    with pytest.raises(InputError, match=message):
        running._signals(words)
    assert running._signals(["heart_rate=512", "activity=-.5"]) == {"heart_rate": 512.0, "activity": -0.5}


def test_each_package_takes_the_signals_that_it_knows(run):
    package = ModelPackage.open(run)
    blind = replace(package, manifest=replace(package.manifest, name="blind", side=None))
    assert signals_by_package([blind, package], {"activity": 1}) == [{}, {"activity": 1.0}] and row_of(blind, None) is None
    with pytest.raises(InputError, match="'activity': blind takes no side signals; leave it out"):
        signals_by_package([blind], {"activity": 1})
    with pytest.raises(InputError, match=r"side: expected \(2, 2\), got \(1, 2\)"):
        OnnxRuntime(package.model).run(np.zeros((2, FRAMES, 16, 16, 3), np.uint8), np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("more", [{"int8": True}, {"to": ["onnx", "tensorrt"]}])
def test_what_is_not_made_with_side_signals_is_refused(more, run):
    before = (run / "package/manifest.json").stat().st_mtime_ns
    with pytest.raises(InputError, match=r"run: takes side signals \(meta.heart_rate, meta.activity\)"):
        export(run, **more)
    assert (run / "package/manifest.json").stat().st_mtime_ns == before


def test_tensorrt_refuses_a_graph_that_takes_signals(run):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(InputError, match="temporal.onnx: takes side signals, which are not given to TensorRT"):
        tensorrt.build(run / "package/temporal.onnx", tensorrt.Gpu("", ("8.9",)), tensorrt.Profile())


def test_an_evaluation_reads_the_columns_of_its_dataset(run, noise, tmp_path):
    own, graph = (evaluate(of, noise, "val", tmp_path / of.name) for of in (run, run / "package/model.onnx"))
    assert own["2way"]["acc"] == graph["2way"]["acc"] >= 0.95 and own["confusion"] == graph["confusion"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["meta.heartrate"], "meta.heartrate: no such column; did you mean 'meta.heart_rate'"),
        (["heart_rate"], "heart_rate: no such column; did you mean 'meta.heart_rate'"),
        (["meta.site", "stress.none"], r"meta.site: text, not numbers\n  stress.none: not one of meta\.\*: a label"),
        (
            ["meta.always", "meta.never"],
            r"in 192 training rows nothing to learn from:\n  meta.always: always 3\n  meta.never: no v",
        ),
    ],
)
def test_bad_columns_name_those_that_there_are(columns, message, config, tmp_path):
    run = config(f"data.side={columns}")
    dataset = open_dataset(run.data.dataset)
    task = task_of(run, dataset)
    with pytest.raises(InputError, match=f"(?s){message}.*numeric columns: .*meta.activity.*meta.heart_rate"):
        fit(run, task, dataset, tmp_path / "run", Scorer(run, task, dataset))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["task=emotion_student", "data.side=[meta.heart_rate]"], "data.side: emotion_student sees single pictures"),
        (["data.side=[meta.a, meta.b, meta.a]"], "meta.a: named more than once"),
        (["data.side=meta.a"], "data.side: .*list"),
    ],
)
def test_bad_settings_are_said_before_anything_is_read(settings, message):
    with pytest.raises(InputError, match=message):
        load_config("mouse_baseline", settings)


def test_runs_without_side_signals_keep_their_digest(config, run):
    before = config().model_dump(mode="json")
    del before["data"]["side"]
    assert digest_of(before) == RunConfig.model_validate(before).digest == config().digest
    of_run = RunConfig.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    assert of_run.digest == config(f"data.side={SIDE}").digest != config().digest


def test_missing_values_are_counted_once(noise, capsys):
    say_once.cache_clear()
    for _ in range(2):
        values = side.side_values(open_dataset(noise), SIDE)
    said = capsys.readouterr().err
    assert said.count("data.side") == 1 and "of 256 clips" in said and said.rstrip().endswith("meta.activity 32")
    assert np.isnan(values).sum(0).tolist() == [0, 32] and values.dtype == np.float32


def test_weights_of_another_run_bring_not_its_scale(run, config, tmp_path):
    south = config(f"data.side={SIDE}", "data.where={meta.site: south}")
    dataset = open_dataset(south.data.dataset)
    task = task_of(south, dataset)
    trainer = Trainer(south, task, dataset, tmp_path, Ranks(CPU), lambda *_: {}, lambda _: None, run)
    rates = [numbers_of(i)[1]["heart_rate"] for i in range(20, TRAINED)]
    assert scale_of(trainer.model)[0][0] == pytest.approx(np.mean(rates), rel=1e-5)


@pytest.mark.parametrize("kind", ["plain", "dali"])
def test_a_batch_has_what_was_measured_of_its_clips(kind, config):
    if kind == "dali":
        pytest.importorskip("nvidia.dali")
    run = config(f"data.side={SIDE}", f"data.loader={kind}")
    dataset = open_dataset(run.data.dataset)
    batch = next(train_loader(run, task_of(run, dataset), dataset, Ranks(CPU)).from_step(0))
    shown = [int(path) for path in dataset.column("path")[batch.sample]]
    want = [[numbers_of(i)[1].get(name, np.nan) for name in ("heart_rate", "activity")] for i in shown]
    np.testing.assert_allclose(batch.side.numpy(), np.array(want), rtol=1e-6)
    assert torch.equal(torch.cat([half.side for half in batch.split(2)]).nan_to_num(), batch.side.nan_to_num())
    side = mixed(batch, Mix(0.75, None)).side
    np.testing.assert_allclose(side, 0.75 * batch.side + 0.25 * batch.side.flip(0), rtol=1e-5)
