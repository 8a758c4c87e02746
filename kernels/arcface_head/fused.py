"""`arcface_head` in Triton: the cosines never leave the chip. Axes: B rows, C classes, D features.

With g = d loss / d cos and unit rows x^, w^:  d x_i = (sum_j g_ij w^_j - (sum_j g_ij cos_ij) x^_i) / |x_i|, and d w_j likewise
over the rows. The projections come from the cosines: one pass over D gives those, a second the gradients. Deterministic.
"""

from typing import Any

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from affect.kernels.arcface import SCHEMA, ArcFace
from affect.kernels.arcface_ce.fused import finish, loss_of_tile
from affect.kernels.arcface_ce.reference import EPS
from affect.kernels.arcface_head.reference import TINY
from affect.kernels.gradient import stored_gradient
from affect.kernels.launch import optional

ROWS = 16  # the least that tl.dot takes; more of them leaves multiprocessors idle at B = 256
FEATURES = 64  # of a step over D


@triton.jit
def _block(ptr, row, step_row, feature, step_feature, inside):  # type: ignore[no-untyped-def]
    at = row.to(tl.int64)[:, None] * step_row + feature.to(tl.int64)[None, :] * step_feature
    return tl.load(ptr + at, mask=inside, other=0.0).to(tl.float32)


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
    dots = tl.zeros((ROWS, COLS), tl.float32)
    xx = tl.zeros((ROWS,), tl.float32)
    ww = tl.zeros((COLS,), tl.float32)
    for start in range(0, D, FEATURES):
        feature = start + tl.arange(0, FEATURES)
        x = _block(x_ptr, row, x_row, feature, x_col, in_rows[:, None] & (feature < D)[None, :])
        w = _block(w_ptr, col, w_row, feature, w_col, in_cols[:, None] & (feature < D)[None, :])
        dots += tl.dot(x, tl.trans(w), input_precision="ieee")
        xx += tl.sum(x * x, 1)
        ww += tl.sum(w * w, 1)
    x_norm, w_norm = tl.sqrt(xx), tl.sqrt(ww)
    x_scale, w_scale = 1.0 / tl.maximum(x_norm, TINY), 1.0 / tl.maximum(w_norm, TINY)
    cos = tl.where(in_cols[None, :], dots * x_scale[:, None] * w_scale[None, :], 0.0)
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
        along = tl.where(keep[:, None], g * cos, 0.0)
        tl.store(projection_ptr + program * COLS + col, tl.sum(along, 0))
        if program == 0:
            tl.store(norm_ptr + col, w_norm)
        over_norm = tl.where(keep[:, None], g * x_scale[:, None], 0.0)
        tl.store(g_ptr + row[:, None] * COLS + col[None, :], over_norm, mask=in_rows[:, None] & (col < COLS)[None, :])
        along_x = tl.where(x_norm > TINY, tl.sum(along, 1), 0.0) * x_scale
        for start in range(0, D, FEATURES):
            feature = start + tl.arange(0, FEATURES)
            inside = in_rows[:, None] & (feature < D)[None, :]
            x = _block(x_ptr, row, x_row, feature, x_col, inside & keep[:, None])
            w = _block(w_ptr, col, w_row, feature, w_col, in_cols[:, None] & (feature < D)[None, :])
            dx = (tl.dot(g * w_scale[None, :], w, input_precision="ieee") - along_x[:, None] * x) * x_scale[:, None]
            tl.store(dx_ptr + row[:, None] * D + feature[None, :], tl.where(keep[:, None], dx, 0.0), mask=inside)


@triton.jit
def _to_weight(  # type: ignore[no-untyped-def]
    x_ptr, x_row, x_col, w_ptr, w_row, w_col, g_ptr, projection_ptr, norm_ptr, dw_ptr, B, C, D, P,
    TINY: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    # A program owns some features of all classes and goes through all rows in order.
    feature = tl.program_id(0) * FEATURES + tl.arange(0, FEATURES)
    col = tl.arange(0, COLS)
    in_features = (feature < D)[None, :]
    total = tl.zeros((COLS, FEATURES), tl.float32)
    for start in range(0, B, ROWS):
        row = start + tl.arange(0, ROWS)
        at = row.to(tl.int64)[:, None] * COLS + col[None, :]
        g = tl.load(g_ptr + at, mask=(row < B)[:, None] & (col < COLS)[None, :], other=0.0)
        used = tl.max((g != 0.0).to(tl.int32), 1) > 0  # an ignored row may hold NaN
        x = _block(x_ptr, row, x_row, feature, x_col, used[:, None] & in_features)
        total += tl.dot(tl.trans(g), x, input_precision="ieee")
    along = tl.zeros((COLS,), tl.float32)
    for program in range(P):
        along += tl.load(projection_ptr + program * COLS + col)
    norm = tl.load(norm_ptr + col)
    scale = 1.0 / tl.maximum(norm, TINY)
    w = _block(w_ptr, col, w_row, feature, w_col, (col < C)[:, None] & in_features)
    dw = (total - (tl.where(norm > TINY, along, 0.0) * scale)[:, None] * w) * scale[:, None]
    tl.store(dw_ptr + col.to(tl.int64)[:, None] * D + feature[None, :], dw, mask=(col < C)[:, None] & in_features)


@torch.library.custom_op(
    "affect::arcface_head",
    mutates_args=(),
    schema=f"(Tensor x, Tensor weight, {SCHEMA}, bool with_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def loss_and_grads(x: Tensor, weight: Tensor, *flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """flat: an ArcFace's fields, with_grad. -> loss (), hits (), share () = 1 / divisor, d sum / d x, d sum / d weight; float32.

    Without with_grad the last two have no rows.
    """
    *fields, with_grad = flat
    told = ArcFace(*fields)
    (B, D), C = x.shape, len(weight)
    cols = max(triton.next_power_of_2(C), 16)  # tl.dot takes no less
    programs = triton.cdiv(B, ROWS)
    rows = B if with_grad else 0
    shapes = ((), (), (), (rows, D), (C if with_grad else 0, D), (3, programs), (rows, cols), (programs, cols), (cols,))
    made = [torch.empty(shape, dtype=torch.float32, device=x.device) for shape in shapes]
    loss, hits, share, dx, dw, partial, g, projection, norm = made
    operands = (x, x.stride(0), x.stride(1), weight, weight.stride(0), weight.stride(1))
    with torch.cuda.device_of(x):
        _head[(programs,)](
            *operands, *told.pointers(x), partial, g, projection, norm, dx, B, C, D,
            **told.constants(), GRAD=with_grad, EPS=EPS, TINY=TINY, ROWS=ROWS, COLS=cols, FEATURES=FEATURES,
        )  # fmt: skip
        finish[(1,)](
            partial, optional(told.divisor, x)[0], loss, share, hits, programs,
            MEAN=told.mean, COUNT=told.divisor is not None, HITS=True, BLOCK=min(triton.next_power_of_2(programs), 1024),
        )  # fmt: skip
        if with_grad:
            _to_weight[(triton.cdiv(D, FEATURES),)](
                *operands, g, projection, norm, dw, B, C, D, programs, TINY=TINY, ROWS=64, COLS=cols, FEATURES=FEATURES
            )
    return loss, hits, share, dx, dw


@loss_and_grads.register_fake
def _(x: Tensor, weight: Tensor, *flat: Any) -> tuple[Tensor, ...]:
    shapes = ((), (), (), x.shape if flat[-1] else (0, x.shape[1]), weight.shape if flat[-1] else (0, x.shape[1]))
    return tuple(torch.empty(shape, dtype=torch.float32, device=x.device) for shape in shapes)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, _, share, dx, dw = output
    ctx.set_materialize_grads(False)  # no zeros for the outputs that only the backward pass reads
    ctx.save_for_backward(share, dx, dw)
    ctx.dtypes, ctx.others = (inputs[0].dtype, inputs[1].dtype), len(inputs) - 2


def _backward(ctx, upstream, *_):  # type: ignore[no-untyped-def]
    share, *stored = ctx.saved_tensors
    grads = [
        stored_gradient("arcface_head", value, upstream, share, dtype) if upstream is not None and wanted else None
        for value, dtype, wanted in zip(stored, ctx.dtypes, ctx.needs_input_grad[:2], strict=True)
    ]
    return (*grads, *[None] * ctx.others)


loss_and_grads.register_autograd(_backward, setup_context=_save)


def arcface_head_fused(x: Tensor, weight: Tensor, told: ArcFace) -> tuple[Tensor, Tensor]:
    with_grad = (x.requires_grad or weight.requires_grad) and torch.is_grad_enabled()
    loss, hits, *_ = loss_and_grads(x, weight, *told, with_grad)
    return loss, hits.detach()
