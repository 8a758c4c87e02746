"""Side signals measured beside a recording, by name, as the packages take them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from affect.engine.package.model_package import ModelPackage
from affect.engine.system.log import say_once
from affect.shards.errors import InputError, nearest

Side = Mapping[str, float | None]  # name -> as measured; None or NaN: missing


def signals_by_package(packages: Sequence[ModelPackage], side: Side | None) -> list[dict[str, float]]:
    """Return for each package the signals that it takes. Raises InputError naming one that none takes, or that is no number."""
    known = list(dict.fromkeys(signal["name"] for package in packages for signal in package.side))
    names = ", ".join(package.manifest.name for package in packages)
    values: dict[str, float] = {}
    for name, value in (side or {}).items():
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no side signals; leave it out"
            raise InputError(f"side: {name!r}: {names} {takes}{nearest(name, known)}")
        value = math.nan if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or math.isinf(value):
            raise InputError(f"side: {name}: found {value!r}; expected a number, or nothing where it is missing")
        values[name] = float(value)
    return [
        {signal["name"]: values[signal["name"]] for signal in package.side if signal["name"] in values} for package in packages
    ]


def row_of(package: ModelPackage, side: Side | None) -> np.ndarray | None:
    """Return (S,) float32 as `Backend.run` takes it, NaN where missing, with one warning; None where it takes none."""
    (signals,) = signals_by_package([package], side)
    if not package.side:
        return None
    values = np.array([signals.get(signal["name"], math.nan) for signal in package.side], np.float32)
    missing = [f"{s['name']} {s['mean']:.4g}" for s, value in zip(package.side, values, strict=True) if np.isnan(value)]
    if missing:
        say_once(f"{package.manifest.name}: side signals missing, for which the mean of training is taken: {', '.join(missing)}")
    return values
