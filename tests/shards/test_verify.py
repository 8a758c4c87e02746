"""One flipped byte anywhere is found and named."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.class_folders import FolderSource
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


def files_of(folder, *suffixes):
    return [path for path in sorted(folder.iterdir()) if path.suffix in suffixes]


@pytest.fixture
def few(tmp_path):
    """A dataset with a rejected picture and a duplicate in each list."""
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for name, seed in (("train/a/0", 0), ("train/b/1", 1), ("val/b/0", 1), ("val/a/1", 2)):
        cv2.imwrite(str(tmp_path / "raw" / f"{name}.png"), np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8))
    (tmp_path / "raw" / "val" / "a" / "2.png").write_bytes(b"no picture")
    pack(FolderSource(tmp_path / "raw"), tmp_path / "few", on_leak="drop-train", max_rejects=0.5)
    return tmp_path / "few"


def survivors(folder, path):
    """Where a flipped byte is not noticed, or only another file is named; in dataset.json are sizes and digests of others."""
    data, passed = path.read_bytes(), []
    for at in range(len(data)):
        flip(path, at)
        try:
            verify(folder)
            passed.append(at)
        except InputError as error:
            passed += [] if path.name == "dataset.json" or path.name in str(error) else [at]
        path.write_bytes(data)
    return passed


@pytest.mark.slow
def test_every_flipped_byte_of_the_small_files_is_found(few):
    assert verify(few).info.dropped == {"rejected": 1, "duplicates": 1}
    paths = files_of(few, ".json", ".idx", ".csv", "")
    assert len(paths) == 6
    assert {path.name: survivors(few, path) for path in paths} == {path.name: [] for path in paths}


def test_every_flipped_byte_of_a_target_is_found(few):
    packed = Dataset(few)
    (offset,), (size,) = packed.places(0)
    tar = few / packed.column("shard")[0]
    at = int(offset + size + (-size % 512) + 512)
    for byte in range(at, at + 4):
        flip(tar, byte)
        with pytest.raises(InputError, match=rf"the targets of 000000000 \(000000000.y.f32, byte {at}\)"):
            verify(few)
        flip(tar, byte)


CHANGES = [
    (lambda info: info["counts"].update(train=2), "counts"),
    (lambda info: info["dropped"].update(rejected=2), "dropped: rejected"),
    (lambda info: info["dropped"].update(duplicates=0), "dropped: duplicates"),
    (lambda info: info["dropped"].update(filtered=-1), "dropped"),
    (lambda info: info["layout"][0].update(names=["b", "a"]), "layout"),
    (lambda info: info["layout"][0].update(kind="class"), "layout: kinds"),
    (lambda info: info.update(label_protocol=""), "label_protocol"),
    (lambda info: info.update(clip={"choice": "all"}), "clip"),
]


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_without_digests_what_follows_from_other_files_is_compared(change, named, few):
    """As in datasets packed before SHA256SUMS was written."""
    (few / "SHA256SUMS").unlink()
    verify(few)
    info = json.loads((few / "dataset.json").read_text())
    change(info)
    (few / "dataset.json").write_text(json.dumps(info, indent=1))
    with pytest.raises(InputError, match=rf"dataset\.json: {named}.*does not agree|dataset\.json: counts add up"):
        verify(few)


def test_counts_of_other_samples_are_one_message(few):
    """Reading targets was a traceback of numpy."""
    info = json.loads((few / "dataset.json").read_text())
    for counts, message in (({"train": 9}, "counts add up to 9 samples, index.parquet has 3"), ([3], "not readable")):
        (few / "dataset.json").write_text(json.dumps(info | {"counts": counts}))
        with pytest.raises(InputError, match=rf"dataset\.json: {message}"):
            Dataset(few).targets("emotion")


@pytest.mark.slow
def test_without_digests_every_flipped_byte_of_an_idx_is_found(few):
    (few / "SHA256SUMS").unlink()
    assert [survivors(few, path) for path in files_of(few, ".idx")] == [[], []]
    for path in files_of(few, ".idx", ".csv"):
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(InputError, match=f"{path.name}: missing"):
            verify(few)
        path.write_bytes(data)


def test_sha256sum_reads_the_digests(few):
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=few, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(list(few.iterdir())) - 1


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/passwd", "..", "a\\b.tar"])
def test_files_outside_of_the_folder_are_not_opened(name, few):
    info = json.loads((few / "dataset.json").read_text())
    index = few / "index.parquet"
    table = pq.read_table(index)
    shard = pa.array([name] * len(table)).dictionary_encode()
    pq.write_table(table.set_column(table.schema.get_field_index("shard"), "shard", shard), index)
    info["files"]["index.parquet"] = {"size": index.stat().st_size, "sha256": file_sha256(index)}
    (few / "dataset.json").write_text(json.dumps(info))
    for read in (lambda: Dataset(few).image(0), lambda: Dataset(few).column("shard"), lambda: verify(few)):
        with pytest.raises(InputError, match=r"index\.parquet: shard: found .*, expected a tar that dataset\.json lists"):
            read()
    info["files"][name] = info["files"].pop("train-000000.tar")
    (few / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"dataset\.json: files: .* is outside of the dataset"):
        Dataset(few)


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
