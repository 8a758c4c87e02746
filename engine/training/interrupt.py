"""Ctrl-C, delayed until a step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from affect.engine.system.log import say


class Interrupt:
    """Delays the first Ctrl-C, so that nothing learned is lost; a second one ends at once."""

    def __enter__(self) -> Self:
        self.seen = False
        self.before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGINT, self.before)
        say("interrupted: saving after this step; once more ends at once")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)
