"""Files of results that stand in their place once they are complete, and one message where they cannot be written."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from affect.shards.errors import InputError

FLUSH_S = 1.0


def make_folder(folder: Path) -> Path:
    """Make a folder, or check that it may be written to. Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"{folder}: no folder can be written there ({error.strerror}); name another: --out DIR") from error
    return folder


def partial_of(path: Path) -> Path:
    """Return the name under which this process, and no other one, writes a file."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def open_file(path: Path) -> TextIO:
    """Open the partial file of a table."""
    file: TextIO = writing(path, lambda: partial_of(path).open("w", newline="", encoding="utf-8"))
    return file


def finish_file(path: Path, file: TextIO) -> None:
    """Close the partial file and put it in place; remove it where it has not even a first row."""
    try:
        writing(path, file.close)
    finally:
        if partial_of(path).stat().st_size:
            partial_of(path).replace(path)
        else:
            partial_of(path).unlink()


class Flush:
    """Puts the rows of a table on the disk every FLUSH_S seconds: that much is lost by a kill."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file, self.flushed = path, file, time.monotonic()

    def __call__(self) -> None:
        """Flush the file where it is due; to be called after each frame. Raises InputError."""
        if time.monotonic() - self.flushed >= FLUSH_S:
            writing(self.path, self.file.flush)
            self.flushed = time.monotonic()


def put(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file at once, whole or not at all. Raises InputError where it cannot be written."""
    try:
        writing(path, write, path)
    except InputError:
        path.unlink(missing_ok=True)
        raise


def writing(path: Path, write: Callable[..., Any], *arguments: Any) -> Any:
    """Call `write`; raises InputError naming the file where the system refuses."""
    try:
        return write(*arguments)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); make room, or name another --out") from error
