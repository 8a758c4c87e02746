"""Temperature scaling: the T, one or one a class, for which softmax(logits / T) is as sure as it is right.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. T is at least 1e-2 and has no ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from affect.engine.calibration.calibration import FLOOR, Calibration
from affect.engine.metrics.classification import nll
from affect.engine.system.log import say
from affect.shards.errors import InputError

FEW_ROWS = 100
FLAT = 1e-3  # logits / T spread less than this: T is on its way to infinity


def fit_temperature(
    logits: np.ndarray, target: np.ndarray, names: Sequence[str], mode: Literal["global", "vector"], *, split: str | None = None
) -> Calibration:
    """The T that minimises the NLL of softmax(logits / T) against the target distributions.

    logits, target: (N, C), every row labelled. mode: "vector" has a T for each class. split: where the rows are from.
    Warnings are logged, and stand in `note`. Raises: InputError where a logit is not finite.
    """
    if not len(logits):
        return _logged(Calibration.none("no labelled rows to fit on: T = 1"))
    _check_finite(logits, target)
    if not np.ptp(logits, axis=1).any():
        return _logged(Calibration.none("the logits of each row are equal, no T changes them: T = 1"))
    z, t = (torch.from_numpy(np.asarray(values, np.float64)) for values in (logits, target))
    remarks: list[str] = []
    temperature = _fit_global(z, t)
    if mode == "vector":
        temperature, remarks = _fit_vector(z, t, temperature, names)
    fitted = Calibration(mode, tuple(temperature.tolist()), tuple(names) if mode == "vector" else ())
    before, after = nll(logits, target), nll(fitted.apply(np.asarray(logits, np.float64)), target)
    fitted = replace(fitted, fitted_on={"split": split, "rows": len(logits)}, nll_before=before, nll_after=after)
    bounds = _bounds(z, temperature, names)
    if len(logits) < FEW_ROWS:
        remarks = [f"fitted on {len(logits)} rows, fewer than {FEW_ROWS}: T may be far off", *remarks]
    return _logged(replace(fitted, at_bound=bool(bounds), note="; ".join([*remarks, *bounds])))


def _fit_global(z: Tensor, target: Tensor) -> Tensor:
    """(1,) T. The NLL has one minimum along T, so that a T below the floor means the floor."""
    one = torch.ones(1, dtype=z.dtype)
    best = _minimise(z, target, one, torch.tensor([True])).clamp_min(FLOOR)
    return min((FLOOR * one, best), key=lambda t: _nll(z, target, t).item())


def _fit_vector(z: Tensor, target: Tensor, start: Tensor, names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """(C,) T from the global one on, and remarks; a class without rows has the global T."""
    seen = target.sum(0) > 0
    start = start.repeat(len(names))
    fitted = _minimise(z, target, start, seen).clamp_min(FLOOR)
    best = min((start, fitted), key=lambda t: _nll(z, target, t).item())  # the floor may have cost what was gained
    absent = [name for name, has_rows in zip(names, seen.tolist(), strict=True) if not has_rows]
    return best, [f"no rows of {', '.join(absent)}: the T of all classes, {start[0]:.4g}, stands there"] if absent else []


def _minimise(z: Tensor, target: Tensor, start: Tensor, free: Tensor) -> Tensor:
    """`start` with its `free` entries moved to where the NLL is least; by LBFGS on log T, as T > 0."""
    log_t = start[free].log().requires_grad_()
    solver = torch.optim.LBFGS([log_t], max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def temperature() -> Tensor:
        return start.masked_scatter(free, log_t.clamp(-60, 60).exp())  # a step too far of the search stays finite

    def closure() -> Tensor:
        solver.zero_grad()
        loss = _nll(z, target, temperature())
        loss.backward()
        return loss

    solver.step(closure)
    least = temperature().detach()
    return torch.where(least.isfinite(), least, start)  # where the NLL is flat, the search can divide by zero


def _nll(z: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
    return -(target * (z / temperature).log_softmax(1)).sum(1).mean()


def _bounds(z: Tensor, temperature: Tensor, names: Sequence[str]) -> list[str]:
    """Remarks on each T that ended at 1e-2, or on its way to infinity."""
    one = len(temperature) == 1
    size = (z - z.mean(1, keepdim=True)).square().mean().sqrt() if one else z.square().mean(0).sqrt()
    low = temperature <= FLOOR * (1 + 1e-9)
    flat = ~low & (size / temperature < FLAT)
    say_low = f"ended at its bound, {FLOOR:g}: too few of these rows are wrong to fit it; fit it on others"
    say_flat = "has no finite best value: these logits do not depend on the labels; check the model"
    remarks = []
    for where, text in ((low, say_low), (flat, say_flat)):
        of = [name for name, there in zip(names, where.tolist(), strict=False) if there]
        if of:
            remarks.append(f"T {text}" if one else f"T of {', '.join(of)} {text}")
    return remarks


def _check_finite(logits: np.ndarray, target: np.ndarray) -> None:
    for what, values, remedy in (("logits", logits, "check the model"), ("targets", target, "leave unlabelled rows out")):
        wrong = int((~np.isfinite(values)).any(1).sum())
        if wrong:
            raise InputError(f"calibrate: {wrong:,} of {len(values):,} rows have {what} that are not finite; {remedy}")


def _logged(calibration: Calibration) -> Calibration:
    if calibration.note:
        say(f"calibrate: {calibration.note}")
    return calibration
