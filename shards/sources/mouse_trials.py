"""Reads trials of mice that were stimulated: a CSV with a row for each clip, with its level, in the order of the session.

The column of levels gives three outputs: stress (high levels against 0; levels between are not labelled), level (every level is a
class, in order) and score (the number).
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from affect.shards.errors import InputError, first
from affect.shards.sample import Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout
from affect.shards.sources.clips import ClipsSource, recording
from affect.shards.sources.table import Row, as_number, header

TRIALS = "labels.csv"
LEVELS = ("intensity", "level")  # the first that is there is read
POSITIONS = ("session_position", "trial")
STRESS = Output("stress", "classes", ("baseline", "stress"))
SCORE = Output("score", "scalars", ("score",))
HIGH = 3


class TrialsSource(ClipsSource):
    """The rows of `labels`, their clips below `root`; see ClipsSource for paths, splits, boxes, groups and what becomes meta.

    high: the level from which a trial is stress. Levels are named by the column shock_uA, if there is one.
    meta.session_position: of that column or `trial`, else the row's place among those of its animal. meta.stimulus_s: seconds.
    fps: of folders of frames; None: as the column fps says.
    """

    def __init__(
        self, root: Path, labels: Path, clip: ClipFacts, *, high: int = HIGH, fps: float | None = None, val: float = 0.0
    ) -> None:
        columns = header(labels, ",", ("clip", "subject", LEVELS[0]), "trial")
        self.level_column = next((name for name in LEVELS if name in columns), "")
        if not self.level_column:
            raise InputError(f"{labels}: no column {' or '.join(map(repr, LEVELS))}; found {', '.join(columns)}")
        self.high, self.names, self.places, self.notes = high, dict[int, str](), dict[int, float](), list[str]()
        self.level = Output("level", "classes", ())
        super().__init__(root, labels, clip, {self.level_column: "score"}, fps=fps, val=val)
        self.layout = TargetLayout((STRESS, self.level, SCORE, *([self.classes] if self.classes else [])))
        self.meta |= {"session_position": float} | (
            {"stimulus_s": float} if {"trigger_first_frame", "fps"} <= set(columns) else {}
        )

    def _check(self) -> None:
        self._read_levels()
        super()._check()

    def _read_levels(self) -> None:
        """Read the names of the levels, and each trial's position in its session. Raises InputError listing all that is wrong."""
        group, seen, wrong = self.columns.group, Counter[str](), list[str]()
        position_column = next((name for name in POSITIONS if name in self.columns.meta), None)
        for row in self.table.rows():
            if row.wrong:
                continue
            animal = row.cells[group] if group else ""
            place = as_number(row.cells[position_column]) if position_column else float(seen[animal])
            self.places[row.line] = math.nan if place is None else place
            seen[animal] += 1
            number = as_number(row.cells[self.level_column] or "nan")
            if number is None or number < 0 or not (math.isnan(number) or number.is_integer()):
                wrong.append(f"{row.where}: {self.level_column}: found {row.cells[self.level_column]!r}, expected 0, 1, 2, ...")
            elif not math.isnan(number):
                name = f"{row.cells['shock_ua']}uA" if row.cells.get("shock_ua") else f"level{number:g}"
                if self.names.setdefault(int(number), name) != name:
                    wrong.append(f"{row.where}: level {number:g} is {name}, and was {self.names[int(number)]} before")
        if wrong:
            raise InputError(f"wrong levels: {len(wrong):,}\n{first(wrong, 10)}")
        if 0 not in self.names or max(self.names) < self.high:
            has = ", ".join(map(str, sorted(self.names))) or "none"
            raise InputError(f"{self.table.path}: levels {has}; stress is {self.high} and more against 0; name it: --high LEVEL")
        self.level = Output("level", "classes", tuple(self.names[number] for number in sorted(self.names)))
        if position_column is None:
            self.notes.append("meta.session_position: by the order of the rows of each animal; there is no such column")

    def _sample(self, row: Row) -> Sample | None:
        sample = super()._sample(row)
        if sample is None:
            return None
        number = sample.targets["score.score"]
        if not math.isnan(number):
            sample.targets |= self.level.one_hot(self.names[int(number)])
            if number == 0 or number >= self.high:
                sample.targets |= STRESS.one_hot(STRESS.names[int(number > 0)])
        sample.meta["session_position"] = self.places[row.line]
        rate = as_number(row.cells.get("fps", ""))
        stimulus = as_number(row.cells.get("trigger_first_frame", ""))
        if rate and stimulus is not None:
            sample.meta["stimulus_s"] = stimulus / rate
        if rate and self.fps is None:
            sample.image = recording(self._path(row), self.clip, rate)
        return sample
