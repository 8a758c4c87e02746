"""A sweep.json as a table and a plot."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affect.engine.config.sweep import VAL
from affect.engine.report.criteria import value_at
from affect.engine.report.render import NONE, Table
from affect.engine.report.run_figures import CHOSEN_MARK, EPOCH_MARK

matplotlib.use("Agg")
PRESENT_F1 = "present_only.macro_f1"  # of a sweep that names no figure


def sweep_table(result: dict[str, Any]) -> Table:
    """Tabulate a sweep, a row a point: its score, and on every set present-only macro-F1 and accuracy, or the figure that
    selects; the chosen one is marked."""
    marks = {name: CHOSEN_MARK if name in result["select_on"] else EPOCH_MARK if name == VAL else "" for name in _sets(result)}
    shown = {"macro-F1": "present_only.macro_f1", "acc.": "present_only.acc"}
    if result.get("select_by") not in (None, *shown.values()):
        shown = {result["select_by"].rpartition(".")[2]: result["select_by"]}
    header = ["point", "score", *(head for _ in marks for head in shown)]
    cells = []
    for point in result["points"]:
        numbers = [_text([run["score"] for run in point["runs"] if "score" in run])]
        numbers += [_text(_values(point, name, path)) for name in marks for path in shown.values()]
        cells.append([point["name"] + " (failed)" * any("error" in run for run in point["runs"]), *numbers])
    best = {(i, j) for i, point in enumerate(result["points"]) if point["name"] == result["chosen"] for j in (0, 1)}
    seeds = max((len(point["runs"]) for point in result["points"]), default=1)
    varied = " and ".join(name for name in ("seeds", "folds") if result.get(name))
    caption = [
        f"{result['sweep']}: {result['score']} ({', '.join(result['select_on'])}); bold: chosen. Sets: present-only.",
        *([f"Mean ± deviation over {seeds} {varied}."] if seeds > 1 else []),
        f"{CHOSEN_MARK}: used to choose, so flattered.",
        *([f"{EPOCH_MARK}: used to choose the epoch of each run."] if EPOCH_MARK in marks.values() else []),
    ]
    groups = [("", 2), *((name + sign, len(shown)) for name, sign in marks.items())]
    return Table(header, cells, best, caption, groups=groups)


def _sets(result: dict[str, Any]) -> list[str]:
    """Return the sets that choose, those that report, validation last where it is neither."""
    return list(dict.fromkeys([*result["select_on"], *result["report_on"], VAL]))


def _values(point: dict[str, Any], name: str, path: str) -> list[float]:
    values = [value_at(run["figures"].get(name, {}), path) for run in point["runs"] if "figures" in run]
    return [value for value in values if value is not None]


def _text(values: list[float]) -> str:
    if not values:
        return NONE
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def sweep_plot(result: dict[str, Any], path: Path) -> None:
    """Plot the score and each set against the swept value where one number is swept, else bars a point."""
    points = [point for point in result["points"] if point["score"] is not None]
    swept = _swept(result, points)
    figure = Figure(figsize=(6.4, 4.4 if swept else 1.8 + 0.42 * len(points)), layout="constrained")
    axes = figure.subplots()
    if swept:
        _lines(axes, result, points, swept)
    else:
        _bars(axes, result, points)
    figure.savefig(path, dpi=120)


def _figure(result: dict[str, Any]) -> str:
    path = result.get("select_by", PRESENT_F1)
    return "present-only macro-F1" if path == PRESENT_F1 else path.removeprefix("outputs.")


def _swept(result: dict[str, Any], points: list[dict[str, Any]]) -> str | None:
    """Return the config key, where one is swept over numbers."""
    keys = {key for point in points for key in point["settings"]}
    numbers = all(
        len(point["settings"]) == 1 and type(next(iter(point["settings"].values()))) in (int, float) for point in points
    )
    return next(iter(keys)) if len(keys) == 1 and len(points) > 1 and numbers else None


def _lines(axes: Axes, result: dict[str, Any], points: list[dict[str, Any]], key: str) -> None:
    points = sorted(points, key=lambda point: point["settings"][key])
    values = [point["settings"][key] for point in points]
    for i, name in enumerate(_sets(result)):
        sign = CHOSEN_MARK if name in result["select_on"] else EPOCH_MARK if name == VAL else ""
        means = [mean(_values(point, name, result.get("select_by", PRESENT_F1)) or [math.nan]) for point in points]
        axes.plot(values, means, ".--", linewidth=1, color=f"C{i + 1}", label=name + sign)
    scores = [point["score"] for point in points]
    axes.errorbar(
        values, scores, [point["deviation"] or 0 for point in points], marker="o", color="black", capsize=3, label="score"
    )
    for value, point in zip(values, points, strict=True):
        if point["name"] == result["chosen"]:
            axes.axvline(value, color="gray", linestyle=":", label=f"chosen: {value:g}")
    if min(values) > 0 and max(values) / min(values) > 20:
        axes.set_xscale("log")
    else:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set(xlabel=key, ylabel=_figure(result))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _bars(axes: Axes, result: dict[str, Any], points: list[dict[str, Any]]) -> None:
    places = range(len(points))
    colours = ["tab:blue" if point["name"] == result["chosen"] else "tab:gray" for point in points]
    scores, spread = [point["score"] for point in points], [point["deviation"] or 0.0 for point in points]
    axes.barh(places, scores, xerr=spread if any(spread) else None, color=colours, capsize=3)
    for place, score, deviation in zip(places, scores, spread, strict=True):
        at = (score + deviation, place)
        axes.annotate(f"{score:.4f}", at, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlim(min([0.0, *scores]) * 1.15, max([*scores, 1e-3]) * 1.15)
    axes.set_yticks(places, [point["name"] for point in points])
    axes.set_ylim(len(points) - 0.4, -0.6)  # the first on top
    sets = ", ".join(f"{name}{CHOSEN_MARK}" for name in result["select_on"])
    axes.set_xlabel(f"mean {_figure(result)} over {sets}; blue: chosen")
    axes.spines[["top", "right"]].set_visible(False)
