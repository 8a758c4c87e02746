"""Numbers as text, and values as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from affect.engine.report.pain.resample import Interval
from affect.engine.report.render import NONE


def text(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Format a number; a dash where there is none."""
    return NONE if value is None or value != value else f"{value:{'+' if sign else ''}.{digits}f}"


def ranged(value: float | None, interval: Interval | None, digits: int = 3, sign: bool = False) -> str:
    """`0.213 [0.051, 0.330]`."""
    if interval is None or value is None:
        return text(value, digits, sign)
    low, high = (text(bound, digits, sign) for bound in interval)
    return f"{text(value, digits, sign)} [{low}, {high}]"


def plain(value: Any) -> Any:
    """Return the value as JSON has it: no NaN, no infinity, no tuples or numpy numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value - value != 0 else value
