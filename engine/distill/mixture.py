"""Several models' logits as one, by weight. Axes: M models, N rows, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Mode = Literal["logit", "probability"]


def combine(logits: Sequence[np.ndarray], weights: np.ndarray, mode: Mode) -> np.ndarray:
    """Return (N, C) float64; `logit`: sum_m w_m z_m; `probability`: log sum_m w_m softmax(z_m).

    logits: M of (N, C). weights: (M,), or (M, N) where they differ by row; not negative, of sum 1 over M.
    """
    weights = np.broadcast_to(weights.reshape(len(weights), -1), (len(weights), len(logits[0])))
    if mode == "logit":
        mixed = np.zeros(logits[0].shape)
        for weight, z in zip(weights, logits, strict=True):
            mixed += weight[:, None] * z
        return mixed
    mixed = np.full(logits[0].shape, -np.inf)
    with np.errstate(divide="ignore"):  # a weight of 0 is a log of -inf, which adds nothing
        for weight, z in zip(weights, logits, strict=True):
            mixed = np.logaddexp(mixed, np.log(weight)[:, None] + _log_softmax(z))
    return mixed


def fit_weights(logits: Sequence[np.ndarray], target: np.ndarray, mode: Mode) -> np.ndarray:
    """Return (M,) float64 weights of sum 1 with the least NLL of the combined logits, at worst equal ones.

    logits: M of (N, C); target: (N, C) distributions. By LBFGS on a, w = softmax(a), from equal weights. The NLL is convex
    in w, so the result does not depend on the start.
    """
    z = torch.tensor(np.stack(logits), dtype=torch.float64)
    z = z if mode == "logit" else z.log_softmax(2)
    wanted = torch.tensor(target, dtype=torch.float64)
    a = torch.zeros(len(logits), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([a], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = _nll(z, wanted, a, mode)
        loss.backward()
        return loss

    solver.step(closure)
    equal, fitted = torch.zeros_like(a), a.detach()
    ends = [equal, fitted] if fitted.isfinite().all() else [equal]
    return min(ends, key=lambda end: _nll(z, wanted, end, mode).item()).softmax(0).numpy()


def _nll(z: Tensor, target: Tensor, a: Tensor, mode: Mode) -> Tensor:
    log_w = a.log_softmax(0)[:, None, None]
    mixed = (log_w.exp() * z).sum(0) if mode == "logit" else torch.logsumexp(log_w + z, 0)
    return -(target * mixed.log_softmax(1)).sum(1).mean()


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
