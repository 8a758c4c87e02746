"""The definition of `dkd`, in torch. Axes: B rows, C classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from affect.kernels.dkd.inputs import DKDInputs


def _teacher_rows(inputs: DKDInputs) -> Tensor:
    """(B, C); NaN where there is no such row."""
    if inputs.rows is None:
        return inputs.teacher
    in_table = (inputs.rows >= 0) & (inputs.rows < len(inputs.teacher))
    return torch.where(in_table[:, None], inputs.teacher[torch.where(in_table, inputs.rows, 0)], torch.nan)


def _log_sides(z: Tensor, y: Tensor, is_top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log b (B,), log(1 - b) (B,), log r (B, C) with -inf at y: all in logs, so that a peaked row loses none of them."""
    whole, rest = z.logsumexp(1), z.masked_fill(is_top, -torch.inf)
    return z.gather(1, y).squeeze(1) - whole, rest.logsumexp(1) - whole, rest.log_softmax(1)


def _kl_terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p log(p / q), 0 where p is."""
    p = log_p.exp()
    return torch.where(p == 0, 0, p * (log_p - log_q))


def dkd_reference(student: Tensor, inputs: DKDInputs) -> Tensor:
    student = student if student.dtype == torch.float64 else student.float()
    classes = torch.arange(student.shape[1], device=student.device)
    sample = inputs.weights(student)  # (B,)
    keep = (sample != 0)[:, None]
    student = torch.where(keep, student, 0)  # an ignored row may hold anything: 0 * NaN is NaN
    teacher = torch.where(keep, _teacher_rows(inputs).to(student.dtype), 0)
    if inputs.hard:
        label = torch.where(keep, inputs.target[:, None], 0)
        y = label.clamp(0, student.shape[1] - 1)  # (B, 1)
        is_top = classes == y  # (B, C)
        share = torch.where(label == y, is_top.to(student.dtype), torch.nan)
    else:
        share = torch.where(keep, inputs.target.to(student.dtype), 0)
        y = share.argmax(1, keepdim=True)
        is_top = classes == y

    b_s, rest_s, r_s = _log_sides(student / inputs.temperature, y, is_top)
    b_t, rest_t, r_t = _log_sides(teacher / inputs.temperature, y, is_top)
    tckd = _kl_terms(b_t, b_s) + _kl_terms(rest_t, rest_s)
    nckd = _kl_terms(r_t, r_s).sum(1)
    beta = inputs.alpha * rest_t.exp() if inputs.beta is None else inputs.beta
    weight = inputs.weight_number if inputs.weight is None else inputs.weight.to(student.dtype)
    cross_entropy = -(share * F.log_softmax(student, 1)).sum(1)
    rows = inputs.ce * cross_entropy + weight * inputs.temperature**2 * (inputs.alpha * tckd + beta * nckd)
    total = (sample * rows).sum()
    if not inputs.mean:
        return total
    count = sample.sum() if inputs.divisor is None else inputs.divisor.to(student.dtype)
    return total * torch.where(count == 0, 0, 1 / count)
