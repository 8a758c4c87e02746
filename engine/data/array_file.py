"""Arrays by name in an npz file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from affect.shards.errors import InputError


def write_npz(path: Path, **arrays: Any) -> None:
    """Whole on disk or not there; the same arrays give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz by name; pickled ones are left out, unread. Raises InputError where it is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an .npz")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: values for name in archive.files if (values := _unpickled(archive, name)) is not None}
    except Exception as error:  # numpy, zipfile and zlib each raise their own kinds on what is no archive
        raise InputError(f"{path}: not readable as an npz ({type(error).__name__}: {error})") from error


def _unpickled(archive: Any, name: str) -> np.ndarray | None:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            return None
        raise
