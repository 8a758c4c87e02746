"""Silences libraries that print lines of their own where one message of ours is due."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2


@contextmanager
def opencv_quiet() -> Iterator[None]:
    """Silence OpenCV inside the block; an error is in its exception, or in what it returns."""
    log: Any = cv2.utils.logging
    before: int = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(before)
