"""Logs the stage in which a batch hangs."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from affect.engine.system.log import say

LIMIT_S = 60.0


class Watchdog:
    """`with watchdog: watchdog.stage = "reading"; ...`: every LIMIT_S in one stage its name is logged."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s, self._ended = limit_s, threading.Event()
        self._stage, self._since = "", time.monotonic()

    @property
    def stage(self) -> str:
        return self._stage

    @stage.setter
    def stage(self, name: str) -> None:
        """An empty name: nobody is waiting."""
        self._since, self._stage = time.monotonic(), name

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True, name="loader watchdog").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self.limit_s / 10):
            if self._stage and time.monotonic() - self._since > self.limit_s:
                say(f"loader: waiting for over {self.limit_s:.0f} s in stage: {self._stage}")
                self._since = time.monotonic()
