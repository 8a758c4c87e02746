"""`arcface_head` in Triton: the cosines never leave the chip. Axes: B rows, C classes, D features.

Cosines and d x_i as in cosine.py, and d w_j likewise over the rows: a second kernel sums parts of them, so that a large batch
keeps more multiprocessors busy than D has blocks, and the backward pass adds the parts in order. Deterministic.
"""

from typing import Any

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from affect.kernels.arcface_ce.fused import loss_of_tile
from affect.kernels.arcface_ce.reference import EPS
from affect.kernels.arcface_head.reference import TINY
from affect.kernels.arcface_inputs import SCHEMA, ArcFaceInputs
from affect.kernels.cosine import FEATURES, ROWS, block, cosines, padded, store_row_gradient
from affect.kernels.gradient import no_second_derivative, stored_gradient
from affect.kernels.launch import optional
from affect.kernels.reduce import finish

PART = 256  # rows of which one program sums the gradient of the weight


@triton.jit
def _head(  # type: ignore[no-untyped-def]
    x_ptr, x_row, x_col, w_ptr, w_row, w_col, target_ptr, target_row, target_col, class_ptr, class_step, sample_ptr, sample_step,
    margin_ptr, margin_rad, scale, smoothing, partial_ptr, g_ptr, projection_ptr, norm_ptr, dx_ptr, B, C, D,
    HARD: tl.constexpr, CLASS_WEIGHT: tl.constexpr, SAMPLE_WEIGHT: tl.constexpr, MARGIN_TENSOR: tl.constexpr,
    GRAD: tl.constexpr, IGNORE: tl.constexpr, EPS: tl.constexpr, TINY: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row = program.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, COLS)
    in_rows, in_cols = row < B, col < C
    cos, x_norm, w_norm = cosines(
        x_ptr, x_row, x_col, w_ptr, w_row, w_col, row, in_rows, col, in_cols, D, TINY, ROWS, COLS, FEATURES
    )
    loss, counts, keep, g, is_top = loss_of_tile(
        cos, row, target_ptr, target_row, target_col, class_ptr, class_step, sample_ptr, sample_step,
        margin_ptr, margin_rad, scale, smoothing, B, C,
        HARD, CLASS_WEIGHT, SAMPLE_WEIGHT, MARGIN_TENSOR, IGNORE, EPS, ROWS, COLS,
    )  # fmt: skip
    highest = tl.max(tl.where(in_cols[None, :], cos, float("-inf")), 1)
    first = tl.min(tl.where(in_cols[None, :] & (cos == highest[:, None]), col[None, :], COLS), 1)
    hit = tl.sum(tl.where(is_top & (col[None, :] == first[:, None]), 1.0, 0.0), 1)
    tl.store(partial_ptr + program, tl.sum(loss, 0))
    tl.store(partial_ptr + tl.num_programs(0) + program, tl.sum(counts, 0))
    tl.store(partial_ptr + 2 * tl.num_programs(0) + program, tl.sum(tl.where(keep, hit, 0.0), 0))

    if GRAD:
        g = tl.where(keep[:, None] & in_cols[None, :], g, 0.0)
        tl.store(projection_ptr + program * COLS + col, tl.sum(tl.where(keep[:, None], g * cos, 0.0), 0))
        if program == 0:
            tl.store(norm_ptr + col, w_norm)
        over_norm = tl.where(keep[:, None], g * (1.0 / tl.maximum(x_norm, TINY))[:, None], 0.0)
        tl.store(g_ptr + row[:, None] * COLS + col[None, :], over_norm, mask=in_rows[:, None] & (col < COLS)[None, :])
        store_row_gradient(
            g, cos, x_norm, w_norm, keep, dx_ptr, x_ptr, x_row, x_col, w_ptr, w_row, w_col, row, in_rows, col, in_cols, D,
            TINY, FEATURES,
        )  # fmt: skip


@triton.jit
def _weight_parts(  # type: ignore[no-untyped-def]
    x_ptr, x_row, x_col, g_ptr, parts_ptr, B, D,
    PART: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """parts: (ceil(B / PART), COLS, D), sum_i (g_ij / |x_i|) x_i over PART rows. A program has a part and some features."""
    feature = tl.program_id(0) * FEATURES + tl.arange(0, FEATURES)
    part = tl.program_id(1)
    col = tl.arange(0, COLS)
    in_features = (feature < D)[None, :]
    total = tl.zeros((COLS, FEATURES), tl.float32)
    for start in range(0, PART, ROWS):
        row = part * PART + start + tl.arange(0, ROWS)
        at = row.to(tl.int64)[:, None] * COLS + col[None, :]
        g = tl.load(g_ptr + at, mask=(row < B)[:, None] & (col < COLS)[None, :], other=0.0)
        used = tl.max((g != 0.0).to(tl.int32), 1) > 0  # an ignored row may hold NaN
        x = block(x_ptr, row, x_row, feature, x_col, used[:, None] & in_features)
        total += tl.dot(tl.trans(g), x, input_precision="ieee")
    tl.store(parts_ptr + (part * COLS + col)[:, None].to(tl.int64) * D + feature[None, :], total, mask=in_features)


@triton.jit
def _weight_gradient(  # type: ignore[no-untyped-def]
    w_ptr, w_row, w_col, parts_ptr, projection_ptr, norm_ptr, upstream_ptr, share_ptr, dw_ptr, C, D, P, S,
    TINY: tl.constexpr, BLOCK: tl.constexpr, COLS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    feature = tl.program_id(0) * FEATURES + tl.arange(0, FEATURES)
    col = tl.arange(0, COLS)
    in_features, inside = (feature < D)[None, :], (col < C)[:, None] & (feature < D)[None, :]
    total = tl.zeros((COLS, FEATURES), tl.float32)
    for part in range(S):
        at = (part * COLS + col)[:, None].to(tl.int64) * D + feature[None, :]
        total += tl.load(parts_ptr + at, mask=in_features, other=0.0)
    along = tl.zeros((COLS,), tl.float32)
    for start in range(0, P, BLOCK):
        program = start + tl.arange(0, BLOCK)
        at = program[:, None] * COLS + col[None, :]
        along += tl.sum(tl.load(projection_ptr + at, mask=(program < P)[:, None] & (col < COLS)[None, :], other=0.0), 0)
    norm = tl.load(norm_ptr + col)
    scale = 1.0 / tl.maximum(norm, TINY)
    w = block(w_ptr, col, w_row, feature, w_col, inside)
    dw = (total - (tl.where(norm > TINY, along, 0.0) * scale)[:, None] * w) * scale[:, None]
    dw *= tl.load(upstream_ptr).to(tl.float32) * tl.load(share_ptr)
    tl.store(dw_ptr + col.to(tl.int64)[:, None] * D + feature[None, :], dw.to(dw_ptr.dtype.element_ty), mask=inside)


@torch.library.custom_op("affect::arcface_weight_gradient", mutates_args=())
def weight_gradient(weight: Tensor, parts: Tensor, projection: Tensor, norm: Tensor, upstream: Tensor, share: Tensor) -> Tensor:
    """(C, D) in the dtype of weight, rounded once. parts, projection, norm, share: as `loss_and_grads` gives them."""
    C, D = weight.shape
    dw = torch.empty((C, D), dtype=weight.dtype, device=weight.device)
    with torch.cuda.device_of(weight):
        _weight_gradient[(triton.cdiv(D, FEATURES),)](
            weight, weight.stride(0), weight.stride(1), parts, projection, norm, upstream, share, dw, C, D,
            len(projection), len(parts), TINY=TINY, BLOCK=64, COLS=len(norm), FEATURES=FEATURES,
        )  # fmt: skip
    return dw


@weight_gradient.register_fake
def _(weight: Tensor, *stored: Tensor) -> Tensor:
    return torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)


def _refuse(ctx, grad) -> None:  # type: ignore[no-untyped-def]
    raise no_second_derivative("arcface_head")


weight_gradient.register_autograd(_refuse)


def _shapes(x: Tensor, weight: Tensor, with_grad: bool) -> list[tuple[int, ...]]:
    """Return the shapes of what `loss_and_grads` returns."""
    (B, D), cols = x.shape, padded(len(weight))
    rows, parts, programs = (B, triton.cdiv(B, PART), triton.cdiv(B, ROWS)) if with_grad else (0, 0, 0)
    return [(), (), (), (rows, D), (parts, cols, D), (programs, cols), (cols if with_grad else 0,)]


@torch.library.custom_op(
    "affect::arcface_head",
    mutates_args=(),
    schema=f"(Tensor x, Tensor weight, {SCHEMA}, bool with_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def loss_and_grads(x: Tensor, weight: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    """flat: the fields of ArcFaceInputs, with_grad. All float32:

    loss (), hits (), share () = 1 / divisor, d sum / d x (B, D), and of d sum / d weight its parts (S, COLS, D), the projections
    (P, COLS) of each program and the norms (COLS,) of weight. Without with_grad the last four have no rows.
    """
    *fields, with_grad = flat
    inputs = ArcFaceInputs(*fields)
    (B, D), C = x.shape, len(weight)
    cols, programs = padded(C), triton.cdiv(B, ROWS)
    outputs = [torch.empty(shape, dtype=torch.float32, device=x.device) for shape in _shapes(x, weight, with_grad)]
    loss, hits, share, dx, parts, projection, norm = outputs
    partial, g = (
        torch.empty(shape, dtype=torch.float32, device=x.device) for shape in ((3, programs), (B if with_grad else 0, cols))
    )
    row_of_x = (x, x.stride(0), x.stride(1))
    with torch.cuda.device_of(x):
        _head[(programs,)](
            *row_of_x, weight, weight.stride(0), weight.stride(1), *inputs.pointers(x), partial, g, projection, norm, dx, B, C, D,
            **inputs.constants(), GRAD=with_grad, EPS=EPS, TINY=TINY, ROWS=ROWS, COLS=cols, FEATURES=FEATURES,
        )  # fmt: skip
        finish[(1,)](
            partial, optional(inputs.divisor, x)[0], loss, share, hits, programs,
            MEAN=inputs.mean, COUNT=inputs.divisor is not None, HITS=True, BLOCK=min(triton.next_power_of_2(programs), 1024),
        )  # fmt: skip
        if with_grad:
            _weight_parts[(triton.cdiv(D, FEATURES), len(parts))](
                *row_of_x, g, parts, B, D, PART=PART, ROWS=64, COLS=cols, FEATURES=FEATURES
            )
    return tuple(outputs)


@loss_and_grads.register_fake
def _(x: Tensor, weight: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty(shape, dtype=torch.float32, device=x.device) for shape in _shapes(x, weight, flat[-1]))


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, _, *stored = output
    ctx.set_materialize_grads(False)  # no zeros for the outputs that only the backward pass reads
    ctx.save_for_backward(inputs[1], *stored)
    ctx.dtype, ctx.others = inputs[0].dtype, len(inputs) - 2


def _backward(ctx, upstream, *_):  # type: ignore[no-untyped-def]
    weight, share, dx, *of_weight = ctx.saved_tensors
    for_x, for_weight = ctx.needs_input_grad[:2]
    grads = [None, None]
    if upstream is not None and for_x:
        grads[0] = stored_gradient("arcface_head", dx, upstream, share, ctx.dtype)
    if upstream is not None and for_weight:
        grads[1] = weight_gradient(weight, *of_weight, upstream, share)
    return (*grads, *[None] * ctx.others)


loss_and_grads.register_autograd(_backward, setup_context=_save)


def arcface_head_fused(x: Tensor, weight: Tensor, inputs: ArcFaceInputs) -> tuple[Tensor, Tensor]:
    with_grad = (x.requires_grad or weight.requires_grad) and torch.is_grad_enabled()
    loss, hits, *_ = loss_and_grads(x, weight, *inputs, with_grad)
    return loss, hits.detach()
