"""Ctrl-C, and the signal that ends a process, delayed until a step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from affect.engine.system.log import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Delays the first Ctrl-C or SIGTERM, so that nothing learned is lost; a second one ends at once."""

    def __enter__(self) -> Self:
        self.seen = False
        self.before = {number: signal.getsignal(number) for number in SIGNALS}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        self._restore()
        say("interrupted: saving after this step; once more ends at once")

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if threading.current_thread() is threading.main_thread():
            self._restore()
