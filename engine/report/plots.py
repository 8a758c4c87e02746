"""Plots as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from affect.engine.metrics.classification import ece_of

matplotlib.use("Agg")


def confusion_plot(
    matrix: np.ndarray, names: Sequence[str], path: Path, title: str = "Rows as shares, counts in the cells"
) -> None:
    """Plot (C, C) counts as shares of each true class, the counts written in the cells.

    Of `present_only` in metrics.json: its `confusion` and `present_names`.
    """
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 3.0 + 0.6 * len(names)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        dark = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=dark, fontsize=8 if count < 1e5 else 6)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def curves_plot(history: list[dict[str, Any]], path: Path, best: int | None = None) -> None:
    """Plot training loss, validation metrics, and the rate and margin where the lines have them, by epoch.

    best: the epoch that was chosen, drawn as a line.
    """
    epochs = [line["epoch"] for line in history]
    rates = {key: [line.get(key, np.nan) for line in history] for key in ("lr", "margin") if any(key in line for line in history)}
    panels = 3 if rates else 2
    figure = Figure(figsize=(4.5 * panels, 3.5), layout="constrained")
    left, right, *third = figure.subplots(1, panels)
    style = {"marker": "o", "markersize": 3}
    left.plot(epochs, [line["train_loss"] for line in history], **style, label="train loss")
    curves = [
        ("nll", "validation NLL", left), ("mae", "validation MAE", left), ("total_mae", "MAE of the total", left),
        ("accuracy", "validation accuracy", right), ("macro_f1", "validation macro-F1", right), ("au_macro_f1", "AU-F1", right),
        ("train_accuracy", "training accuracy", right), ("r2", "validation R²", right), ("total_r2", "R² of the total", right),
    ]  # fmt: skip
    for name, label, axes in curves:
        if name in history[-1]["val"]:
            axes.plot(epochs, [line["val"][name] for line in history], **style, label=label)
    if third:
        _rates(third[0], epochs, rates, style)
    pad = max(0.5, 0.03 * len(epochs))  # whole epochs as ticks, also where there is one
    for axes in (left, right, *third):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        axes.set_xlim(epochs[0] - pad, epochs[-1] + pad)
        axes.grid(alpha=0.3)
        if best is not None:
            axes.axvline(
                best, color="gray", linestyle="--", linewidth=1, label=f"chosen: epoch {best}" if axes is right else None
            )
    for axes in (left, right):
        axes.legend()
    figure.savefig(path, dpi=120)


def units_plot(units: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot F1 and the area under the ROC curve of each unit, its positives beside its name; those without any are pale.

    units: of `multilabel.unit_figures`.
    """
    figure = Figure(figsize=(max(5.0, 1.5 + 0.55 * len(units)), 3.8), layout="constrained")
    axes, place = figure.subplots(), np.arange(len(units))
    for i, (key, label) in enumerate((("f1", "F1"), ("auc", "area under ROC"))):
        heights = [unit[key] or 0.0 for unit in units.values()]
        axes.bar(place + 0.4 * (i - 0.5), heights, 0.38, label=label, color=("tab:blue", "tab:orange")[i])
    axes.axhline(0.5, color="gray", linewidth=1, linestyle="--")
    labels = [f"{name}\n{unit['support']:,}" for name, unit in units.items()]
    for text, unit in zip(axes.set_xticks(place, labels, fontsize=8) and axes.get_xticklabels(), units.values(), strict=True):
        text.set_alpha(1.0 if unit["support"] else 0.4)
    axes.set(ylim=(0, 1), xlabel="unit, and how many rows it holds in")
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def scalars_plot(predicted: np.ndarray, true: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Plot predicted against true scalars, (N, S) each, a panel a scalar, the line of no error in each; NaN is left out."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.9 * rows), layout="constrained")
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_visible(i < len(names))
        if i >= len(names):
            continue
        labelled = ~np.isnan(true[:, i])
        x, y = true[labelled, i], predicted[labelled, i]
        bounds = [min(x.min(initial=0), y.min(initial=0)), max(x.max(initial=1), y.max(initial=1))]
        axes.plot(bounds, bounds, "--", color="black", linewidth=1)
        axes.scatter(x, y, s=8, alpha=0.4)
        axes.set_title(names[i], fontsize=9)
        axes.set(xlabel="true", ylabel="predicted")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _rates(axes: Axes, epochs: Sequence[int], rates: dict[str, list[float]], style: dict[str, Any]) -> None:
    """Plot each rate on a vertical axis of its own, in the colour of its line."""
    labels = {"lr": "learning rate", "margin": "margin, radians"}
    for i, (key, values) in enumerate(rates.items()):
        twin, colour = (axes.twinx() if i else axes), f"C{2 + i}"
        twin.plot(epochs, values, **style, color=colour)
        twin.set_ylabel(labels[key], color=colour)
        twin.tick_params(axis="y", labelcolor=colour)
        twin.set_ylim(bottom=0)
        twin.ticklabel_format(axis="y", scilimits=(-2, 3))


def reliability_plot(before: dict[str, np.ndarray], after: dict[str, np.ndarray] | None, path: Path) -> None:
    """Plot agreement by confidence, before and after calibration, side by side.

    before, after: of `metrics.reliability_bins`; without `after` one diagram.
    """
    sides = {"raw": before} | ({"temperature-scaled": after} if after else {})
    figure = Figure(figsize=(4.4 * len(sides), 5.4), layout="constrained")
    upper, lower = figure.subplots(2, len(sides), height_ratios=[4, 1], sharex=True, sharey="row", squeeze=False)
    for diagram, counts, (name, bins) in zip(upper, lower, sides.items(), strict=True):
        _diagram(diagram, bins)
        diagram.set_title(f"{name}: ECE {ece_of(bins):.4f}", fontsize=11)
        _counts(counts, bins["count"])
    upper[0].set_ylabel("accuracy")
    upper[0].legend(loc="upper left", fontsize=8, frameon=False)
    lower[0].set_ylabel("share of rows")
    figure.savefig(path, dpi=120)


def _diagram(axes: Axes, bins: dict[str, np.ndarray]) -> None:
    """A bar a bin that has rows, and its distance from the diagonal at the mean confidence."""
    width, filled = 1 / len(bins["count"]), bins["count"] > 0
    middle = (np.arange(len(filled)) + 0.5)[filled] * width
    confidence, agreement = bins["confidence"][filled], bins["agreement"][filled]
    axes.bar(middle, agreement, width, color="tab:blue", edgecolor="white", linewidth=0.8, label="accuracy")
    axes.vlines(confidence, agreement, confidence, color="tab:red", linewidth=2, label="gap to confidence")
    axes.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)


def _counts(axes: Axes, count: np.ndarray) -> None:
    width = 1 / len(count)
    axes.bar(
        (np.arange(len(count)) + 0.5) * width, count / count.sum(), width, color="tab:gray", edgecolor="white", linewidth=0.8
    )
    axes.set_xlabel(f"confidence ({count.sum():,} rows)")
    axes.spines[["top", "right"]].set_visible(False)


def dataset_plot(
    counts: dict[str, dict[str, list[int]]], sizes: np.ndarray, splits: Sequence[str], title: str, path: Path
) -> None:
    """Plot bars of counts by split, and a histogram of sizes.

    counts: panel title -> name -> count in each of `splits`. sizes: (N,) shorter sides in pixels.
    """
    rows = [max(len(panel), 2) for panel in counts.values()]
    figure = Figure(figsize=(9, 1.2 + 0.3 * sum(rows) + 0.55 * len(rows) + 2.3), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    *panels, histogram = figure.subplots(len(rows) + 1, 1, height_ratios=[*rows, 5])
    for axes, (name, panel) in zip(panels, counts.items(), strict=True):
        _bars(axes, panel, splits)
        axes.set_title(name, loc="left", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(splits), frameon=False)
    low, high = int(sizes.min()), int(sizes.max())
    step = -(-(high - low + 1) // 60)  # whole pixels: uneven bins would show a comb
    histogram.hist(sizes, bins=np.arange(low, high + step + 1, step) - 0.5, color="tab:gray")
    if high - low < 10:
        histogram.set_xlim(low - 10, high + 10)
    histogram.xaxis.set_major_locator(MaxNLocator(integer=True))
    histogram.set_title("shorter side, pixels", loc="left", fontsize=10)
    histogram.set_ylabel("pictures")
    for axes in (*panels, histogram):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _bars(axes: Axes, panel: dict[str, list[int]], splits: Sequence[str]) -> None:
    """A stacked bar a name, a colour a split, the total behind it."""
    left = np.zeros(len(panel))
    for i, split in enumerate(splits):
        values = np.array([counts[i] for counts in panel.values()])
        axes.barh(range(len(panel)), values, left=left, label=split, height=0.75)
        left += values
    for i, total in enumerate(left):
        axes.text(total, i, f" {int(total):,}", va="center", fontsize=8)
    axes.set_yticks(range(len(panel)), list(panel), fontsize=9)
    axes.set_ylim(len(panel) - 0.4, -0.6)  # the first on top
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, max(left.max(), 1) * 1.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
