"""Messages on the terminal, one line each; never on standard output, which belongs to results."""

from __future__ import annotations

import sys
from functools import cache


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@cache
def say_once(text: str) -> None:
    """Print a message once in the life of the process."""
    say(text)


def silent(text: str) -> None:
    """Print nothing: in place of `say` where the message was printed before."""
