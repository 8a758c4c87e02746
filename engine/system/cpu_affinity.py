"""The cores of the machine that this process runs on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import cv2

from affect.shards.errors import InputError

EXPECTED = "expected numbers and ranges of cores, such as 0-3 or 0,2"


def parse_cores(text: str | Iterable[int]) -> set[int]:
    """`0-3,6` or core numbers -> {0, 1, 2, 3, 6}. Raises InputError where it is neither."""
    if not isinstance(text, str):
        return set(text)
    cores: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise InputError(f"cores: found {text!r}; {EXPECTED}")
        cores |= set(range(first, last + 1))
    return cores


@cache
def _at_first() -> set[int]:
    """The cores of the process before it was restricted to fewer."""
    return os.sched_getaffinity(0)


def pin(cores: str | Iterable[int]) -> int:
    """Run this process, all its threads and those they start, on these cores; return how many they are.

    It holds until the next call. Open sessions afterwards with that number of threads: without one, ONNX Runtime spreads its
    threads over the whole machine. Raises InputError where a core is not there.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("cores: this system cannot keep a process on some cores; leave it out, and name threads")
    wanted, there = parse_cores(cores), _at_first()
    lacking = sorted(wanted - there)
    if lacking or not wanted:
        shown = ", ".join(map(str, sorted(there)))
        what = f"{', '.join(map(str, lacking[:8]))}{', ...' * (len(lacking) > 8)} not there" if lacking else "none named"
        raise InputError(f"cores: {what}; this process may use {shown}")
    for thread in Path("/proc/self/task").iterdir() if Path("/proc/self/task").is_dir() else ():  # also those of before
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), wanted)
    os.sched_setaffinity(0, wanted)
    cv2.setNumThreads(len(wanted))
    return len(wanted)
