"""One row of a table of results: a face as one package reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COLUMNS = (
    "package",
    "frame",
    "time_s",
    "source",
    "face",
    "track",
    "x",
    "y",
    "w",
    "h",
    "det_score",
    "face_px",
    "blur",
    "label",
    "sure",
)  # of every row; behind them the values and sets of the packages


@dataclass(frozen=True)
class Row:
    """A frame's face as one package reads it; a frame without a face has only package, frame, time_s and source.

    face: its number in the frame, best detection first. box: x, y, w, h in pixels from the top left. face_px: the shorter
    side of the box. blur: the variance of the Laplacian (`vision.crop.sharpness`), near 0 where blurred. label: several are
    joined by `+`. values: `<output>.<name>` -> value. sets: `<output>.set` -> the labels of its conformal set, joined by `|`.
    """

    package: str
    frame: int
    time_s: float | None
    source: str
    face: int | None = None
    track: int | None = None
    box: tuple[float, float, float, float] | None = None
    det_score: float | None = None
    blur: float | None = None
    label: str | None = None
    sure: bool | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)

    def cells(self, columns: Sequence[str], sets: Sequence[str] = ()) -> list[Any]:
        """Return cells in the order of COLUMNS, then the values of `columns`, then the `sets`; None where there is nothing."""
        x, y, w, h = self.box or (None,) * 4
        px = None if w is None or h is None else min(w, h)
        place = (self.face, self.track, x, y, w, h, self.det_score, px, self.blur, self.label, self.sure)
        behind = [*(self.values.get(name) for name in columns), *(self.sets.get(name) for name in sets)]
        return [self.package, self.frame, self.time_s, self.source, *place, *behind]
