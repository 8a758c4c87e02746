"""Side signals that come with a recording, by their names: what packages know of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from affect.engine.package.model_package import ModelPackage
from affect.engine.system.log import say_once
from affect.shards.errors import InputError, nearest

Side = Mapping[str, float | None]  # name -> as measured; None or NaN: missing


def shares(packages: Sequence[ModelPackage], side: Side | None) -> list[dict[str, float]]:
    """Of each package those of `side` that it takes. Raises InputError naming what none takes, or is no number."""
    known = list(dict.fromkeys(signal["name"] for package in packages for signal in package.side))
    names = ", ".join(package.manifest.name for package in packages)
    found: dict[str, float] = {}
    for name, value in (side or {}).items():
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no side signals; leave it out"
            raise InputError(f"side: {name!r}: {names} {takes}{nearest(name, known)}")
        value = math.nan if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or math.isinf(value):
            raise InputError(f"side: {name}: found {value!r}; expected a number, or nothing where it is missing")
        found[name] = float(value)
    return [{signal["name"]: found[signal["name"]] for signal in of.side if signal["name"] in found} for of in packages]


def row_of(package: ModelPackage, side: Side | None) -> np.ndarray | None:
    """(S,) float32 as `Backend.run` takes it, NaN where missing, which is said once; None of a package without side signals."""
    (given,) = shares([package], side)
    if not package.side:
        return None
    values = np.array([given.get(signal["name"], math.nan) for signal in package.side], np.float32)
    missing = [f"{s['name']} {s['mean']:.4g}" for s, value in zip(package.side, values, strict=True) if np.isnan(value)]
    if missing:
        say_once(
            f"{package.manifest.name}: side signals not given, for which the mean of training is taken: {', '.join(missing)}"
        )
    return values
