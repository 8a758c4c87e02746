"""A clip model over a stream: each frame is encoded once, and the temporal head reads a window of features.

Axes: T frames of a window, F features of a frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from affect.engine.runtime.backends.backend import Backend
from affect.shards.errors import InputError

EARLY = 1e-6  # seconds that a frame may be before its place on the grid: rounding of timestamps


@dataclass(frozen=True)
class Window:
    """The outputs of a window. start_s, end_s: of its first and last frame. values: output of the graph -> (C,)."""

    start_s: float
    end_s: float
    values: dict[str, np.ndarray]


class ClipStream:
    """Takes frames in the order of their times, returns a Window whenever one is due.

    encoder: images (N, H, W, 3) uint8 -> `features` (N, F). temporal: (N, T, F) -> outputs (`open_parts` opens both).
    side: None, or the (S,) signals beside every window, as measured.
    frames: T. rate_hz: of the frames in a window: a grid of times starts at the first frame, and the first frame at or after each
        of its points is taken; a frame that is the first after several points is taken once. hop: frames from a window to the
        next; the first window comes with frame T.
    A cut, or a gap longer than two steps of the grid, starts anew: no window spans it.
    """

    def __init__(
        self, encoder: Backend, temporal: Backend, frames: int, rate_hz: float, hop: int = 1, side: np.ndarray | None = None
    ) -> None:
        if frames < 1 or hop < 1 or not 0 < rate_hz < float("inf"):
            raise InputError(
                f"clip stream: frames {frames}, rate_hz {rate_hz}, hop {hop}; expected at least 1 frame, a rate above 0, "
                "a hop of 1 on"
            )
        self.encoder, self.temporal, self.side = encoder, temporal, () if side is None else (side[None],)
        self.frames, self.step_s, self.hop = frames, 1 / rate_hz, hop
        self.resets = -1
        self.reset()

    def reset(self) -> None:
        """Forget all frames, as after a lost track."""
        self._features: deque[np.ndarray] = deque(maxlen=self.frames)
        self._times: deque[float] = deque(maxlen=self.frames)
        self._start_s: float | None = None
        self._last_s = self._points = 0.0
        self._since, self._started = 0, False  # frames since the last window, and whether there was one
        self.resets += 1

    def push(self, time_s: float, view: Callable[[], np.ndarray], *, cut: bool = False) -> Window | None:
        """Take the next frame. Raises InputError where time runs back.

        view: returns (H, W, 3) uint8, preprocessed; called only for frames on the grid. cut: the first frame of a new scene.
        """
        if not np.isfinite(time_s):
            raise InputError(f"clip stream: time {time_s}; expected seconds")
        if self._start_s is not None and time_s < self._last_s:
            raise InputError(f"clip stream: a frame at {time_s} s after one at {self._last_s} s; expected ascending times")
        if self._start_s is not None and (cut or time_s - self._last_s > 2 * self.step_s):
            self.reset()
        if self._start_s is None:
            self._start_s = time_s
        self._last_s = time_s
        if time_s + EARLY < self._start_s + self._points * self.step_s:
            return None
        self._points = np.floor((time_s + EARLY - self._start_s) / self.step_s) + 1
        self._features.append(self.encoder.run(view()[None])["features"][0])
        self._times.append(time_s)
        return self._window()

    def _window(self) -> Window | None:
        self._since += 1
        if len(self._features) < self.frames or (self._started and self._since < self.hop):
            return None
        self._since, self._started = 0, True
        values = self.temporal.run(np.stack(self._features)[None], *self.side)
        return Window(self._times[0], self._times[-1], {name: rows[0] for name, rows in values.items()})
