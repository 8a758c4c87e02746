"""Hints by the curves of a training, as an expert would give them, each with the setting to try.

After the monitoring of the reference recipe: docs/recipes/action_units.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from affect.engine.config.run import RunConfig
from affect.engine.metrics.output_metrics import OF_CLASS
from affect.engine.system.log import say

DEAD_EPOCHS = 5  # with an F1 of 0 after so many, units are not being learned
WIDE_GAP = 0.30
BALANCE = (0.1, 10.0)  # of the weighted losses of units and emotion
FALLING_EPOCHS = 5
FALLEN = 0.02  # below the best

Line = dict[str, Any]


class Hints:
    """Logs each hint once, as it becomes true. It takes a line of history an epoch."""

    def __init__(self, run: RunConfig, write: Callable[[str], None] = say) -> None:
        self.run, self.write = run, write
        self.history: list[Line] = []
        self.logged: set[str] = set()

    def log(self, line: Line) -> None:
        self.history.append(line)
        for kind, text in hints(self.run, self.history):
            if kind not in self.logged:
                self.logged.add(kind)
                self.write(f"hint, epoch {line['epoch']}: {text}")


def hints(run: RunConfig, history: list[Line]) -> Iterator[tuple[str, str]]:
    """(kind, text) of what is true at the end of a history."""
    last = history[-1]
    yield from _dead_units(run, history)
    yield from _unbalanced(run, last)
    gap = last["val"].get("gap")
    if gap is not None and gap > WIDE_GAP:
        dropout = min(run.model.dropout + 0.1, 0.7)
        yield (
            "gap",
            (
                f"training accuracy is {gap:.2f} above validation's: --set model.dropout={dropout:g} or "
                f"--set optim.weight_decay={2 * run.optim.weight_decay:g}, or a smaller model.backbone"
            ),
        )
    yield from _absent_class(run, last)
    yield from _falling(run, history)


def loss_ratio(line: Line) -> float | None:
    """Return the ratio of the weighted losses of an epoch, units to emotion; None where one of them is off."""
    weighted = line.get("weighted_losses", {})
    units, emotion = weighted.get("au_bce"), weighted.get("cross_entropy")
    return units / emotion if units and emotion else None


def _dead_units(run: RunConfig, history: list[Line]) -> Iterator[tuple[str, str]]:
    if len(history) >= DEAD_EPOCHS and all(line["val"].get("au_macro_f1", 1) == 0 for line in history[-DEAD_EPOCHS:]):
        yield (
            "dead",
            (
                f"no action unit is ever predicted after {len(history)} epochs: "
                f"--set loss.au.weight={2 * max(run.loss.au.weight, 0.5):g} or --set loss.au.pos_weight=balanced"
            ),
        )


def _unbalanced(run: RunConfig, last: Line) -> Iterator[tuple[str, str]]:
    ratio = loss_ratio(last)
    if ratio is not None and not BALANCE[0] <= ratio <= BALANCE[1]:
        yield (
            "balance",
            (
                f"the loss of the units is {ratio:.3g} times that of the emotion, outside {BALANCE[0]:g} to {BALANCE[1]:g}: "
                f"--set loss.au.weight={run.loss.au.weight / ratio:.2g} would make them equal"
            ),
        )


def _absent_class(run: RunConfig, last: Line) -> Iterator[tuple[str, str]]:
    if last["epoch"] + 1 >= DEAD_EPOCHS and last["val"].get("min_f1") == 0:
        remedy = "--set data.sampler=balanced"
        if run.data.sampler != "shuffle" or run.loss.class_weights != "off":
            remedy = "the imbalance is corrected already; more rows of it are needed"
        rare = [name.removeprefix(OF_CLASS) for name, f1 in last["val"].items() if name.startswith(OF_CLASS) and f1 == 0]
        yield "absent", f"F1 is 0 of {', '.join(rare) or 'a class that is not rare'}: {remedy}"


def _falling(run: RunConfig, history: list[Line]) -> Iterator[tuple[str, str]]:
    values = [line["val"]["accuracy"] for line in history if "accuracy" in line["val"]]
    if len(values) > FALLING_EPOCHS and max(values[-FALLING_EPOCHS:]) < max(values) - FALLEN:
        yield (
            "falling",
            (
                f"accuracy was {max(values):.4f} and has been {FALLEN:g} or more below it for {FALLING_EPOCHS} epochs: "
                f"--set optim.lr={run.optim.lr / 2:g} or --set loss.au.weight={run.loss.au.weight / 2:g}"
            ),
        )
