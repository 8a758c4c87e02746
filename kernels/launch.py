"""What the launchers of all kernels share; imports no Triton."""

from torch import Tensor


def optional(tensor: Tensor | None, stand_in: Tensor) -> tuple[Tensor, int]:
    """(pointer, step along the first axis) of a tensor that may be missing: a kernel then reads nothing through it."""
    return (stand_in, 0) if tensor is None else (tensor, tensor.stride(0) if tensor.ndim else 0)
