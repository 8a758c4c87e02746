"""The definition of `proto_kd`, in torch. Axes: B rows, K prototypes, D features."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from affect.kernels.arcface_head.reference import TINY


class ProtoKDInputs(NamedTuple):
    """The checked inputs besides features and prototypes, as one value from the contract to the kernel."""

    target: Tensor | None  # (B, K), or None where there are
    teacher_features: Tensor | None  # (B, D)
    sample_weight: Tensor | None  # (B,)
    divisor: Tensor | None  # () of the mean
    temperature: float
    teacher_temperature: float
    mean: bool


def proto_kd_reference(features: Tensor, prototypes: Tensor, inputs: ProtoKDInputs) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        weight = features.new_ones(len(features), dtype=dtype) if inputs.sample_weight is None else inputs.sample_weight.to(dtype)
        keep = (weight != 0)[:, None]  # a row without weight may hold anything: 0 * NaN is NaN
        units = F.normalize(prototypes.to(dtype), eps=TINY).t()  # (D, K)

        def log_shares(rows: Tensor, temperature: float) -> Tensor:
            cos = F.normalize(torch.where(keep, rows.to(dtype), 0), eps=TINY) @ units
            return F.log_softmax(cos / temperature, 1)  # (B, K)

        if inputs.teacher_features is not None:
            log_share = log_shares(inputs.teacher_features, inputs.teacher_temperature)
            share = log_share.exp()
        else:
            assert inputs.target is not None
            share = torch.where(keep, inputs.target.to(dtype), 0)
            log_share = torch.where(share == 0, 1, share).log()
        rows = (share * (log_share - log_shares(features, inputs.temperature))).sum(1)
        total = (weight * rows).sum()
        if not inputs.mean:
            return total
        count = weight.sum() if inputs.divisor is None else inputs.divisor.to(dtype)
        return total * torch.where(count == 0, 0, 1 / count)
