"""Side signals inside a model: they come as they were measured, so that no caller can scale them wrongly.

Axes: B batch, S signals.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(B, S) as measured -> in deviations from the mean, 0 where a value is missing (not finite).

    mean, deviation: (S,) of the training rows; they are saved with the weights, so that resuming, evaluation and the graphs
    take the same ones.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, side: Tensor) -> Tensor:
        scaled = (side.float() - self.mean) / self.deviation
        return torch.where(side.isfinite(), scaled, torch.zeros_like(scaled))


def set_scale(model: nn.Module, mean: Tensor, deviation: Tensor) -> None:
    """Standardise by these, (S,) each, wherever a model takes side signals: two networks do it twice."""
    for part in _parts(model):
        part.mean.copy_(mean)
        part.deviation.copy_(deviation)


def scale_of(model: nn.Module) -> tuple[list[float], list[float]]:
    """Mean and deviation of each signal; empty where a model takes none."""
    part = next(_parts(model), None)
    return (part.mean.tolist(), part.deviation.tolist()) if part else ([], [])


def _parts(model: nn.Module) -> Iterator[Standardise]:
    return (part for part in model.modules() if isinstance(part, Standardise))
