"""What a sweep is: a YAML file of its own, read as strictly as a run's, and the runs that it stands for."""

from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from affect.engine.config.load import as_number, attempt, find_config, parsed, put, read_yaml, validated
from affect.engine.config.run import RunConfig
from affect.engine.config.section import Section
from affect.shards.errors import InputError

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
        """As it stands in `chosen_on` of a run."""
        return VAL if self.path is None else f"{self.path}#{self.split}" if self.packed else str(self.path)


def _named(value: Any) -> Any:
    """{NAME: path}, or a list of `val` and such pairs, as {name: settings}."""
    pairs: list[tuple[Any, Any]] = []
    for item in value if isinstance(value, list) else [value]:
        pairs += item.items() if isinstance(item, dict) else [(item, None)]
    for name, found in pairs:
        if not isinstance(name, str) or not NAME.fullmatch(name) or (found is None) != (name == VAL):
            raise ValueError(f"expected {VAL}, the runs' own validation, or NAME: path; found {name!r}: {found!r}")
    if twice := [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]:
        raise ValueError(f"{twice[0]}: is named twice")
    return {name: {"path": found} if isinstance(found, str) else found or {} for name, found in pairs}


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
        given = {*self.set, *self.grid, *(key for point in self.points.values() for key in point)}
        if self.seeds and "seed" in given:
            raise ValueError("seeds: seed is set, too; give one of them")
        if self.folds and "data.fold" in given:
            raise ValueError("folds: data.fold is set, too; give one of them")
        return self

    @property
    def sets(self) -> dict[str, SetConfig]:
        return {**self.select_on, **self.report_on}


@dataclass(frozen=True)
class Point:
    """settings: config key -> value, what makes it differ from the others."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    point: Point
    folder: Path
    run: RunConfig


@dataclass(frozen=True)
class Plan:
    """name: of the sweep. shared: config key -> value, of all points."""

    name: str
    config: SweepConfig
    shared: dict[str, Any]
    points: list[Point]
    runs: list[PlannedRun]
    out: Path


def plan(name: str, settings: list[str], out: Path | None) -> Plan:
    """Every run of a sweep, validated. Raises InputError with all problems of all points at once."""
    path = find_config(name)
    config = validated(SweepConfig, read_yaml(path), str(path))
    try:
        base = read_yaml(find_config(config.base))
    except InputError as error:
        raise InputError(f"{path}: base: {error}") from error
    points, shared = points_of(config, path), config.set | dict(map(parsed, settings))
    varied = {key for key, values in (("seed", config.seeds), ("data.fold", config.folds)) if values}
    varied |= {*config.grid, *(key for point in points for key in point.settings)}
    if swept := sorted(varied & {parsed(setting)[0] for setting in settings}):
        raise InputError(f"--set {swept[0]}: differs between the points of {path}; change it there")
    out = out or Path("runs") / path.stem
    runs = _runs(config, base, shared, points, out, path)
    check_apart(config, runs, path)
    return Plan(path.stem, config, shared, points, runs, out)


def points_of(config: SweepConfig, path: Path) -> list[Point]:
    """The named ones, then those of the grid."""
    points = [Point(name, settings) for name, settings in config.points.items()]
    short = _short(config.grid)
    for values in itertools.product(*config.grid.values()) if config.grid else ():
        settings = {key: as_number(value) for key, value in zip(config.grid, values, strict=True)}
        points.append(Point(",".join(f"{short[key]}={_text(value)}" for key, value in settings.items()), settings))
    if twice := [name for name, times in Counter(point.name for point in points).items() if times > 1]:
        raise InputError(f"{path}: two points are called {twice[0]}; each needs a name of its own")
    return points


def _short(keys: Mapping[str, Any]) -> dict[str, str]:
    """The last two words of each key, all of them where that is ambiguous."""
    short = {key: ".".join(key.split(".")[-2:]) for key in keys}
    return short if len(set(short.values())) == len(short) else {key: key for key in keys}


def _text(value: Any) -> str:
    """Of a value, for a folder's name."""
    if value is None or isinstance(value, bool):
        return {None: "off", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else re.sub(r"[^\w.+-]+", "_", str(value)).strip("_") or "empty"


def _runs(
    config: SweepConfig, base: dict[str, Any], shared: dict[str, Any], points: list[Point], out: Path, path: Path
) -> list[PlannedRun]:
    runs, problems = [], dict[str, list[str]]()
    seeds: list[int | None] = [*config.seeds] or [None]
    folds: list[int | None] = [*config.folds] or [None]
    for point, seed, fold in itertools.product(points, seeds, folds):
        value = copy.deepcopy(base)
        varied = {key: found for key, found in (("seed", seed), ("data.fold", fold)) if found is not None}
        for key, found in {**shared, **point.settings, **varied}.items():
            put(value, key, copy.deepcopy(found))
        made = attempt(RunConfig, value)
        if isinstance(made, list):
            for problem in made:
                problems.setdefault(problem, []).append(point.name)
        else:
            suffix = "".join(f"_{key.rpartition('.')[2]}{found}" for key, found in varied.items())
            runs.append(PlannedRun(point, out / f"{point.name}{suffix}", made))
    if problems:
        raise InputError("\n".join(f"{path}: {_which(names, points)}{text}" for text, names in problems.items()))
    return runs


def _which(names: list[str], points: list[Point]) -> str:
    unique = list(dict.fromkeys(names))
    return "" if len(unique) == len(points) > 1 else f"{', '.join(unique)}: "


def check_apart(config: SweepConfig, runs: list[PlannedRun], path: Path) -> None:
    """What chooses must not be reported as if it had not, nor trained on. Raises InputError naming the sets."""
    for (one, a), (other, b) in itertools.product(config.select_on.items(), config.report_on.items()):
        if one == other or any(_same_rows(_rows(a, planned.run), _rows(b, planned.run)) for planned in runs):
            both = one if one == other else f"{one} and {other}, the same rows, are"
            raise InputError(
                f"{path}: {both}{' is' if one == other else ''} in select_on and in report_on; rows that choose a point cannot "
                "report it: take them out of one of the two"
            )
    for name, found in config.sets.items():
        for data in (planned.run.data for planned in runs):
            trained = SetConfig(path=data.dataset if isinstance(data.dataset, Path) else None, split=data.train_split)
            if found.packed and data.fold is None and _same_rows(found, trained):
                raise InputError(f"{path}: {name}: {found.place} is trained on; name other rows: {{path: ..., split: ...}}")


def _rows(found: SetConfig, run: RunConfig) -> SetConfig:
    """A set, with the run's own validation as the rows that it is."""
    data = run.data
    if found.path is None and isinstance(data.dataset, Path):
        return SetConfig(path=data.dataset, split=data.val_split)
    return found


def _same_rows(a: SetConfig, b: SetConfig) -> bool:
    if a.path is None or b.path is None:
        return a.path is b.path
    splits = bool({*a.split.split("+")} & {*b.split.split("+")})
    return a.path.resolve() == b.path.resolve() and (splits or not a.packed)
