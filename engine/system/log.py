"""One line to the person at the terminal; never to standard output, which belongs to results."""

from __future__ import annotations

import sys
from functools import cache


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@cache
def say_once(text: str) -> None:
    """For what holds as long as the process runs, however often it is met."""
    say(text)


def silent(text: str) -> None:
    """For what was said before."""
