"""The definition of `arcface_ce`, in torch. Axes: B rows, C classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from affect.kernels.arcface_inputs import ArcFaceInputs

EPS = 1e-7  # floor of 1 - cos^2: without it the slope is infinite at theta = 0. fused.py imports this very number


def with_margin(cos: Tensor, margin: float | Tensor) -> Tensor:
    """psi(cos), elementwise."""
    margin = torch.as_tensor(margin, dtype=cos.dtype, device=cos.device)
    cos_m, sin_m = margin.cos(), margin.sin()
    sine = ((1 - cos) * (1 + cos)).clamp_min(EPS).sqrt()
    return torch.where(cos > -cos_m, cos * cos_m - sine * sin_m, cos - margin * sin_m)


def arcface_ce_reference(cos: Tensor, inputs: ArcFaceInputs) -> Tensor:
    cos = cos if cos.dtype == torch.float64 else cos.float()
    classes = torch.arange(cos.shape[1], device=cos.device)
    weight = inputs.weights(cos)  # (B,)
    keep = weight != 0
    cos = torch.where(keep[:, None], cos, 0)  # an ignored row may hold anything: 0 * NaN is NaN
    if inputs.hard:
        label = torch.where(keep, inputs.target, 0)[:, None]
        is_top = classes == label  # (B, C)
        share = torch.where((label >= 0) & (label < cos.shape[1]), is_top.to(cos.dtype), torch.nan)
    else:
        share = torch.where(keep[:, None], inputs.target.to(cos.dtype), 0)
        is_top = classes == share.argmax(1, keepdim=True)

    share = (1 - inputs.label_smoothing) * share + inputs.label_smoothing / cos.shape[1]
    counts = weight
    if inputs.class_weight is not None:
        share = share * inputs.class_weight.to(cos.dtype)
        if inputs.hard:
            counts = weight * (is_top * inputs.class_weight.to(cos.dtype)).sum(1)
    margin = inputs.margin_rad if inputs.margin is None else inputs.margin
    z = inputs.scale * torch.where(is_top, with_margin(cos, margin), cos)
    total = (weight * -(share * F.log_softmax(z, 1)).sum(1)).sum()
    if not inputs.mean:
        return total
    count = counts.sum() if inputs.divisor is None else inputs.divisor.to(cos.dtype)
    return total * torch.where(count == 0, 0, 1 / count)
