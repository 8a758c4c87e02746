"""One process at a time writes to a folder."""

import fcntl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from affect.engine.system.folder_lock import LOCK, lock_folder
from affect.shards.errors import InputError

KILLED = """
import os, signal, sys
from pathlib import Path
from affect.engine.system.folder_lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_lock_of_a_killed_process_ends_with_it(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert (tmp_path / LOCK).is_file()
    with lock_folder(tmp_path), pytest.raises(InputError, match="is being written by process [0-9]+ on .*--out DIR"):
        lock_folder(tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


def test_however_many_come_and_go_one_is_within(tmp_path):
    within, most, entered = [], [], []

    def come_and_go(number):
        for _ in range(300):
            try:
                with lock_folder(tmp_path):
                    within.append(number)
                    most.append(len(within))
                    within.remove(number)
                entered.append(number)
            except InputError:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert max(most) == 1 and len(entered) > 100


def test_a_lock_that_ends_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    def ended_first(lock, how, flock=fcntl.flock):
        monkeypatch.undo()
        (tmp_path / LOCK).unlink()  # as its process does at its end
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", ended_first)
    with lock_folder(tmp_path), pytest.raises(InputError, match="is being written by process"):
        lock_folder(tmp_path).__enter__()


def test_a_new_folder_without_files_is_removed(tmp_path):
    with lock_folder(tmp_path / "new"):
        assert (tmp_path / "new" / LOCK).is_file()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder can be written there .*--out DIR"):
        lock_folder(tmp_path / "file").__enter__()
