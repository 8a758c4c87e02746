"""Messages for listed files that do not exist: what is missing, and what is near."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from affect.shards.errors import first

PROBED = 20  # files of a listing that are looked for before packing starts


def none_is_there(listing: Path, paths: Sequence[Path], what: str, remedy: str) -> str:
    """Return the message where none of the first files of a listing exists. what: what they are, in the plural."""
    missing = f"{listing}: none of the first {len(paths)} {what} is there:\n{first(paths, 3)}"
    return f"{missing}\n{nearest_path(paths[0])}\n{remedy}"


def some_inside(folder: Path, most: int = 5000) -> list[Path]:
    """Return the first entries of a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in islice(entries, most))
    except OSError:
        return []


def nearest_path(missing: Path) -> str:
    """Name the deepest existing folder above `missing`, and its entries with the most similar names."""
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    entries = {path.name: path for path in some_inside(missing.parent)}
    close = difflib.get_close_matches(missing.name, entries, n=3, cutoff=0)
    if not close:
        return f"{missing.parent} is there, and empty"
    return f"In {missing.parent} there is no {missing.name!r}; nearest: " + ", ".join(str(entries[name]) for name in close)
