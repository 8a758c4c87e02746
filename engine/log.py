"""One line to the person at the terminal; never to standard output, which belongs to results."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def silent(text: str) -> None:
    """For what was said before."""
