"""Errors that a user can correct: one clear message, exit code 1."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class InputError(ValueError):
    """The input is wrong. The message names the place, what was found, what was expected and what to do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` with the most similar known word, or an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def first(items: Iterable[object], most: int = 5) -> str:
    """Return the first few items, one a line, and how many more there are."""
    items = list(items)
    lines = [f"  {item}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"  ... and {len(items) - most} more")
    return "\n".join(lines)


def check_new_folder(folder: Path) -> None:
    """Raises InputError where a folder that is to be written is there already, and not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already and is not an empty folder; name another, or remove it first")
