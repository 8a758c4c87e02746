"""A task is a value: what goes in, what comes out, which head, which loss terms, which metric selects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Term:
    """A loss term on one output, with its weight; `name` is that of `@loss_term(name)` in engine/losses."""

    name: str
    weight: float = 1.0
    on: str = ""


@dataclass(frozen=True)
class Criterion:
    """A bound on a figure of a finished run: at least `low`, at most `high`.

    metric: path into metrics.json. before: what the reference recipe reported before its faults were mended.
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
    """outputs: names of the dataset's outputs that are learned; metrics are read from the first.

    The names of classes, units and scalars belong to the dataset; a task only selects outputs.
    head: a key of engine/models/heads.py: HEADS.
    select_by: a figure of engine/evaluation/output_metrics.py; of another output than the first, prefixed by its name.
    species: whose faces, for the package: human, cattle, mouse; empty where the task does not decide it.
    watch_gap: each epoch, figures of training rows are computed as well, in the view of validation.
    specialist: name of the config that `affect crossval --strategy specialist` trains. moments: weights of rows by meta.moment
        when the best fold is fine-tuned by a config that gives none.
    """

    name: str
    input: Literal["frame", "clip"]
    outputs: tuple[str, ...]
    head: str
    terms: tuple[Term, ...]
    select_by: str
    species: str = ""
    watch_gap: bool = False
    criteria: tuple[Criterion, ...] = ()
    specialist: str = ""
    moments: tuple[tuple[str, float], ...] = ()

    def limited_to(self, outputs: tuple[str, ...]) -> TaskSpec:
        """The task with only those of its outputs that are among these, and with their terms."""
        names = tuple(name for name in self.outputs if name in outputs)
        return replace(self, outputs=names, terms=tuple(term for term in self.terms if term.on in names))
