"""`--alias NAME`: a relative link beside a run, so that its name stands for the main run of the day."""

from __future__ import annotations

import os
from pathlib import Path

from affect.shards.errors import InputError


def check_alias(out: Path, name: str) -> Path:
    """The link's place. Raises InputError, before the run begins, where something else has the name."""
    link = out.parent / name
    if name in ("", ".", "..") or Path(name).name != name:
        raise InputError(f"--alias {name!r}: expected a name without a path; the link stands beside {out}")
    if link.exists() and not link.is_symlink():
        raise InputError(f"--alias {name}: {link} is there and is no link; name another, or move it away")
    if not link.is_symlink() and name == out.name:
        raise InputError(f"--alias {name}: is the name of the run's folder; name another")
    return link


def make_alias(link: Path, out: Path) -> None:
    """Put in place at once: a reader finds the old run or the new one."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(out.resolve(), link.parent.resolve()), target_is_directory=True)
    partial.replace(link)
