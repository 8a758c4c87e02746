"""Clips in shards: frames in order, one row each, whole after a kill, every frame checked."""

import os
import signal
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from affect.shards.clip import encode
from affect.shards.concat import Merged
from affect.shards.dataset import Dataset
from affect.shards.encoded import frame_name
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.pack import pack
from affect.shards.resume import stamp
from affect.shards.sample import Clip, Recording, Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout
from affect.shards.tar_stream import StreamOrder, StreamReader
from affect.shards.verify import verify

LAYOUT = TargetLayout((Output("score", "scalars", ("score",)),))


class Clips:
    """Clips of gray levels: frame t of clip i is 10 i + t; made when they are packed."""

    layout, label_protocol, clip = LAYOUT, "hard", ClipFacts("all")

    def __init__(self, lengths, split="train", make=None, **known):
        self.lengths, self.split, self.known, self.make = lengths, split, known, make or gray
        self.filtered, self.meta = Counter(), {"repeated": float}

    def samples(self):
        for i, length in enumerate(self.lengths):
            known = {"split": self.split, "source": "gray", **self.known}
            yield Sample(lambda i=i, length=length: self.make(i, length), f"clip{i}", targets={"score.score": i}, **known)

    def fingerprint(self):
        return {"gray": "0"}


def gray(i, length, size=16):
    frames = tuple(np.full((size, size), 10 * i + t, np.uint8) for t in range(length))
    return Clip(frames, tuple(t / 4 for t in range(length)), {"repeated": 0.0})


def levels(frames):
    return [int(decode(frame)[0, 0, 0]) for frame in frames]


@pytest.fixture
def packed(tmp_path):
    pack(Clips([3, 1, 5, 4]), tmp_path / "packed")
    return tmp_path / "packed"


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_frames_and_times_come_back_in_order(packed):
    dataset = Dataset(packed)
    assert dataset.info.clip == ClipFacts("all")
    assert dataset.column("num_frames").tolist() == [3, 1, 5, 4]
    assert [levels(dataset.frames(i)) for i in (0, 2)] == [[0, 1, 2], [20, 21, 22, 23, 24]]
    assert levels(dataset.frames(2, [4, 0, 0])) == [24, 20, 20] and levels([dataset.image(2)]) == [20]
    assert dataset.times_s(2).dtype == np.float32 and dataset.times_s(2).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert dataset.column("time_s").tolist() == [0, 0, 0, 0] and dataset.column("meta.repeated").tolist() == [0] * 4
    assert not dataset.frames(0)[0].flags.writeable
    with pytest.raises(IndexError):
        dataset.frames(0, [3])


def test_a_picture_is_a_clip_of_one_without_times(synthetic):
    dataset = Dataset(synthetic)
    assert not dataset.has("time_s") and dataset.info.clip is None and "clip" not in (synthetic / "dataset.json").read_text()
    assert len(dataset.times_s(3)) == 0 and bytes(dataset.frames(3)[0]) == bytes(dataset.image(3))


def test_merged_reads_each_part(packed, synthetic, tmp_path):
    pack(Clips([2, 6]), tmp_path / "other", on_leak="keep")
    merged = Merged([packed, tmp_path / "other"])
    assert levels(merged.frames(5, [5])) == [15] and merged.times_s(4).tolist() == [0, 0.25]
    assert merged.info.clip == ClipFacts("all") and merged.column("num_frames").tolist() == [3, 1, 5, 4, 2, 6]
    mixed = Merged([synthetic, packed])
    assert mixed.info.clip is None and len(mixed.times_s(0)) == 0 and levels(mixed.frames(402)) == [20, 21, 22, 23, 24]
    assert np.isnan(mixed.column("time_s")[0])


def test_webdataset_and_dali_read_the_tars(packed):
    webdataset = pytest.importorskip("webdataset")
    stored = list(webdataset.WebDataset(str(packed / "train-000000.tar"), shardshuffle=False))[2]
    names = [f"{frame_name(t, 5)}.png" for t in range(5)]
    assert levels([np.frombuffer(stored[name], np.uint8) for name in names]) == [20, 21, 22, 23, 24]
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def read():
        files, index = [str(packed / f"train-000000.{suffix}") for suffix in ("tar", "idx")]
        return tuple(
            fn.readers.webdataset(
                paths=[files], index_paths=[index], ext=["000.png", "002.png"], missing_component_behavior="empty"
            )
        )

    pipe = read()
    pipe.build()
    first, third = pipe.run()
    assert levels([first.at(2), third.at(2), third.at(0)]) == [20, 22, 2] and len(third.at(1)) == 0


def test_a_stream_hands_out_whole_clips(packed):
    dataset = Dataset(packed)
    reader = StreamReader(dataset, StreamOrder(dataset, np.arange(4), seed=0, batch=2, buffer=2))
    with reader.reading(0):
        assert levels(reader.frames(2, 0)) == [20, 21, 22, 23, 24] and levels([reader.image(0, 0)]) == [0]


@pytest.mark.parametrize("frame", [0, 2, 4])
def test_a_flipped_byte_in_any_frame_is_named(packed, frame):
    assert verify(packed).info.num_samples == 4
    offsets, sizes = Dataset(packed).places(2)
    tar = packed / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[offsets[frame] + sizes[frame] // 2] ^= 255
    tar.write_bytes(data)
    with pytest.raises(InputError, match=rf"(pixels of 000000002|image of 000000002\.00{frame})"):
        verify(packed)


def test_the_same_frames_in_another_order_are_another_clip(tmp_path):
    def turned(i, length):
        clip = gray(0, length)
        return Clip(clip.frames[:: -1 if i else 1], clip.times_s, clip.meta)

    info = pack(Clips([4, 4], make=turned), tmp_path / "turned")
    sha256 = Dataset(tmp_path / "turned").column("sha256")
    assert info.counts == {"train": 2} and sha256[0] != sha256[1]


def test_the_same_clip_in_two_splits_is_a_leak(tmp_path):
    class Both(Clips):
        def samples(self):
            for split in ("val", "train"):
                yield Sample(gray(0, 3), f"{split}.mp4", split, {}, "gray")

    with pytest.raises(InputError, match=r"train\.mp4 \(train\): same pixels as val\.mp4"):
        pack(Both([]), tmp_path / "both")
    assert pack(Both([]), tmp_path / "kept", on_leak="drop-train").counts == {"val": 1}


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((), "no frames"),
        ((np.zeros((8, 8), np.uint8), np.zeros((8, 9), np.uint8)), "frame 1 is 9x8, the first 8x8"),
        ((np.zeros((8, 8), np.uint8), b"text"), "frame 1: not a picture, or cut short"),
    ],
)  # fmt: skip
def test_what_is_no_clip_is_rejected_with_its_reason(frames, reason, tmp_path):
    source = Clips([2, 2], make=lambda i, length: Clip(frames, (0,) * len(frames)) if i else gray(i, length))
    pack(source, tmp_path / "out", max_rejects=0.5)
    assert f"clip1,{reason}" in (tmp_path / "out" / "rejected.csv").read_text().replace('"', "")


def test_frames_of_a_box_and_reduced(tmp_path):
    from affect.shards.images import Storage

    wide = np.tile(np.arange(40, dtype=np.uint8), (20, 1))
    source = Clips([3], make=lambda i, length: Clip((wide,) * length, (0,) * length), box=(0, 10, 20, 30))
    pack(source, tmp_path / "out", storage=Storage(max_side=10))
    dataset = Dataset(tmp_path / "out")
    assert (dataset.column("width")[0], dataset.column("height")[0]) == (10, 10)
    assert decode(dataset.frames(0)[2])[0, 0, 0] in (10, 11)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from affect.shards import resume
from affect.shards.tar import TarWriter
from affect.shards.pack import pack
from test_clips import Clips

resume.COMMIT_SAMPLES, writes = 3, 0
write = TarWriter._write

def counted(self, data):
    global writes
    writes += 1
    if writes == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, data)

TarWriter._write = counted
pack(Clips([3, 1, 5, 4, 2, 7, 3]), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [9, 41])
def test_killed_and_continued_to_the_same_bytes(after, tmp_path):
    command = [sys.executable, "-c", KILLED, os.path.dirname(__file__), str(tmp_path / "out")]  # noqa: PTH120
    assert subprocess.run([*command, str(after)]).returncode == -signal.SIGKILL
    lines = []
    lengths = [3, 1, 5, 4, 2, 7, 3]
    pack(Clips(lengths), tmp_path / "out", say=lines.append)
    pack(Clips(lengths), tmp_path / "anew")
    assert len(lines) == (after == 41)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "anew")
    assert verify(tmp_path / "out").info.num_samples == 7


class Listed(Recording):
    """A clip of the pictures of a folder."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def files(self):
        return (self.folder,)

    def clip(self, encode_frame):
        frames = tuple(encode_frame(path) for path in sorted(self.folder.iterdir()))
        return Clip(frames, tuple(range(len(frames))))


def test_a_recording_is_read_again_if_a_file_of_it_changed(tmp_path, picture):
    (tmp_path / "frames").mkdir()
    path = tmp_path / "frames" / "0.png"
    cv2.imwrite(str(path), picture())
    sample = Sample(Listed(tmp_path / "frames"), "frames", "train", {}, "x")
    before = stamp(sample)
    assert stamp(sample) == before and len(encode(sample.image).data) == 1
    path.write_bytes(path.read_bytes())
    assert stamp(sample)[0] != before[0]
