"""What the launchers of all kernels, and their references, share; imports no Triton."""

import torch
from torch import Tensor


def optional(tensor: Tensor | None, stand_in: Tensor) -> tuple[Tensor, int]:
    """(pointer, step along the first axis) of a tensor that may be missing: a kernel then reads nothing through it."""
    return (stand_in, 0) if tensor is None else (tensor, tensor.stride(0) if tensor.ndim else 0)


def of_target(target: Tensor) -> tuple[Tensor, int, int]:
    """(pointer, step of a row, step of a class) of labels or distributions."""
    return target, target.stride(0), target.stride(1) if target.ndim == 2 else 0


def row_weights(target: Tensor, sample_weight: Tensor | None, ignore: int, rows: Tensor) -> Tensor:
    """(B,) the sample weights in the dtype of `rows`, 0 where a row is ignored."""
    weight = rows.new_ones(len(rows)) if sample_weight is None else sample_weight.to(rows.dtype)
    return torch.where(target != ignore, weight, 0) if target.ndim == 1 else weight
