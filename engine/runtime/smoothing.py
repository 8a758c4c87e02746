"""Smoothing over time: probabilities averaged, labels that do not flicker, and labels as events.

All times are the source's, in seconds, so the same footage at another frame rate gives the same labels. Axes: C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from affect.shards.errors import InputError
from affect.shards.schema import Kind


@dataclass(frozen=True)
class Smoothing:
    """Settings of an exponential mean with hysteresis; all zero: off.

    tau_s: time constant of the mean; a step has come through to 63 % after it.
    margin: a new label must lead the present one by this probability; a multilabel one must pass its threshold by half of it.
    hold_s: and must do so for this long.
    """

    tau_s: float = 0.15
    margin: float = 0.1
    hold_s: float = 0.2

    def __post_init__(self) -> None:
        for name in ("tau_s", "margin", "hold_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"smoothing: {name}: found {value!r}; expected a number from 0 on")


STEADY = Smoothing()
OFF = Smoothing(0.0, 0.0, 0.0)


class Smoother:
    """Smooths one output of one track."""

    def __init__(self, kind: Kind, smoothing: Smoothing = Smoothing(), thresholds: np.ndarray | None = None) -> None:
        """thresholds: (C,) of a multilabel output; .5 without."""
        self.kind, self.smoothing, self.thresholds = kind, smoothing, thresholds
        self._mean = np.empty(0)
        self._active = np.empty(0, bool)  # (C,): the labels that hold
        self._since = np.empty(0)  # (C,): since when each differs, NaN where it does not
        self._time_s = -math.inf

    def step(self, values: np.ndarray, time_s: float) -> tuple[np.ndarray, tuple[int, ...]]:
        """Take (C,) of a frame; return (C,) smoothed, and the indices of the active labels: one of classes, none of scalars.

        A frame that is not later than the one before counts as simultaneous; values that are not finite change nothing.
        """
        passed = max(0.0, time_s - self._time_s)
        self._time_s = max(self._time_s, time_s)
        if not len(self._mean):
            self._mean = np.array(values, np.float64)
            self._active = self._wanted()
            self._since = np.full(len(values), math.nan)
        elif np.isfinite(values).all():
            share = 1.0 if self.smoothing.tau_s == 0 else 1 - math.exp(-passed / self.smoothing.tau_s)
            self._mean = self._mean + share * (values - self._mean)
            self._decide()
        return self._mean.astype(np.float32), tuple(np.flatnonzero(self._active).tolist())

    def _wanted(self) -> np.ndarray:
        """(C,) the labels of the smoothed values, with the margin in favour of the active ones."""
        wanted = np.zeros(len(self._mean), bool)
        if self.kind == "classes":
            ahead = self._mean + self.smoothing.margin * self._active if len(self._active) else self._mean
            wanted[int(ahead.argmax())] = True
        elif self.kind == "multilabel":
            at = 0.5 if self.thresholds is None else self.thresholds
            slack = (0.5 - self._active) * self.smoothing.margin if len(self._active) else 0.0
            wanted = self._mean >= at + slack
        return wanted

    def _decide(self) -> None:
        """Change a label once it has differed for hold_s."""
        changes = self._wanted() != self._active
        self._since = np.where(changes, np.where(np.isnan(self._since), self._time_s, self._since), math.nan)
        due = changes & (self._time_s - np.nan_to_num(self._since) >= self.smoothing.hold_s - 1e-9)
        if self.kind == "classes":
            comes = due & ~self._active
            if comes.any():
                self._active, self._since = comes, np.full(len(comes), math.nan)
        else:
            self._active = self._active ^ due
            self._since = np.where(due, math.nan, self._since)


@dataclass(frozen=True)
class Event:
    """A label of a track, from its first frame to the first frame without it (or the track's last)."""

    track: int
    label: str
    start_s: float
    end_s: float


class Events:
    """Turns the labels of tracks, frame by frame, into events, and counts changes. Remembers only the tracks that are alive."""

    def __init__(self) -> None:
        self.flips, self.seconds = 0, 0.0  # changes of a label within a track, and the length of all tracks
        self._open: dict[int, dict[str, float]] = {}  # track -> label -> since
        self._seen: dict[int, float] = {}  # track -> its latest frame

    @property
    def flips_per_minute(self) -> float:
        """Over the time that subjects were in view; 0 where there was none."""
        return 60 * self.flips / self.seconds if self.seconds else 0.0

    def step(self, track: int, labels: Iterable[str], time_s: float) -> list[Event]:
        """Take the labels of a frame; return the events that it ends."""
        now, before = set(labels), self._open.setdefault(track, {})
        ended = [Event(track, label, since, time_s) for label, since in before.items() if label not in now]
        if track in self._seen:
            self.flips += now != set(before)
            self.seconds += max(0.0, time_s - self._seen[track])
        for event in ended:
            del before[event.label]
        for label in sorted(now - set(before)):
            before[label] = time_s
        self._seen[track] = time_s
        return ended

    def end(self, tracks: Iterable[int] | None = None) -> list[Event]:
        """End tracks, or all of them (None); return the events that end with them."""
        gone = list(self._open) if tracks is None else [track for track in tracks if track in self._open]
        ended = []
        for track in gone:
            ended += [Event(track, label, since, self._seen[track]) for label, since in self._open.pop(track).items()]
            del self._seen[track]
        return ended
