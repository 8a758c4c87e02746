"""A packing that was killed goes on where it stopped and ends with the same bytes."""

import os
import subprocess
import sys

import cv2
import pytest

from affect.shards.errors import InputError
from affect.shards.images import Storage
from affect.shards.pack import pack
from affect.shards.resume import Journal
from affect.shards.sources.class_folders import FolderSource

# One process, forked for each packing: killed at its n-th write, to a tar, the journal or a csv.
FORKED = """
import os, random, signal, sys
import pandas  # pyarrow does, at the first table: once for all forks
from pathlib import Path
from affect.shards import pack, resume, tar_writer
from affect.shards.sources.class_folders import FolderSource
from affect.shards.tar import TarWriter

root, out = Path(sys.argv[1]), Path(sys.argv[2])
resume.COMMIT_SAMPLES, tar_writer.INDEX_ROWS, os.fsync = 4, 10, lambda number: None  # a killed process needs no fsync
writes = 0

def counted(function):
    def call(*arguments):
        global writes
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        writes -= 1
        return function(*arguments)
    return call

TarWriter._write = counted(TarWriter._write)
resume.Journal.commit = counted(resume.Journal.commit)
resume.Journal.remove = counted(resume.Journal.remove)
tar_writer._write_csv = counted(tar_writer._write_csv)

def packed(name, allowed):
    global writes
    child = os.fork()
    if child == 0:
        writes = allowed
        lines = []
        pack.pack(FolderSource(root, val=0.3), out / name, calib=0.4, max_rejects=0.2, shard_samples=15, say=lines.append)
        os._exit(0 if not allowed > 0 else 3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert packed("whole", -1) == 0
moments = random.Random(7)
for i in range(5):
    codes = [packed(f"killed{i}", moments.randrange(120)) for _ in range(2)]
    assert codes == [-signal.SIGKILL] * 2, codes
    assert not (out / f"killed{i}").exists() and (out / f".killed{i}.packing").exists()
    assert packed(f"killed{i}", -1) == 0
"""


@pytest.fixture
def raw(tmp_path, picture):
    """Sixty pictures in two classes, one of them a text."""
    for i in range(60):
        path = tmp_path / "raw" / ("sad" if i % 2 else "happy") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(24, 24, seed=i))
    (tmp_path / "raw" / "sad" / "33.png").write_text("not a picture")
    return tmp_path / "raw"


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def interrupted(source, out, after, **options):
    """Pack and press Ctrl-C after some samples."""
    seen = []

    def advance(count):
        seen.append(count)
        if len(seen) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, out, advance=advance, max_rejects=0.2, **options)


@pytest.mark.slow
def test_killed_ten_times_and_continued_to_the_same_bytes(raw, tmp_path):
    subprocess.run([sys.executable, "-c", FORKED, str(raw), str(tmp_path)], check=True, timeout=60)
    whole = bytes_of(tmp_path / "whole")
    assert len(whole) > 8 and not list(tmp_path.glob(".*"))
    for i in range(5):
        assert bytes_of(tmp_path / f"killed{i}") == whole


def test_what_was_done_is_not_decoded_again(raw, tmp_path, monkeypatch):
    from affect.shards import pack as write

    interrupted(FolderSource(raw), tmp_path / "out", 41)
    decoded, lines = [], []
    encode = write.encode
    monkeypatch.setattr(write, "encode", lambda image, *rest: decoded.append(image) or encode(image, *rest))
    pack(FolderSource(raw), tmp_path / "out", max_rejects=0.2, say=lines.append)
    assert len(decoded) == 60 - 40
    assert lines == [".out.packing: an interrupted packing is continued; 40 samples are there"]


@pytest.mark.parametrize(
    ("options", "classes", "what"),
    [
        ({"storage": Storage(quality=80)}, None, "the options"),
        ({"calib": 0.5}, None, "the options"),
        ({}, ["sad", "happy"], "the source"),
    ],
)
def test_other_arguments_start_anew(options, classes, what, raw, tmp_path):
    interrupted(FolderSource(raw), tmp_path / "out", 41)
    lines = []
    pack(FolderSource(raw, classes), tmp_path / "out", max_rejects=0.2, say=lines.append, **options)
    pack(FolderSource(raw, classes), tmp_path / "anew", max_rejects=0.2, **options)
    assert lines == [f".out.packing: {what} changed since it was interrupted; packed anew"]
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "anew")


def test_a_file_that_was_mended_since_is_read_again(raw, tmp_path, picture):
    """Of the same size, so that the fingerprint of the source does not show it."""
    bad = raw / "sad" / "33.png"
    data = cv2.imencode(".png", picture(24, 24, seed=33))[1].tobytes()
    bad.write_bytes(bytes(len(data)))
    interrupted(FolderSource(raw), tmp_path / "out", 59)
    bad.write_bytes(data)
    lines = []
    info = pack(FolderSource(raw), tmp_path / "out", say=lines.append)
    pack(FolderSource(raw), tmp_path / "anew")
    assert info.num_samples == 60 and "sad/33.png is not as it was" in lines[1]
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "anew")


def test_a_tar_that_was_cut_since_is_packed_anew(raw, tmp_path):
    interrupted(FolderSource(raw), tmp_path / "out", 59)
    os.truncate(tmp_path / ".out.packing" / "train-000000.tar", 5000)
    lines = []
    pack(FolderSource(raw), tmp_path / "out", max_rejects=0.2, say=lines.append)
    pack(FolderSource(raw), tmp_path / "anew", max_rejects=0.2)
    assert "shorter than when it was written; packed anew" in lines[1]
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "anew")


def test_what_the_user_must_mend_leaves_nothing_behind_even_when_continued(raw, tmp_path):
    interrupted(FolderSource(raw), tmp_path / "out", 59)
    with pytest.raises(InputError, match="1 of 60 samples are unreadable"):
        pack(FolderSource(raw), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_two_at_once_do_not_write_into_one_folder(raw, tmp_path):
    journal = Journal(tmp_path / ".out.packing", {}, print, lambda: None)
    with pytest.raises(InputError, match="another affect pack is writing there"):
        pack(FolderSource(raw), tmp_path / "out")
    journal.stream.close()
    assert (tmp_path / ".out.packing").exists()
