"""The backward pass shared by all ops: the gradient was stored by the forward pass, so only a scalar is left to multiply."""

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

BLOCK = 1024


@triton.jit
def _scale(stored_ptr, upstream_ptr, share_ptr, out_ptr, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    factor = tl.load(upstream_ptr).to(tl.float32) * tl.load(share_ptr)
    value = tl.load(stored_ptr + at, mask=at < size, other=0.0) * factor
    tl.store(out_ptr + at, value.to(out_ptr.dtype.element_ty), mask=at < size)


@torch.library.custom_op("affect::stored_gradient", mutates_args=())
def stored_gradient(op: str, stored: Tensor, upstream: Tensor, share: Tensor, dtype: torch.dtype) -> Tensor:
    """stored * upstream * share, rounded once to dtype.

    stored: (B, C) float32, contiguous: the gradient of the sum. upstream: (). share: () float32, 1 / the divisor of the sum.
    A second derivative is not in `stored`: asking for one is an error that names `op`.
    """
    out = torch.empty(stored.shape, dtype=dtype, device=stored.device)
    with torch.cuda.device_of(stored):
        _scale[(triton.cdiv(stored.numel(), BLOCK),)](stored, upstream, share, out, stored.numel(), BLOCK=BLOCK)
    return out


@stored_gradient.register_fake
def _(op: str, stored: Tensor, upstream: Tensor, share: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(stored.shape, dtype=dtype, device=stored.device)


def _keep_name(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.op = inputs[0]


def no_second_derivative(op: str) -> RuntimeError:
    return RuntimeError(f"{op}: the kernel has no second derivative; KERNELS=reference has one")


def _refuse(ctx, grad) -> None:  # type: ignore[no-untyped-def]
    raise no_second_derivative(ctx.op)


stored_gradient.register_autograd(_refuse, setup_context=_keep_name)
