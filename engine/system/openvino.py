"""OpenVINO, of which a process has one core."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


def core() -> Any:
    """Made once a process and never ended. Raises ImportError where OpenVINO is not installed.

    A core gives the thread that makes it another stack for signals, and puts the one before back when it ends. Of two cores the
    one that ends last puts back what the first has freed, and the next signal, of a child process that ended, say, kills.
    """
    return _core_of(os.getpid())


@cache
def _core_of(process: int) -> Any:
    """process: a fork has none of the threads of its parent's."""
    import openvino

    return openvino.Core()
