"""The training bench times steps that compute the same, at the settings it names, and says what it could not measure."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("nvidia.dali")

from affect.bench import record, steps, train
from affect.bench.loader import Timing
from affect.bench.steps import Level, Ours, Timm, Work
from affect.bench.train import TOLERANCE, ready
from affect.shards.errors import InputError

BATCH, STEPS, TIMING = 8, 2, Timing(seconds=0.01, rounds=2)
LEVELS = ["eager float32 NCHW", "channels-last", "amp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def dataset(folder):
    return train.drawn(32, 48, folder)


@pytest.fixture(scope="module")
def work(dataset, folder):
    return Work(dataset, torch.device("cpu"), folder, "test_resnet", 32, BATCH, workers=1, most_steps=STEPS)


@pytest.fixture
def bf16(monkeypatch):
    """As on a machine that has it."""
    monkeypatch.setattr(steps, "choose_precision", lambda config, device: (torch.bfloat16, "the CPU has it"))


@pytest.fixture
def in_process(monkeypatch):
    """The peer's pictures without its worker processes, whose start takes seconds."""

    def batches(paths, picture, batch, workers):
        files = steps.Files(paths, picture)
        while True:
            for start in range(0, len(paths) - batch + 1, batch):
                places = np.arange(start, start + batch)
                yield places, torch.stack([files[place][1] for place in places])

    monkeypatch.setattr(steps, "files_and_opencv", batches)


def no_advance(count):
    """Nothing is shown."""


@pytest.mark.slow
def test_all_settings_take_the_same_first_steps(work, bf16):
    built = ready(work, compile=False)
    assert list(built.providers) == [name for level in LEVELS for name in (level, f"timm {level}")]
    assert all(built.off[name] <= TOLERANCE[provider.level.dtype] for name, provider in built.providers.items())
    assert built.off[LEVELS[0]] == 0 < built.off["amp"]
    assert built.skipped == {"compile": "--no-compile"}


@pytest.mark.parametrize("make", [Ours, Timm])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("feed", ["one_batch", "batches"])
def test_convolutions_see_the_layout_that_the_row_names(work, in_process, make, channels_last, feed):
    provider = make(work, Level("", channels_last=channels_last))
    model = provider.trainer.model if make is Ours else provider.model
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    seen = []
    first.register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], module.weight, output]))
    provider.step(next(getattr(provider, feed)()))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert len(seen) == 3 and all(values.is_contiguous(memory_format=layout) for values in seen)


@pytest.mark.parametrize("make", [Ours, Timm])
def test_an_epoch_feeds_the_first_pictures_first(work, in_process, make):
    provider = make(work, Level(""))
    one, fed = float(provider.step(next(provider.one_batch()))), float(make(work, Level("")).step(next(provider.batches())))
    assert fed == pytest.approx(one, rel=TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("wrong", ["rate", "target", "decay"])
def test_nothing_is_timed_where_the_steps_differ(work, monkeypatch, wrong):
    if wrong == "target":
        monkeypatch.setattr(steps, "SoftTargetCrossEntropy", lambda: nn.CrossEntropyLoss(label_smoothing=0.1))
    else:
        change = {"rate": {"lr": 1.5 * steps.LR}, "decay": {"weight_decay": 1000.0}}[wrong]
        right = steps.create_optimizer_v2
        monkeypatch.setattr(steps, "create_optimizer_v2", lambda model, **settings: right(model, **settings | change))
    with pytest.raises(InputError, match="timm eager float32 NCHW computes something else: its first losses are"):
        ready(work, compile=False)


def test_nothing_is_timed_where_the_pictures_differ(work):
    brighter = SimpleNamespace(
        first=work.first, samples=work.samples, batch=BATCH, files=[(i, torch.full((32, 32, 3), 255)) for i in range(BATCH)]
    )
    with pytest.raises(InputError, match="OpenCV makes other pictures than our loader: .* levels off"):
        train.check_pictures(brighter)


@pytest.mark.slow
def test_what_cannot_be_measured_has_its_reason(work, monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("no C++ compiler found\nset CXX")

    monkeypatch.setattr(torch, "compile", lambda model, **settings: broken)
    monkeypatch.setattr(steps, "choose_precision", lambda config, device: (None, "the CPU has no bf16"))
    built = ready(work)
    assert list(built.providers) == [name for level in LEVELS[:2] for name in (level, f"timm {level}")]
    reason = "RuntimeError: no C++ compiler found"
    assert built.skipped == {"amp": "the CPU has no bf16", "compile": reason, "timm compile": reason}


def test_more_in_a_batch_than_there_are_pictures_is_refused(dataset, folder):
    work = Work(dataset, torch.device("cpu"), folder, "test_resnet", 32, batch=64, workers=1)
    with pytest.raises(InputError, match="48 training pictures are less than a batch; take --batch 48 or less"):
        _ = work.steps


@pytest.mark.slow
def test_a_line_says_what_was_measured_on_what(work, bf16, in_process, tmp_path):
    built = ready(work, compile=False)
    taken = train.bench_steps(work, built, TIMING, no_advance)
    epoch = train.bench_epoch(work, built, taken, TIMING, no_advance)
    path = record.append(taken + epoch, tmp_path)
    read = [json.loads(text) for text in path.read_text().splitlines()]
    assert read == taken + epoch
    assert [line["provider"] for line in taken] == list(built.providers)
    assert {line["op"] for line in taken} == {"train.step"} and {line["op"] for line in epoch} == {"train.epoch"}
    for lines in (taken, epoch):
        assert 1.0 in [line["ratio_to_best_peer"] for line in lines if line["provider"].startswith("timm ")]
    assert [line["provider"] for line in epoch[:-1]] == LEVELS and epoch[-1]["provider"].startswith("timm ")
    assert all(line["settings"]["steps"] == STEPS for line in epoch)
    for line in read:
        assert line["versions"].keys() == {"torch", "timm", "dali", "opencv"}
        assert line["images_per_s"]["p20"] <= line["images_per_s"]["p50"] <= line["images_per_s"]["p80"]
        assert not any(secret in json.dumps(line) for secret in (str(tmp_path), str(work.dataset.folder)))


@pytest.mark.slow
def test_the_command_measures_and_prints(tmp_path, monkeypatch):
    """With the peer's worker processes; compiled, but for the C++ that takes most of the time."""
    from typer.testing import CliRunner

    from affect.engine.cli.main import app

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    words = (
        "bench train --backbone test_resnet --image-size 32 --batch 8 --pictures 48 --steps 2 --seconds 0.05 --rounds 1 --json"
    )
    done = CliRunner().invoke(app, [*words.split(), "--workers", "1", "--device", "cpu", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["measurements"] == [json.loads(text) for text in next(tmp_path.glob("*.jsonl")).read_text().splitlines()]
    assert "2 of the 6 steps of an epoch" in " ".join(done.stdout.split())
    compiled = {"compile", "timm compile"}
    assert compiled <= said["not_measured"].keys() | {line["provider"] for line in said["measurements"]}
