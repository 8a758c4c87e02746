"""A lock on the folder of a run or of results: one process at a time writes there."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from affect.shards.errors import InputError

LOCK = ".run.lock"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time write to a folder, which is made; the lock ends with its process, however that ends.

    Raises: InputError where another one writes there, or none can.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder / LOCK)
    except OSError as error:
        raise InputError(f"{folder}: no folder can be written there ({error.strerror}); name another: --out DIR") from error
    if lock is None:
        writer = ""
        with suppress(OSError):  # it has just ended
            writer = (folder / LOCK).read_text()
        raise InputError(
            f"{folder}: is being written by {writer or 'another process'}; wait for it, stop it, or name another: --out DIR"
        )
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # before the lock ends: whoever opened the file sees that it is gone
        os.close(lock)
        if new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _acquire(path: Path) -> int | None:
    """Return the descriptor of the locked file, which names this process; None where another one has locked it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                os.ftruncate(lock, 0)
                os.write(lock, f"process {os.getpid()} on {platform.node()}".encode())
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError:
            os.close(lock)
            raise
        os.close(lock)  # it was removed between opening and locking it
