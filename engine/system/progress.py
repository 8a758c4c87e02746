"""Progress of long work: a bar with rate and time left on a terminal, a line per interval elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from affect.engine.system.log import say


class Progress:
    """`with Progress("pack", total, "images") as progress: progress.advance(1)`; total None where it is not known."""

    def __init__(self, label: str, total: int | None, unit: str, every_s: float = 10.0, shown: bool = True) -> None:
        self.label, self.total, self.unit, self.every_s = label, total, unit, every_s
        self.done, self.note = 0, lambda: ""
        self.skipped = 0
        self.started = self.printed = time.monotonic()
        self.terminal = shown and sys.stderr.isatty()
        self.shown = shown

    def __enter__(self) -> Self:
        return self

    def advance(self, count: int = 1, note: Callable[[], str] | None = None) -> None:
        """`note` is called when a line is shown, not before: it may have to wait for a GPU."""
        self.done += count
        self.note = note or self.note
        now = time.monotonic()
        if self.shown and now - self.printed >= (0.2 if self.terminal else self.every_s):
            self.printed = now
            self._show("\r" if self.terminal else "")

    def skip(self, count: int) -> None:
        """Count work that was done before; it does not count for the rate."""
        self.done = self.skipped = count

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.terminal:
            print("\r\x1b[2K", end="", file=sys.stderr)
        if kind is None and self.shown:
            self._show("")

    @property
    def rate(self) -> float:
        return (self.done - self.skipped) / max(time.monotonic() - self.started, 1e-9)

    def _show(self, start: str) -> None:
        rate = self.rate
        parts = [f"{self.label}: {self.done:,}" + (f"/{self.total:,}" if self.total else "") + f" {self.unit}", f"{rate:,.0f}/s"]
        if self.total and self.done < self.total and rate:
            parts.append(f"{_clock((self.total - self.done) / rate)} left")
        else:
            parts.append(_clock(time.monotonic() - self.started))
        line = ", ".join(filter(None, [*parts, self.note()]))
        if start:
            print(f"{start}\x1b[2K{line}", end="", file=sys.stderr, flush=True)
        else:
            say(line)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
