"""One flipped byte anywhere is found and named."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.verify import verify


@pytest.fixture
def copy(synthetic, tmp_path):
    return shutil.copytree(synthetic, tmp_path / "copy")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_whole_dataset_passes(synthetic):
    assert verify(synthetic).info.num_samples == 400


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 12))
def test_one_flipped_byte_in_a_tar_is_named(copy, share):
    tar = copy / "train-000001.tar"
    flip(tar, int(share * tar.stat().st_size))
    with pytest.raises(InputError, match=rf"{tar}: its bytes have changed .*: (the|in the) "):
        verify(copy)


def test_the_damaged_member_is_named(copy):
    packed = Dataset(copy)
    i = int(packed.rows("train")[5])
    key, offset = packed.column("key")[i], int(packed.column("offset")[i])
    flip(copy / packed.column("shard")[i], offset + 100)
    with pytest.raises(InputError, match=rf"of {key} \(bytes {offset} to"):
        verify(copy)


@pytest.mark.parametrize("name", ["index.parquet", "train-000000.tar"])
def test_a_missing_or_shorter_file_is_named(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(InputError, match=rf"{name}: {len(data) - 1} bytes, expected {len(data)}"):
        verify(copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name}: missing"):
        verify(copy)


@pytest.mark.parametrize("share", np.linspace(0, 0.99, 8))
def test_a_flipped_byte_in_the_index_is_one_message(copy, share):
    flip(copy / "index.parquet", int(share * (copy / "index.parquet").stat().st_size))
    with pytest.raises(InputError, match=r"index\.parquet"):
        verify(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 99}'])
def test_a_description_that_is_none(copy, text):
    (copy / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json: (not readable|schema 99 is newer)"):
        Dataset(copy)


def test_a_tar_of_another_dataset_is_noticed(copy):
    info = json.loads((copy / "dataset.json").read_text())
    info["files"]["train-000000.tar"], info["files"]["train-000001.tar"] = (info["files"][f"train-00000{i}.tar"] for i in (1, 0))
    (copy / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"train-000000\.tar"):
        verify(copy)


THREADS = """
import sys, threading
from affect.shards.dataset import Dataset
for _ in range(20):
    dataset, go = Dataset(sys.argv[1]), threading.Barrier(4)
    def read(first):
        go.wait()
        for name in dataset.names[first:]:
            dataset.table([name])
    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


@pytest.mark.slow
def test_threads_share_a_dataset(synthetic):
    """Two at once in one Parquet file crashed the process, or never came back."""
    done = subprocess.run([sys.executable, "-c", THREADS, str(synthetic)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
