"""`calibration.json` of a run: its temperature, thresholds and conformal sets. Needs no torch: the runtime and tables read it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from affect.engine.calibration.conformal import Conformal
from affect.shards.errors import InputError

CALIBRATION = "calibration.json"
Mode = Literal["none", "global", "vector", "fixed"]
MODES = ("none", "global", "vector", "fixed")
FLOOR = 1e-2  # of T


@dataclass(frozen=True)
class Calibration:
    """temperature: one, or one for each of `names`. fitted_on: {"split", "rows"}, None where nothing was fitted.

    at_bound: the NLL has no minimum within 1e-2 <= T < infinity. note: what to know before trusting T.
    thresholds: action unit -> the probability from which it is predicted. conformal: sets of labels, where a coverage was
    wanted; fitted on the probabilities under this temperature.
    """

    mode: Mode
    temperature: tuple[float, ...] = (1.0,)
    names: tuple[str, ...] = ()
    fitted_on: dict[str, Any] | None = None
    nll_before: float | None = None
    nll_after: float | None = None
    at_bound: bool = False
    note: str = ""
    thresholds: dict[str, float] = field(default_factory=dict)
    conformal: Conformal | None = None

    @classmethod
    def none(cls, reason: str) -> Calibration:
        """T = 1, and why."""
        return cls("none", note=reason)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(N, C) logits / T, in their dtype. A T for each class may change which logit is the largest."""
        if len(self.temperature) not in (1, logits.shape[1]):
            raise InputError(
                f"calibration: {len(self.temperature)} temperatures ({', '.join(self.names)}), logits of {logits.shape[1]} "
                "classes; calibrate this model anew"
            )
        return logits / np.array(self.temperature, logits.dtype)

    def to_json(self) -> dict[str, Any]:
        one = len(self.temperature) == 1
        return {
            "mode": self.mode,
            "global_temperature": self.temperature[0] if one else None,
            "temperature_vector": None if one else list(self.temperature),
            "names": list(self.names),
            "fitted_on": self.fitted_on,
            "nll_before": self.nll_before,
            "nll_after": self.nll_after,
            "at_bound": self.at_bound,
            "note": self.note,
            **({"thresholds": self.thresholds} if self.thresholds else {}),
            **({"conformal": self.conformal.to_json()} if self.conformal else {}),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str = CALIBRATION) -> Calibration:
        """Read our file, or one with the four keys of the reference recipe only."""
        try:
            mode, vector = value["mode"], value.get("temperature_vector")
            temperature = tuple(float(t) for t in vector or [value["global_temperature"]])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where}: not a calibration ({error!r}); expected mode and global_temperature") from error
        if mode not in MODES:
            raise InputError(f"{where}: mode: found {mode!r}, expected {', '.join(MODES)}")
        rest = {
            key: value[key] for key in ("fitted_on", "nll_before", "nll_after", "at_bound", "note", "thresholds") if key in value
        }
        conformal = Conformal.from_json(value["conformal"], where) if value.get("conformal") else None
        return cls(mode, checked_temperature(temperature, where), tuple(value.get("names") or ()), conformal=conformal, **rest)


def read_calibration(folder: Path) -> Calibration:
    """Return the calibration of a run; T = 1 where it has none yet."""
    path = folder / CALIBRATION
    return (
        Calibration.from_json(json.loads(path.read_text()), str(path)) if path.is_file() else Calibration.none("not calibrated")
    )


def fixed(temperature: float) -> Calibration:
    """A temperature that was chosen, not fitted."""
    return Calibration("fixed", checked_temperature((float(temperature),), "temperature"))


def checked_temperature(temperature: tuple[float, ...], where: str) -> tuple[float, ...]:
    for t in temperature:
        if not (math.isfinite(t) and t >= FLOOR):
            raise InputError(f"{where}: temperature: found {t:g}, expected a number of at least {FLOOR:g}")
    return temperature
