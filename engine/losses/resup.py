"""Two networks side by side, each trained on a label as far as both find it credible. Axes: B batch, C classes."""

from __future__ import annotations

import torch
from torch import Tensor

from affect.engine.config.run import RunConfig
from affect.engine.data.batch import Batch
from affect.engine.losses.base import ModelOutput, TeacherOutput, TrainingRows, loss_term
from affect.engine.losses.cross_entropy import CrossEntropy
from affect.engine.tasks.spec import Term


@loss_term("resup")
class Resup(CrossEntropy):
    """sum_i v_i r_i (t_i^b CE_i^a + t_i^a CE_i^b), of the outputs `<name>.a` and `<name>.b`.

    Both losses and not their mean: where all is trusted, each network has the gradient that it would have alone.

    r = exp(-|p^a - p^b|_1): how far the networks agree. t^b = p^b_y / max_j p^b_j: how credible the label is to b, 1 where b
    predicts it; a is weighted by it, and b by t^a. Both without gradient; they go from 1 to their values
    over the first `warmup_epochs`, since predictions of untrained networks are noise.
    Source: r and that decisions are swapped: Zhang et al., ReSup, arXiv 2305.17895, in the form of the reference
    recipe (docs/recipes/mouse.md). t is this project's: the recipe does not define how a network judges a label.
    """

    op = ""

    def __init__(self, term: Term, run: RunConfig, rows: TrainingRows, width: int, *, ordered: bool = False) -> None:
        super().__init__(term, run, rows, width, ordered=ordered)
        assert run.loss.resup
        self.warmup_epochs = run.loss.resup.warmup_epochs
        self.register_buffer("ramp", torch.ones(()))
        self.ramp: Tensor

    def at_epoch(self, epoch: int) -> dict[str, float]:
        ramp = min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        self.ramp.fill_(ramp)
        return {"resup_ramp": ramp}

    def forward(self, prediction: ModelOutput, batch: Batch, teacher: TeacherOutput | None) -> Tensor:
        a, b = (prediction.outputs[f"{self.on}.{network}"].float() for network in "ab")
        by_b, by_a = trust(a, b, batch.targets[self.on])
        weight = self.labelled_weight(batch)
        of_a, of_b = (1 + self.ramp * (trusted - 1) for trusted in (by_b, by_a))
        return (weight * (of_a * self.rows(a, batch) + of_b * self.rows(b, batch))).sum()


def trust(a: Tensor, b: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return two (B,) weights in (0, 1], without gradient: r t^b, of network a, and r t^a, of network b.

    a, b: (B, C) logits. target: (B, C); the label is its largest share.
    """
    with torch.no_grad():
        p, q = a.softmax(1), b.softmax(1)
        agreed = torch.exp(-(p - q).abs().sum(1))
        label = target.argmax(1, keepdim=True)
        by_a, by_b = (each.gather(1, label).squeeze(1) / each.amax(1) for each in (p, q))
        return agreed * by_b, agreed * by_a


@loss_term("ordered_resup")
def ordered_resup(term: Term, run: RunConfig, rows: TrainingRows, width: int) -> Resup:
    return Resup(term, run, rows, width, ordered=True)
