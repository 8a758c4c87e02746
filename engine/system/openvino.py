"""OpenVINO, of which a process has one core."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


def core() -> Any:
    """Return the core of this process, made once and never ended. Raises ImportError where OpenVINO is not installed.

    A core gives the thread that makes it another stack for signals, and restores the one before when it ends. Of two cores the
    one that ends last restores what the first has freed, and the next signal, of an ended child process say, kills.
    """
    return _core_of(os.getpid())


@cache
def _core_of(process: int) -> Any:
    """process: a fork has none of the threads of its parent's."""
    import openvino

    return openvino.Core()
