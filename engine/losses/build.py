"""The loss of a run: the weighted sum of its terms. A term is a function of the model's prediction and the batch.

The gradient of an update is that of one mean over all its samples, however many processes and micro-batches they are spread
over: a term gives a sum and, from the targets alone and before any forward pass, the count that the sum is divided by.
Axes: B batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.losses.base import TERMS, LossTerm, ModelOutput, Teacher, TrainingRows
from affect.engine.system.submodules import import_submodules
from affect.engine.tasks.spec import TaskSpec, Term
from affect.kernels.dispatch import choose

TINY = torch.finfo(torch.float32).tiny
OF_TWO = {
    "cross_entropy": "resup",
    "ordered_ce": "ordered_resup",
}  # with loss.resup, these take the place of the loss of the two networks' mean


@dataclass(frozen=True)
class Losses:
    """total: () float32, which training minimises. parts: term -> () float32, before its weight."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


def terms_of(run: RunConfig, task: TaskSpec) -> list[Term]:
    """Return the task's own terms, and those that the configuration adds to its first output."""
    factors = {"cross_entropy": run.loss.cross_entropy, "arcface_ce": run.loss.cross_entropy, "au_bce": run.loss.au.weight}
    factors |= {"sum_consistency": run.loss.scalars.sum_weight, "ordered_ce": run.loss.ordered}
    names = OF_TWO if run.loss.resup else {}
    of_task = [Term(names.get(term.name, term.name), term.weight * factors.get(term.name, 1.0), term.on) for term in task.terms]
    added = [Term(name, settings.weight, task.outputs[0]) for name, settings in run.loss.terms.items()]
    return [term for term in of_task if term.weight > 0] + added


class LossFunction(nn.Module):
    """The terms of a run and their weights.

    width: of the model's features. teacher: whose predictions the distillation terms learn from.
    """

    def __init__(self, run: RunConfig, task: TaskSpec, rows: TrainingRows, width: int, teacher: Teacher | None = None) -> None:
        super().__init__()
        import_submodules("affect.engine.losses")  # each file declares its terms
        terms = terms_of(run, task)
        self.names = [term.name for term in terms]
        self.weight_of = {term.name: term.weight for term in terms}
        self.terms = nn.ModuleList([TERMS[term.name](term, run, rows, width) for term in terms])
        self.register_buffer("weights", torch.tensor([term.weight for term in terms]))
        self.weights: Tensor
        self.to(rows.device)
        self.teacher = teacher  # not registered as a module: it is neither trained nor saved
        self.origins = dict(teacher.origins) if teacher else {}
        for term in self._terms():
            self.origins |= term.origins

    def _terms(self) -> list[LossTerm]:
        return cast(list[LossTerm], list(self.terms))

    def at_epoch(self, epoch: int) -> dict[str, float]:
        """Set what the terms change by epoch; return it as {name: value}."""
        return {name: value for term in self._terms() for name, value in term.at_epoch(epoch).items()}

    def implementation(self) -> str:
        """Describe which kernels run here and why, for the start-up log."""
        chosen = {term.op: choose(term.op, self.weights, classes=2) for term in self._terms() if term.op}
        return ", ".join(f"{op} by {choice.provider} ({choice.reason})" for op, choice in chosen.items())

    def counts(self, batch: Batch) -> Tensor:
        """Return (terms,) counts: each term's sum over these samples is divided by its own."""
        return torch.stack([term.count(batch) for term in self._terms()])

    def forward(self, features: Tensor, outputs: dict[str, Tensor], batch: Batch, counts: Tensor) -> Losses:
        """Return the losses of a batch. counts: of the whole update. A term whose count is 0 is 0, with zero gradient."""
        prediction, teacher = ModelOutput(features, outputs), self.teacher(batch) if self.teacher else None
        sums = torch.stack([term(prediction, batch, teacher) for term in self.terms])
        parts = sums / counts.clamp_min(TINY)
        return Losses((parts * self.weights).sum(), dict(zip(self.names, parts.unbind(), strict=True)))
