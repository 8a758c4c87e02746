"""The runs of a sweep: every combination of points, seeds and folds, validated before the first one starts."""

from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect.engine.config.load import as_number, attempt, find_config, parsed, put, read_yaml, validated
from affect.engine.config.run import RunConfig
from affect.engine.config.sweep import SetConfig, SweepConfig
from affect.shards.errors import InputError


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
        raise InputError(f"{path}: two points are called {twice[0]}; name each differently")
    return points


def _short(keys: Mapping[str, Any]) -> dict[str, str]:
    """The last two words of each key, all of them where that is ambiguous."""
    short = {key: ".".join(key.split(".")[-2:]) for key in keys}
    return short if len(set(short.values())) == len(short) else {key: key for key in keys}


def _text(value: Any) -> str:
    """Return the text of a value for a folder's name."""
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
        settings = copy.deepcopy(base)
        varied = {key: value for key, value in (("seed", seed), ("data.fold", fold)) if value is not None}
        for key, value in {**shared, **point.settings, **varied}.items():
            put(settings, key, copy.deepcopy(value))
        run = attempt(RunConfig, settings)
        if isinstance(run, list):
            for problem in run:
                problems.setdefault(problem, []).append(point.name)
        else:
            suffix = "".join(f"_{key.rpartition('.')[2]}{value}" for key, value in varied.items())
            runs.append(PlannedRun(point, out / f"{point.name}{suffix}", run))
    if problems:
        raise InputError("\n".join(f"{path}: {_which(names, points)}{text}" for text, names in problems.items()))
    return runs


def _which(names: list[str], points: list[Point]) -> str:
    unique = list(dict.fromkeys(names))
    return "" if len(unique) == len(points) > 1 else f"{', '.join(unique)}: "


def check_apart(config: SweepConfig, runs: list[PlannedRun], path: Path) -> None:
    """Raise InputError where a set both chooses points and reports them, or is trained on."""
    for (one, a), (other, b) in itertools.product(config.select_on.items(), config.report_on.items()):
        if one == other or any(_same_rows(_rows(a, planned.run), _rows(b, planned.run)) for planned in runs):
            both = one if one == other else f"{one} and {other}, the same rows, are"
            raise InputError(
                f"{path}: {both}{' is' if one == other else ''} in select_on and in report_on; rows that choose a point cannot "
                "report it: take them out of one of the two"
            )
    for name, chosen in config.sets.items():
        for data in (planned.run.data for planned in runs):
            trained = SetConfig(path=data.dataset if isinstance(data.dataset, Path) else None, split=data.train_split)
            if chosen.packed and data.fold is None and _same_rows(chosen, trained):
                raise InputError(f"{path}: {name}: {chosen.place} is trained on; name other rows: {{path: ..., split: ...}}")


def _rows(chosen: SetConfig, run: RunConfig) -> SetConfig:
    """Return a set, the run's own validation as its dataset and split."""
    data = run.data
    if chosen.path is None and isinstance(data.dataset, Path):
        return SetConfig(path=data.dataset, split=data.val_split)
    return chosen


def _same_rows(a: SetConfig, b: SetConfig) -> bool:
    if a.path is None or b.path is None:
        return a.path is b.path
    splits = bool({*a.split.split("+")} & {*b.split.split("+")})
    return a.path.resolve() == b.path.resolve() and (splits or not a.packed)
