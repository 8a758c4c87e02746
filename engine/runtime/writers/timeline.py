"""Plots probabilities and labels of each track over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

matplotlib.use("Agg")

MOST_POINTS = 2000  # of a track; then every second one goes, and only every second one comes in
MOST_TRACKS = 10  # rows of the plot, those seen longest
GAP_S = 0.5  # a longer one breaks the line
LEAST_GAP = 3  # in usual steps, for slow sources
GAP = -1


@dataclass
class _Line:
    times_s: list[float] = field(default_factory=list)
    probs: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    stride: int = 1
    seen: int = 0

    def add(self, time_s: float, probs: np.ndarray, label: int) -> None:
        if self.seen % self.stride == 0:
            self.times_s.append(time_s)
            self.probs.append(np.asarray(probs, np.float32))
            self.labels.append(label)
        self.seen += 1
        if len(self.times_s) >= MOST_POINTS:
            self.times_s, self.probs, self.labels = self.times_s[::2], self.probs[::2], self.labels[::2]
            self.stride *= 2


class Timeline:
    """Collects points for the plot: at most MOST_POINTS of a track, and twice as many tracks as are drawn."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.count = tuple(names), 0
        self._lines: dict[int, _Line] = {}

    def add(self, track: int, time_s: float, probs: np.ndarray, label: int | None = None) -> None:
        """probs: (C,) in the order of names. label: which of them holds; without it the largest."""
        if track not in self._lines:
            self.count += 1
            if len(self._lines) >= 2 * MOST_TRACKS:
                shortest = min(self._lines, key=lambda known: self._lines[known].seen)
                del self._lines[shortest]
        self._lines.setdefault(track, _Line()).add(time_s, probs, int(np.argmax(probs)) if label is None else label)

    def plot(self, path: Path, title: str = "") -> None:
        """Draw a row a track: a line a class, and below them the label. Without a track there is an empty row."""
        longest = sorted(self._lines, key=lambda track: -self._lines[track].seen)[:MOST_TRACKS]
        rows = max(1, len(longest))
        figure = Figure(figsize=(11, 1.3 + 1.9 * rows), layout="constrained")
        all_axes = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
        colours = matplotlib.colormaps["tab20" if len(self.names) > 10 else "tab10"].colors  # type: ignore[attr-defined]
        for axes in all_axes:
            axes.set(ylim=(-0.12, 1.02), yticks=[0, 0.5, 1])
            axes.spines[["top", "right"]].set_visible(False)
        for axes, track in zip(all_axes, sorted(longest), strict=False):
            line = self._lines[track]
            times, probs, labels = _broken(np.array(line.times_s), np.stack(line.probs), np.array(line.labels))
            before = np.concatenate([labels[:1], np.where(labels == GAP, GAP, np.roll(labels, 1))[1:]])
            for i, name in enumerate(self.names):
                colour = colours[i % len(colours)]
                axes.plot(times, probs[:, i], color=colour, linewidth=1.2, label=name)
                axes.plot(
                    times,
                    np.where((labels == i) | (before == i), -0.07, np.nan),
                    color=colour,
                    linewidth=5,
                    solid_capstyle="butt",
                )
            axes.set_ylabel(f"#{track}", rotation=0, ha="right", va="center")
        all_axes[-1].set_xlabel("seconds")
        more = f"; the {rows} seen longest of {self.count:,} tracks" if self.count > rows else ""
        figure.suptitle(f"{title}{more}" if longest else f"{title}: no face", x=0.01, ha="left", fontsize=10)
        if longest:
            handles, labels = all_axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 8), frameon=False, fontsize=8)
        figure.savefig(path, dpi=110)


def _broken(times: np.ndarray, probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,), (N, C) and (N,) with a NaN, of the labels GAP, in each gap, so that no line is drawn over it."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    gaps = np.flatnonzero(steps > max(GAP_S, LEAST_GAP * usual)) + 1
    return np.insert(times, gaps, np.nan), np.insert(probs, gaps, np.nan, 0), np.insert(labels, gaps, GAP)
