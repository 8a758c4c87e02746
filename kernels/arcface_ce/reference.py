"""The definition of `arcface_ce`, in torch. Axes: B rows, C classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-7  # floor of 1 - cos^2: without it the slope is infinite at theta = 0. fused.py imports this very number


def with_margin(cos: Tensor, margin: float | Tensor) -> Tensor:
    """psi(cos), elementwise."""
    margin = torch.as_tensor(margin, dtype=cos.dtype, device=cos.device)
    cos_m, sin_m = margin.cos(), margin.sin()
    sine = ((1 - cos) * (1 + cos)).clamp_min(EPS).sqrt()
    return torch.where(cos > -cos_m, cos * cos_m - sine * sin_m, cos - margin * sin_m)


def arcface_ce_reference(
    cos: Tensor,
    target: Tensor,
    *,
    scale: float,
    margin: float | Tensor,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    ignore: int,
    reduction: str,
    count: Tensor | None,
) -> Tensor:
    cos = cos if cos.dtype == torch.float64 else cos.float()
    classes = torch.arange(cos.shape[1], device=cos.device)
    weight = cos.new_ones(len(cos)) if sample_weight is None else sample_weight.to(cos.dtype)
    keep = (weight != 0) & (target != ignore) if target.ndim == 1 else weight != 0  # (B,)
    weight = torch.where(keep, weight, 0)
    cos = torch.where(keep[:, None], cos, 0)  # an ignored row may hold anything: 0 * NaN is NaN
    if target.ndim == 1:
        label = torch.where(keep, target, 0)[:, None]
        is_top = classes == label  # (B, C)
        share = torch.where((label >= 0) & (label < cos.shape[1]), is_top.to(cos.dtype), torch.nan)
    else:
        share = torch.where(keep[:, None], target.to(cos.dtype), 0)
        is_top = classes == share.argmax(1, keepdim=True)

    share = (1 - label_smoothing) * share + label_smoothing / cos.shape[1]
    counts = weight
    if class_weight is not None:
        share = share * class_weight.to(cos.dtype)
        if target.ndim == 1:
            counts = weight * (is_top * class_weight.to(cos.dtype)).sum(1)
    z = scale * torch.where(is_top, with_margin(cos, margin), cos)
    total = (weight * -(share * F.log_softmax(z, 1)).sum(1)).sum()
    if reduction == "sum":
        return total
    count = counts.sum() if count is None else count.to(cos.dtype)
    return total * torch.where(count == 0, 0, 1 / count)
