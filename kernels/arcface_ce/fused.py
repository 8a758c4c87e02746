"""`arcface_ce` in Triton: loss and gradient in one pass over each row. Axes: B rows, C classes.

With p = softmax(z), W = sum_j w_j q_j and v the sample weight:  d row / d z_j = v (W p_j - w_j q_j),  d z_j / d cos_j = scale,
at the top class scale * psi'(c) with psi'(c) = cos m + c sin m / sqrt(1 - c^2), or 1 past theta = pi - m.
Deterministic: each program writes its own partial sum, and one program adds them in order.
"""

from typing import Any

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from affect.kernels.arcface_ce.reference import EPS
from affect.kernels.arcface_inputs import SCHEMA, ArcFaceInputs
from affect.kernels.gradient import stored_gradient
from affect.kernels.launch import optional
from affect.kernels.reduce import finish

TILE = 1024  # elements a program holds; C is mostly 7..64, and a program per row would leave most lanes idle


@triton.jit
def loss_of_tile(  # type: ignore[no-untyped-def]
    cos, row, target_ptr, target_row, target_col, class_ptr, class_step, sample_ptr, sample_step,
    margin_ptr, margin_rad, scale, smoothing, B, C,
    HARD: tl.constexpr, CLASS_WEIGHT: tl.constexpr, SAMPLE_WEIGHT: tl.constexpr, MARGIN_TENSOR: tl.constexpr,
    IGNORE: tl.constexpr, EPS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """cos: (ROWS, COLS) float32, finite outside C; row: (ROWS,) int64. -> loss, counts, keep (ROWS,); dcos, is_top (ROWS, COLS).

    loss and counts are 0 where keep is not; dcos is not yet: what an ignored row holds has to be chosen away, not multiplied.
    """
    col = tl.arange(0, COLS)  # (COLS,) the power of two >= C
    in_rows, in_cols = row < B, col < C
    inside = in_rows[:, None] & in_cols[None, :]
    at_col = col.to(tl.int64)[None, :]

    keep = in_rows
    weight = tl.full((ROWS,), 1.0, tl.float32)
    if SAMPLE_WEIGHT:
        weight = tl.load(sample_ptr + row * sample_step, mask=in_rows, other=0.0).to(tl.float32)
        keep = keep & (weight != 0.0)
    if HARD:
        label = tl.load(target_ptr + row * target_row, mask=in_rows, other=IGNORE)
        keep = keep & (label != IGNORE)
        is_top = at_col == label[:, None]
        known = (label >= 0) & (label < C)
        share = tl.where(known[:, None], tl.where(is_top, 1.0, 0.0), float("nan"))
    else:
        share = tl.load(target_ptr + row[:, None] * target_row + at_col * target_col, mask=inside, other=0.0).to(tl.float32)
        highest = tl.max(tl.where(inside, share, float("-inf")), 1)
        first = tl.min(tl.where(inside & (share == highest[:, None]), col[None, :], COLS), 1)
        is_top = col[None, :] == first[:, None]

    if MARGIN_TENSOR:
        margin = tl.load(margin_ptr + tl.arange(0, 1)).to(tl.float32)  # (1,)
    else:
        margin = tl.full((1,), margin_rad, tl.float32)
    cos_m, sin_m = tl.cos(margin), tl.sin(margin)
    c = tl.sum(tl.where(is_top, cos, 0.0), 1)  # (ROWS,) one term: exact
    square = (1.0 - c) * (1.0 + c)
    sine = tl.sqrt(tl.maximum(square, EPS))
    near = c > -cos_m
    psi = tl.where(near, c * cos_m - sine * sin_m, c - margin * sin_m)
    z = tl.where(is_top, (scale * psi)[:, None], scale * cos)
    z = tl.where(in_cols[None, :], z, float("-inf"))
    z = z - tl.max(z, 1)[:, None]
    power = tl.exp(z)
    total = tl.sum(power, 1)

    share = (1.0 - smoothing) * share + smoothing / C
    counts = weight
    if CLASS_WEIGHT:
        by_class = tl.load(class_ptr + col.to(tl.int64) * class_step, mask=in_cols, other=0.0).to(tl.float32)[None, :]
        share = share * by_class
        if HARD:
            counts = weight * tl.sum(tl.where(is_top, by_class, 0.0), 1)
    share = tl.where(in_cols[None, :], share, 0.0)
    log_p = tl.where(in_cols[None, :], z - tl.log(total)[:, None], 0.0)
    loss = tl.where(keep, -weight * tl.sum(share * log_p, 1), 0.0)
    counts = tl.where(keep, counts, 0.0)

    dz = (weight * scale)[:, None] * (tl.sum(share, 1)[:, None] * (power / total[:, None]) - share)
    slope = tl.where(near, cos_m + tl.where(square >= EPS, c * sin_m / sine, 0.0), 1.0)
    return loss, counts, keep, tl.where(is_top, slope[:, None], 1.0) * dz, is_top


@triton.jit
def _rows(  # type: ignore[no-untyped-def]
    cos_ptr, cos_row, cos_col, target_ptr, target_row, target_col, class_ptr, class_step, sample_ptr, sample_step,
    margin_ptr, margin_rad, scale, smoothing, partial_ptr, dcos_ptr, B, C,
    HARD: tl.constexpr, CLASS_WEIGHT: tl.constexpr, SAMPLE_WEIGHT: tl.constexpr, MARGIN_TENSOR: tl.constexpr,
    GRAD: tl.constexpr, IGNORE: tl.constexpr, EPS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,) int64: row * stride can pass 2**31
    col = tl.arange(0, COLS).to(tl.int64)
    inside = (row < B)[:, None] & (col < C)[None, :]
    cos = tl.load(cos_ptr + row[:, None] * cos_row + col[None, :] * cos_col, mask=inside, other=0.0).to(tl.float32)
    loss, counts, keep, dcos, _ = loss_of_tile(
        cos, row, target_ptr, target_row, target_col, class_ptr, class_step, sample_ptr, sample_step,
        margin_ptr, margin_rad, scale, smoothing, B, C,
        HARD, CLASS_WEIGHT, SAMPLE_WEIGHT, MARGIN_TENSOR, IGNORE, EPS, ROWS, COLS,
    )  # fmt: skip
    tl.store(partial_ptr + tl.program_id(0), tl.sum(loss, 0))
    tl.store(partial_ptr + tl.num_programs(0) + tl.program_id(0), tl.sum(counts, 0))
    if GRAD:
        tl.store(dcos_ptr + row[:, None] * C + col[None, :], tl.where(keep[:, None], dcos, 0.0), mask=inside)


@torch.library.custom_op(
    "affect::arcface_ce", mutates_args=(), schema=f"(Tensor cos, {SCHEMA}, bool with_grad) -> (Tensor, Tensor, Tensor)"
)
def loss_and_grad(cos: Tensor, *flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    """flat: the fields of ArcFaceInputs, with_grad. -> loss (), share () = 1 / divisor, d sum / d cos (B or 0, C); float32."""
    *fields, with_grad = flat
    inputs = ArcFaceInputs(*fields)
    B, C = cos.shape
    cols = triton.next_power_of_2(C)
    rows = max(TILE // cols, 1)
    programs = triton.cdiv(B, rows)
    partial, loss, share, dcos = (
        torch.empty(shape, dtype=torch.float32, device=cos.device)
        for shape in ((2, programs), (), (), (B if with_grad else 0, C))
    )
    with torch.cuda.device_of(cos):
        _rows[(programs,)](
            cos, cos.stride(0), cos.stride(1), *inputs.pointers(cos), partial, dcos, B, C,
            **inputs.constants(), GRAD=with_grad, EPS=EPS, ROWS=rows, COLS=cols, num_warps=min(max(rows * cols // 512, 4), 16),
        )  # fmt: skip
        finish[(1,)](
            partial, optional(inputs.divisor, cos)[0], loss, share, loss, programs,
            MEAN=inputs.mean, COUNT=inputs.divisor is not None, HITS=False, BLOCK=min(triton.next_power_of_2(programs), 1024),
        )  # fmt: skip
    return loss, share, dcos


@loss_and_grad.register_fake
def _(cos: Tensor, *flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((), (), cos.shape if flat[-1] else (0, cos.shape[1]))
    loss, share, dcos = (torch.empty(shape, dtype=torch.float32, device=cos.device) for shape in shapes)
    return loss, share, dcos


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, share, dcos = output
    ctx.set_materialize_grads(False)  # no zeros for the outputs that only the backward pass reads
    ctx.save_for_backward(share, dcos)
    ctx.dtype, ctx.others = inputs[0].dtype, len(inputs) - 1


def _backward(ctx, upstream, _share, _dcos):  # type: ignore[no-untyped-def]
    share, dcos = ctx.saved_tensors
    grad = None if upstream is None else stored_gradient("arcface_ce", dcos, upstream, share, ctx.dtype)
    return (grad, *[None] * ctx.others)


loss_and_grad.register_autograd(_backward, setup_context=_save)


def arcface_ce_fused(cos: Tensor, inputs: ArcFaceInputs) -> Tensor:
    loss, _, _ = loss_and_grad(cos, *inputs, cos.requires_grad and torch.is_grad_enabled())
    return loss
