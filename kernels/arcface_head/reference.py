"""The definition of `arcface_head`, in torch. Axes: B rows, C classes, D features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from affect.kernels.arcface_ce.reference import arcface_ce_reference

TINY = 1e-12  # floor of a norm, as F.normalize has it


def arcface_head_reference(
    x: Tensor,
    weight: Tensor,
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
) -> tuple[Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        keep = torch.ones(len(x), dtype=torch.bool, device=x.device) if sample_weight is None else sample_weight != 0
        if target.ndim == 1:
            keep = keep & (target != ignore)
        x = torch.where(keep[:, None], x.to(dtype), 0)  # an ignored row may hold anything: 0 * NaN is NaN
        cos = F.normalize(x, eps=TINY) @ F.normalize(weight.to(dtype), eps=TINY).t()
        loss = arcface_ce_reference(
            cos, target, scale=scale, margin=margin, class_weight=class_weight, sample_weight=sample_weight,
            label_smoothing=label_smoothing, ignore=ignore, reduction=reduction, count=count,
        )  # fmt: skip
        top = target if target.ndim == 1 else target.argmax(1)
        return loss, (keep & (cos.detach().argmax(1) == top)).sum().float()
