"""Plots of totals, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from affect.engine.report.pain.figures import Figures
from affect.engine.report.pain.out_of_fold import Scored
from affect.engine.report.pain.texts import text

matplotlib.use("Agg")


def predicted_plot(scored: Scored, pooled: Figures, path: Path) -> None:
    """Plot predicted against true totals, a point a clip, coloured by moment; on the line both are equal."""
    figure = Figure(figsize=(5.4, 5.0), layout="constrained")
    axes = figure.subplots()
    for i, moment in enumerate(np.unique(scored.moment).tolist()):
        here = scored.moment == moment
        label = f"{moment or 'unknown'} ({here.sum()})"
        axes.scatter(scored.true[here], scored.predicted[here], s=14, alpha=0.7, color=f"C{i}", label=label)
    both = np.concatenate([scored.true, scored.predicted])
    ends = [min(float(both.min()), 0.0), float(both.max()) + 0.3]
    axes.plot(ends, ends, "--", color="black", linewidth=1)
    axes.set(xlabel="true total", ylabel="predicted total", aspect="equal")
    axes.set_title(f"R2 {text(pooled['r2'])}, MAE {text(pooled['mae'])}, ICC(2,1) {text(pooled['icc'])}", fontsize=10)
    axes.legend(fontsize=8, title="moment (clips)", title_fontsize=8)
    _saved(figure, axes, path)


def moments_plot(scored: Scored, path: Path) -> None:
    """Plot boxes of the true and the predicted totals of each moment, side by side."""
    moments = np.unique(scored.moment).tolist()
    figure = Figure(figsize=(max(4.0, 1.5 + 1.1 * len(moments)), 3.8), layout="constrained")
    axes, place = figure.subplots(), np.arange(len(moments))
    for i, (name, values) in enumerate((("true", scored.true), ("predicted", scored.predicted))):
        boxes = axes.boxplot(
            [values[scored.moment == moment] for moment in moments], positions=place + 0.36 * (i - 0.5), widths=0.3,
            patch_artist=True, manage_ticks=False, medianprops={"color": "black"}, flierprops={"markersize": 3},
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set(facecolor=f"C{i}", alpha=0.6)
        boxes["boxes"][0].set_label(name)
    axes.set_xticks(place, [f"{moment or 'unknown'}\n{(scored.moment == moment).sum()} clips" for moment in moments])
    axes.set(ylabel="total")
    axes.legend(fontsize=8)
    _saved(figure, axes, path)


def animals_plot(by_animal: Mapping[str, Figures], path: Path) -> None:
    """Plot each animal's mean error and its standard deviation over the clips. by_animal: of `by_group`."""
    figure = Figure(figsize=(max(4.0, 1.5 + 0.42 * len(by_animal)), 3.8), layout="constrained")
    axes, place = figure.subplots(), range(len(by_animal))
    means, spread = [each["bias"] for each in by_animal.values()], [each["deviation"] for each in by_animal.values()]
    axes.axhline(0, color="black", linewidth=1, linestyle="--")
    axes.errorbar(place, means, spread, fmt="o", markersize=5, capsize=3)
    labels = [f"{name} ({each['rows']})" for name, each in by_animal.items()]
    axes.set_xticks(place, labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set(xlabel="animal (clips)", ylabel="predicted - true total, mean ± SD")
    _saved(figure, axes, path)


def _saved(figure: Figure, axes: Axes, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
