"""The definition of `arcface_ce`, in torch. Axes: B rows, C classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from affect.kernels.arcface import ArcFace

EPS = 1e-7  # floor of 1 - cos^2: without it the slope is infinite at theta = 0. fused.py imports this very number


def with_margin(cos: Tensor, margin: float | Tensor) -> Tensor:
    """psi(cos), elementwise."""
    margin = torch.as_tensor(margin, dtype=cos.dtype, device=cos.device)
    cos_m, sin_m = margin.cos(), margin.sin()
    sine = ((1 - cos) * (1 + cos)).clamp_min(EPS).sqrt()
    return torch.where(cos > -cos_m, cos * cos_m - sine * sin_m, cos - margin * sin_m)


def arcface_ce_reference(cos: Tensor, told: ArcFace) -> Tensor:
    cos = cos if cos.dtype == torch.float64 else cos.float()
    classes = torch.arange(cos.shape[1], device=cos.device)
    weight = told.weights(cos)  # (B,)
    keep = weight != 0
    cos = torch.where(keep[:, None], cos, 0)  # an ignored row may hold anything: 0 * NaN is NaN
    if told.hard:
        label = torch.where(keep, told.target, 0)[:, None]
        is_top = classes == label  # (B, C)
        share = torch.where((label >= 0) & (label < cos.shape[1]), is_top.to(cos.dtype), torch.nan)
    else:
        share = torch.where(keep[:, None], told.target.to(cos.dtype), 0)
        is_top = classes == share.argmax(1, keepdim=True)

    share = (1 - told.label_smoothing) * share + told.label_smoothing / cos.shape[1]
    counts = weight
    if told.class_weight is not None:
        share = share * told.class_weight.to(cos.dtype)
        if told.hard:
            counts = weight * (is_top * told.class_weight.to(cos.dtype)).sum(1)
    margin = told.margin_rad if told.margin is None else told.margin
    z = told.scale * torch.where(is_top, with_margin(cos, margin), cos)
    total = (weight * -(share * F.log_softmax(z, 1)).sum(1)).sum()
    if not told.mean:
        return total
    count = counts.sum() if told.divisor is None else told.divisor.to(cos.dtype)
    return total * torch.where(count == 0, 0, 1 / count)
