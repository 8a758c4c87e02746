"""The YAML file of a sweep: which settings of a run vary, and the sets of rows that choose among them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from affect.engine.config.section import Section

VAL = "val"  # of a sweep's sets: each run's own validation
FILES = (".csv", ".npz")
PRESENT_F1 = "present_only.macro_f1"
NAME = re.compile(r"\w[\w.,=+-]*")


class SetConfig(Section):
    """Rows on which points are compared: a packed dataset, a CSV or an npz. Without a path: each run's own validation."""

    path: Path | None = None
    split: str = "val"  # of a packed dataset; val+calib: both as one
    class_map: str = ""  # by name or file; classes that are not in it are left out

    @property
    def packed(self) -> bool:
        return self.path is not None and self.path.suffix not in FILES

    @property
    def place(self) -> str:
        """Return the text that stands for it in `chosen_on` of a run."""
        return VAL if self.path is None else f"{self.path}#{self.split}" if self.packed else str(self.path)


def _named(value: Any) -> Any:
    """{NAME: path}, or a list of `val` and such pairs, as {name: settings}."""
    pairs: list[tuple[Any, Any]] = []
    for item in value if isinstance(value, list) else [value]:
        pairs += item.items() if isinstance(item, dict) else [(item, None)]
    for name, place in pairs:
        if not isinstance(name, str) or not NAME.fullmatch(name) or (place is None) != (name == VAL):
            raise ValueError(f"expected {VAL}, the runs' own validation, or NAME: path; found {name!r}: {place!r}")
    if twice := [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]:
        raise ValueError(f"{twice[0]}: is named twice")
    return {name: {"path": place} if isinstance(place, str) else place or {} for name, place in pairs}


Sets = Annotated[dict[str, SetConfig], BeforeValidator(_named)]


class SweepConfig(Section):
    """Points are compared by the mean of a figure over `select_on`; `report_on` has no part in it."""

    ONLY_IN_FILE: ClassVar = True  # --set is for the runs

    base: str  # a config by name or file
    set: dict[str, Any] = Field(default_factory=dict)  # config key -> value, of all points
    grid: dict[str, list[Any]] = Field(default_factory=dict)  # config key -> values; all combinations are points
    points: dict[str, dict[str, Any]] = Field(default_factory=dict)  # name -> config key -> value; beside those of the grid
    seeds: list[int] = Field(default_factory=list)  # each point is run with each; empty: with the base's
    folds: list[int] = Field(default_factory=list)  # as seeds: values of data.fold
    select_by: str = PRESENT_F1  # a path in metrics.json, as outputs.pain.scalars.total.mae
    select_on: Sets = Field(min_length=1)
    report_on: Sets = Field(default_factory=dict)

    @model_validator(mode="after")
    def has_points(self) -> Self:
        if empty := [key for key, values in self.grid.items() if not values]:
            raise ValueError(f"grid.{empty[0]}: no values; give some, as [0.006, 0.012]")
        if not self.grid and not self.points:
            raise ValueError("nothing to compare; give grid: {KEY: [values]} or points: {NAME: {KEY: value}}")
        if bad := [name for name in self.points if not NAME.fullmatch(name)]:
            raise ValueError(f"points: {bad[0]!r} names a folder; take letters, digits and _ . , = + -")
        varied = {*self.set, *self.grid, *(key for point in self.points.values() for key in point)}
        if self.seeds and "seed" in varied:
            raise ValueError("seeds: seed is set, too; give one of them")
        if self.folds and "data.fold" in varied:
            raise ValueError("folds: data.fold is set, too; give one of them")
        return self

    @property
    def sets(self) -> dict[str, SetConfig]:
        return {**self.select_on, **self.report_on}
