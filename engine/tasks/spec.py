"""A task is a value: what goes in, what comes out, which head, which loss terms, which metric selects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Term:
    """A loss term on one output, with its weight; named as it is declared in engine/losses, by `@loss_term(name)`."""

    name: str
    weight: float = 1.0
    on: str = ""


@dataclass(frozen=True)
class Criterion:
    """What a figure of a finished run should be: at least `low`, at most `high`.

    metric: path into metrics.json. before: what the recipe reported before it was mended.
    """

    name: str
    metric: str
    before: str
    low: float | None = None
    high: float | None = None

    @property
    def expected(self) -> str:
        bounds = {">=": self.low, "<=": self.high}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)

    def met_by(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class TaskSpec:
    """outputs: names of the dataset's outputs that are learned, the first of them being the one that metrics are read from.

    The names of classes, units and scalars belong to the dataset; a task only selects.
    select_by: a figure of `engine/metrics/output_metrics.py`, of other outputs than the first with its name before it.
    watch_gap: each epoch's figures are taken of training rows, too, in the view of validation.
    """

    name: str
    input: Literal["frame", "clip"]
    outputs: tuple[str, ...]
    head: str  # engine/models/heads.py: HEADS
    terms: tuple[Term, ...]
    select_by: str
    watch_gap: bool = False
    criteria: tuple[Criterion, ...] = ()

    def limited_to(self, outputs: tuple[str, ...]) -> TaskSpec:
        """The task without the outputs that are not among these, and without their terms."""
        kept = tuple(name for name in self.outputs if name in outputs)
        return replace(self, outputs=kept, terms=tuple(term for term in self.terms if term.on in kept))
