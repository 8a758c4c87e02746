"""A task's criteria against a run's metrics.json: the figure before, the expected one, and this run's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affect.engine.report.render import NONE, Table
from affect.engine.tasks.spec import Criterion

WAY = "way"  # as the first part of a path: the key of figures over all classes, `14way`


def criteria_table(criteria: Sequence[Criterion], metrics: dict[str, Any]) -> Table:
    """Tabulate the criteria, a row each; one whose figure the run does not have is not measured."""
    cells = []
    for criterion in criteria:
        value = value_at(metrics, criterion.metric)
        verdict = "not measured" if value is None else "pass" if criterion.met_by(value) else "fail"
        cells.append([
            criterion.name, criterion.before, criterion.expected, NONE if value is None else f"{value:.4f}", verdict,
        ])  # fmt: skip
    caption = ["Before and expected: the reference recipe's report, of its data; on other data they are a yardstick, no result."]
    return Table(["figure", "before", "expected", "this run", "verdict"], cells, set(), caption)


def value_at(metrics: dict[str, Any], path: str) -> float | None:
    """Return the number at a path of keys; None where there is none, it is not a number, or what it is of has no rows."""
    value: Any = metrics
    for key in path.split("."):
        if key == WAY:
            key = next((name for name in metrics if name.endswith(WAY)), key)
        value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict) and value.get("support") == 0:
            return None
    return float(value) if isinstance(value, int | float) and value == value else None
