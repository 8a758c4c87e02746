"""The definition of `arcface_head`, in torch. Axes: B rows, C classes, D features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from affect.kernels.arcface_ce.reference import arcface_ce_reference
from affect.kernels.arcface_inputs import ArcFaceInputs

TINY = 1e-12  # floor of a norm, as F.normalize has it


def arcface_head_reference(x: Tensor, weight: Tensor, inputs: ArcFaceInputs) -> tuple[Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        x = x.to(dtype)
        keep = inputs.weights(x) != 0
        x = torch.where(keep[:, None], x, 0)  # an ignored row may hold anything: 0 * NaN is NaN
        cos = F.normalize(x, eps=TINY) @ F.normalize(weight.to(dtype), eps=TINY).t()
        top = inputs.target if inputs.hard else inputs.target.argmax(1)
        hits = (keep & (cos.detach().argmax(1) == top)).sum().float()
        return arcface_ce_reference(cos, inputs), hits
