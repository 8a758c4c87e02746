"""The optimiser and the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from affect.engine.config.optimisation import OptimConfig, PlateauConfig


def build_optimizer(modules: Sequence[nn.Module], config: OptimConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and filters only; biases and norms go without."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    decayed, free = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr)


def learning_rate(config: OptimConfig, epoch: float, merits: Sequence[float] = ()) -> float:
    """The rate at a fractional epoch: linear to `lr` over the warm-up, then a cosine to zero that stops at `min_lr`.

    merits: of the epochs so far, higher is better, which show a plateau: a resumed run has the rate that it had.
    """
    if epoch < config.warmup_epochs:
        return config.lr * epoch / config.warmup_epochs
    if config.plateau:
        return max(config.lr * config.plateau.factor ** plateaus(config.plateau, merits), min(config.min_lr, config.lr))
    share = (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
    return max(config.lr * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))), min(config.min_lr, config.lr))


def plateaus(config: PlateauConfig, merits: Sequence[float]) -> int:
    """How often the merit stood still for more than `patience` epochs; after each the counting begins anew."""
    best, waited, count = -math.inf, 0, 0
    for merit in merits:
        if merit > best + config.min_delta:
            best, waited = merit, 0
        else:
            waited += 1
        if waited > config.patience:
            count, waited = count + 1, 0
    return count


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
