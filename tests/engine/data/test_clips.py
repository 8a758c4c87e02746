"""Clips: which frames are seen, that a clip is treated as one, and that both pipelines make the same of it."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from affect.engine.config.data import ClipConfig
from affect.engine.config.load import load_config
from affect.engine.data import dali
from affect.engine.data import opencv as plain
from affect.engine.data.augment import Mix
from affect.engine.data.batch_plan import Planner
from affect.engine.data.build import eval_loader, train_loader
from affect.engine.data.mixup import mixed_inputs
from affect.engine.data.selection import open_dataset
from affect.engine.system.distributed import Ranks
from affect.engine.system.log import say_once
from affect.engine.tasks import TASKS
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sample import Clip, Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout

CPU = torch.device("cpu")
EMOTION = Output("emotion", "classes", ("a", "b"))
LENGTHS = (33, 24, 2, 1, 70, 40, 9, 8)  # the second half is trained on: what is held out is packed first
STEP = 3  # of gray from frame to frame
RATE_HZ = 25
KINDS = ["dali", "plain"]
TASK = replace(TASKS["emotion_student"], input="clip")


class Clips:
    """Clips of `lengths` frames, a row each, made by `made(i, length)`."""

    layout, label_protocol, clip = TargetLayout((EMOTION,)), "hard", ClipFacts("all")

    def __init__(self, lengths, made):
        self.lengths, self.made, self.filtered, self.meta = lengths, made, Counter(), {}

    def samples(self):
        for i, length in enumerate(self.lengths):
            frames = tuple(self.made(i, length))
            split = "val" if i < len(self.lengths) // 2 else "train"
            clip = Clip(frames, tuple(t / RATE_HZ for t in range(length)))
            yield Sample(clip, f"clip{i}", split, EMOTION.one_hot("ab"[i % 2]), "drawn")

    def fingerprint(self):
        return {"drawn": "0"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Frame t of clip i is gray 3 t, but for its first pixel, which makes clips differ."""

    def made(i, length):
        for t in range(length):
            frame = np.full((24, 24), STEP * t, np.uint8)
            frame[0, 0] = i
            yield frame

    out = tmp_path_factory.mktemp("clips") / "numbered"
    pack(Clips(LENGTHS, made), out)
    return out


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Ten clips of one picture each, shown nine times."""
    import cv2

    def made(i, length):
        random = np.random.default_rng(i)
        height, width = (int(side) for side in random.integers(40, 90, 2))
        coarse = random.integers(0, 256, (7, 7, 3)).astype(np.uint8)
        return [cv2.resize(coarse, (width, height))] * length

    out = tmp_path_factory.mktemp("clips") / "still"
    pack(Clips([9] * 10, made), out, on_leak="keep")
    return out


def loader(dataset, kind, clip, *settings, split="train", batch=4, size=24, rank=0, world=1):
    run = load_config("smoke", [
        f"data.dataset={dataset}", f"data.batch_size={batch}", f"model.image_size={size}", f"data.loader={kind}",
        f"data.clip={clip}", *settings,
    ])  # fmt: skip
    data = open_dataset(run.data.dataset)
    if kind == "dali":
        pytest.importorskip("nvidia.dali")
    if split == "train":
        return train_loader(run, TASK, data, Ranks(CPU, rank, world) if world > 1 else Ranks(CPU))
    return eval_loader(data, split, run.preprocess, ("emotion",), CPU, clip=run.data.clip, batch=batch, kind=kind)


PLAIN_VIEW = ["data.clahe=null", "data.augment.crop=null", "data.resize=1"]


def shown(batch):
    """(B, T) the numbers of the frames, read from the pictures."""
    return batch.inputs[:, :, 12, 12, 0].numpy() // STEP


def batches(made, count, step=0):
    stream = made.from_step(step)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_a_new_window_each_epoch(packed, kind):
    made = batches(loader(packed, kind, "{frames: 5, choice: window, stride: 2}", *PLAIN_VIEW), 4)
    for batch in made:
        assert batch.inputs.shape == (4, 5, 24, 24, 3) and batch.targets["emotion"].shape == (4, 2)
        assert batch.window.dtype == np.int64 and sorted(batch.sample) == [4, 5, 6, 7]
        for sample, start, view in zip(batch.sample, batch.window, shown(batch), strict=True):
            whole = start + 2 * np.arange(5)
            assert (view == np.where(whole < LENGTHS[sample], whole, view.max())).all() and (np.diff(view) >= 0).all()
            assert start <= max(0, LENGTHS[sample] - 9)
    starts = {int(batch.window[batch.sample == 4][0]) for batch in made}
    assert len(starts) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_sees_every_window_of_every_clip(packed, kind):
    made = loader(packed, kind, "{frames: 8, choice: window}", *PLAIN_VIEW, split="val", batch=3)
    data, windows = Dataset(packed), made.windows
    assert windows.sample.tolist() == [0] * 5 + [1] * 3 + [2, 3] and made.planner.samples.tolist() == windows.sample.tolist()
    assert windows.start.tolist() == [0, 8, 16, 24, 25, 0, 8, 16, 0, 0]
    found = batches(made, 4)
    assert np.concatenate([batch.sample for batch in found])[:10].tolist() == windows.sample.tolist()
    assert np.concatenate([batch.window for batch in found])[:10].tolist() == windows.start.tolist()
    views = np.concatenate([shown(batch) for batch in found])[:10]
    assert views[4].tolist() == [*range(25, 33)] and views[8].tolist() == [0] + [1] * 7 and (views[9] == 0).all()
    classes = torch.cat([batch.targets["emotion"] for batch in found])[:10].argmax(1)
    assert classes.tolist() == data.targets("emotion")[windows.sample].argmax(1).tolist()


def test_processes_share_the_windows(packed):
    run = load_config("smoke", [f"data.dataset={packed}", *PLAIN_VIEW])
    clip, data = ClipConfig(frames=8, choice="window"), Dataset(packed)
    shares = [eval_loader(data, "val", run.preprocess, (), CPU, clip=clip, kind="plain", share=(r, 2)).windows for r in (0, 1)]
    assert shares[0].start.tolist() == [0, 16, 25, 8, 0] and shares[1].sample.tolist() == [0, 0, 1, 1, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_only_times_inside_are_seen(packed, kind):
    clip = "{frames: 4, start_s: 0.2, end_s: 0.32}"
    for batch in batches(loader(packed, kind, clip, *PLAIN_VIEW), 1):
        for sample, view in zip(batch.sample, shown(batch), strict=True):
            assert view.tolist() == [5, 6, 7, 7] and LENGTHS[sample] > 7
        assert (batch.window == 5).all()


@pytest.mark.parametrize(
    ("clip", "split", "message"),
    [
        ("{frames: 4, start_s: 0.36}", "train", r"no frame of 2 clips lies in \[0.36, ...\) s:\n  sample 6, clip6: 0 to 0.32 s"),
        ("{frames: 4, end_s: 0}", "val", r"no frame of 4 clips lies in \[..., 0\) s:\n  sample 0, clip0: 0 to 1.28 s"),
        ("null", "val", r"3 of 4 samples are clips \(of up to 33 frames\), and data.clip is null.*data\.clip\.frames=32"),
        ("null", "train", r"data\.clip: null, and emotion_student sees clips"),
    ],
)
def test_what_cannot_be_seen_is_refused(packed, clip, split, message):
    with pytest.raises(InputError, match=message):
        loader(packed, "plain", clip, split=split)


def test_a_task_and_its_dataset_are_of_one_kind(packed, synthetic):
    with pytest.raises(InputError, match=r"of 304 samples are pictures, and data\.clip asks for 4 .*\n  sample \d+, "):
        loader(synthetic, "plain", "{frames: 4}")
    for dataset, clip, message in ((packed, "null", "are clips"), (packed, "{frames: 4}", "sees single pictures")):
        run = load_config("smoke", [f"data.dataset={dataset}", f"data.clip={clip}"])
        with pytest.raises(InputError, match=message):
            train_loader(run, TASKS["emotion_student"], Dataset(dataset), Ranks(CPU))


def test_how_many_repeat_a_frame_is_said_once(packed, capsys):
    say_once.cache_clear()
    for _ in range(2):
        loader(packed, "plain", "{frames: 9}")
    said = capsys.readouterr().err
    assert said.count("data.clip: 1 of 4 clips") == 1 and "fewer than the 9 frames" in said


AUGMENT = [
    "data.augment.affine={rotate: 15, shift: 0.1}", "data.augment.jitter={}", "data.augment.blur={p: 0.6}",
    "data.augment.erase={p: 0.6}", "data.clahe={p: 0.5, clip_jitter: 0.5, tiles: 2}",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_has_one_draw(still, kind):
    """A clip that does not move still does not; two clips are drawn for apart."""
    (batch,) = batches(loader(still, kind, "{frames: 5}", *AUGMENT, size=48, batch=5), 1)
    assert (batch.inputs == batch.inputs[:, :1]).all()
    again = batches(loader(still, kind, "{frames: 5}", "seed=2", *AUGMENT, size=48, batch=5), 1)[0]
    order = [int(np.flatnonzero(again.sample == sample)[0]) for sample in batch.sample]
    assert all((a != b).float().mean() > 0.2 for a, b in zip(batch.inputs, again.inputs[order], strict=True))


@pytest.mark.parametrize("split", ["train", "val"])
def test_both_pipelines_see_the_same_clips(still, split):
    clip = "{frames: 4, choice: window}"
    fast, slow = (loader(still, kind, clip, "data.clahe=null", split=split, size=48, batch=3) for kind in KINDS)
    for a, b in zip(batches(fast, 4, step=2), batches(slow, 4, step=2), strict=True):
        assert (a.sample == b.sample).all() and (a.window == b.window).all()
        difference = (a.inputs.int() - b.inputs.int()).abs()
        assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01
    fast, slow = (loader(still, kind, clip, *AUGMENT, split=split, size=48, batch=3) for kind in KINDS)
    for a, b in zip(batches(fast, 4), batches(slow, 4), strict=True):
        assert (a.inputs.float() - b.inputs.float()).abs().mean() < 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", ["data.stream=null", "data.stream={buffer: 2}"])
def test_a_resumed_run_sees_what_the_whole_one_saw(packed, kind, setting):
    def made():
        return loader(packed, kind, "{frames: 6, choice: window, order: shuffled}", setting, batch=3)

    whole, resumed = batches(made(), 6), batches(made(), 3, step=3)
    for a, b in zip(whole[3:], resumed, strict=True):
        assert torch.equal(a.inputs, b.inputs) and (a.window == b.window).all()


def test_processes_see_parts_of_one_batch(packed):
    clip = "{frames: 6, choice: window}"
    (whole,) = batches(loader(packed, "plain", clip), 1)
    parts = [batches(loader(packed, "plain", clip, rank=rank, world=2), 1)[0] for rank in (0, 1)]
    assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))
    assert whole.window.tolist() == np.concatenate([part.window for part in parts]).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_only_frames_that_are_seen_are_read(packed, kind, monkeypatch):
    """Of a clip's 70 frames, and no other bytes are handed to a decoder."""
    read, decoded, decode = [], [], plain.decode
    frames = Dataset.frames
    monkeypatch.setattr(Dataset, "frames", lambda self, s, chosen=None: read.append((s, chosen)) or frames(self, s, chosen))
    monkeypatch.setattr(plain, "decode", lambda data: decoded.append(1) or decode(data))
    made = loader(packed, kind, "{frames: 3, choice: window}")
    plans, plan = [], Planner.plan
    monkeypatch.setattr(Planner, "plan", lambda self, step: plans.append(step) or plan(self, step))
    batches(made, 1)
    assert len(read) == 4 * len(plans) and all(len(chosen) == 3 for _, chosen in read)
    assert len(decoded) <= 12 * len(plans)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_is_the_same_batch(still, kind, monkeypatch):
    made = [batches(loader(still, kind, "{frames: 5}", *AUGMENT, size=48, batch=5), 3)]
    monkeypatch.setattr(dali, "PART", 7)
    made.append(batches(loader(still, kind, "{frames: 5}", *AUGMENT, size=48, batch=5), 3))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(*made, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_large_batches_are_not_made_far_ahead(packed, kind, monkeypatch):
    batch = 4 * 8 * 24 * 24 * 3  # bytes
    for most, plans in ((2**28, 3), (batch, 2)):
        made, plan = [], Planner.plan
        monkeypatch.setattr(plain, "MOST_AHEAD", most)
        monkeypatch.setattr(dali, "MOST_AHEAD", most)
        monkeypatch.setattr(dali, "PART", 8)
        monkeypatch.setattr(Planner, "plan", lambda self, step, made=made, plan=plan: made.append(step) or plan(self, step))
        stream = loader(packed, kind, "{frames: 8}").from_step(0)
        for step in range(4):
            next(stream)
            assert len(made) - step <= plans
        monkeypatch.setattr(Planner, "plan", plan)


@pytest.mark.parametrize("box", [None, (1, 2, 4, 3)])
def test_a_mix_is_the_same_in_every_frame(box):
    clips = torch.randint(0, 256, (4, 5, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mix = Mix(0.7, box)
    mixed = mixed_inputs(clips, mix)
    assert all(torch.equal(mixed[:, t], mixed_inputs(clips[:, t], mix)) for t in range(5))


def test_pieces_and_mixtures_keep_their_windows(packed):
    (batch,) = batches(loader(packed, "plain", "{frames: 6, choice: window}", "data.augment.mixup=0.4"), 1)
    pieces = batch.split(2)
    assert [piece.inputs.shape[:2] for piece in pieces] == [(2, 6), (2, 6)]
    assert np.concatenate([piece.window for piece in pieces]).tolist() == batch.window.tolist()


def test_several_datasets_are_read_as_one(packed, still):
    made = loader(f"[{packed}, {still}]", "plain", "{frames: 3}", batch=9)
    (batch,) = batches(made, 1)
    assert sorted(batch.sample) == [4, 5, 6, 7, 13, 14, 15, 16, 17] and batch.inputs.shape == (9, 3, 24, 24, 3)


def test_the_choice_of_a_loader_is_the_faster_one_on_a_cpu(packed, synthetic):
    pytest.importorskip("nvidia.dali")
    run = load_config("smoke", [f"data.dataset={synthetic}"])
    assert loader(packed, "auto", "{frames: 4}").kind == "plain"
    assert eval_loader(Dataset(synthetic), "val", run.preprocess, (), CPU).kind == "dali"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_frame_names_its_clip(packed, kind, tmp_path):
    copy = shutil.copytree(packed, tmp_path / "copy")
    data = Dataset(copy)
    path, offset = copy / data.column("shard")[5], int(data.places(5)[0][0])
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{data.column('key')[5]}: .*(?s:.)*affect verify"):
        batches(loader(copy, kind, "{frames: 4}"), 2)
