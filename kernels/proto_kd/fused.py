"""`proto_kd` in Triton: cosines and shares never leave the chip. Axes: B rows, K prototypes, D features.

With v the sample weight:  d row / d s_k = v ((sum_j q^T_j) q^S_k - q^T_k) / temperature; from there as in cosine.py.
Deterministic: each program writes its own partial sum, and one program adds them in order.
"""

from typing import Any

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from affect.kernels.arcface_head.reference import TINY
from affect.kernels.cosine import FEATURES, ROWS, block, cosines, padded, store_row_gradient
from affect.kernels.gradient import stored_gradient
from affect.kernels.launch import optional
from affect.kernels.proto_kd.reference import ProtoKDInputs
from affect.kernels.reduce import finish

SCHEMA = (
    "(Tensor features, Tensor prototypes, Tensor? target, Tensor? teacher_features, Tensor? sample_weight, Tensor? divisor,"
    " float temperature, float teacher_temperature, bool mean, bool with_grad) -> (Tensor, Tensor, Tensor)"
)


@triton.jit
def _shares(cos, in_cols, temperature):  # type: ignore[no-untyped-def]
    """softmax(cos / temperature) and its logarithm (ROWS, COLS); both 0 outside K."""
    z = tl.where(in_cols[None, :], cos / temperature, float("-inf"))
    z = z - tl.max(z, 1)[:, None]
    power = tl.exp(z)
    total = tl.sum(power, 1)[:, None]
    return power / total, tl.where(in_cols[None, :], z - tl.log(total), 0.0)


@triton.jit
def _proto(  # type: ignore[no-untyped-def]
    x_ptr, x_row, x_col, p_ptr, p_row, p_col, target_ptr, target_row, target_col, sample_ptr, sample_step,
    temperature, teacher_temperature, partial_ptr, dx_ptr, B, K, D,
    TEACHER: tl.constexpr, SAMPLE_WEIGHT: tl.constexpr, GRAD: tl.constexpr, TINY: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """target: (B, D) features of the teacher where TEACHER, else (B, K) shares."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,) int64: row * stride can pass 2**31
    col = tl.arange(0, COLS)
    in_rows, in_cols = row < B, col < K
    weight = tl.where(in_rows, 1.0, 0.0)
    if SAMPLE_WEIGHT:
        weight = tl.load(sample_ptr + row * sample_step, mask=in_rows, other=0.0).to(tl.float32)
    keep = in_rows & (weight != 0.0)  # what other rows hold is not read
    cos, x_norm, p_norm = cosines(
        x_ptr, x_row, x_col, p_ptr, p_row, p_col, row, keep, col, in_cols, D, TINY, ROWS, COLS, FEATURES
    )
    q, log_q = _shares(cos, in_cols, temperature)
    if TEACHER:
        cos_t, _, _ = cosines(
            target_ptr, target_row, target_col, p_ptr, p_row, p_col, row, keep, col, in_cols, D, TINY, ROWS, COLS, FEATURES
        )
        share, log_share = _shares(cos_t, in_cols, teacher_temperature)
    else:
        share = block(target_ptr, row, target_row, col, target_col, keep[:, None] & in_cols[None, :])
        log_share = tl.log(tl.where(share == 0.0, 1.0, share))
    loss = tl.where(keep, weight * tl.sum(share * (log_share - log_q), 1), 0.0)
    tl.store(partial_ptr + tl.program_id(0), tl.sum(loss, 0))
    tl.store(partial_ptr + tl.num_programs(0) + tl.program_id(0), tl.sum(weight, 0))

    if GRAD:
        g = (weight / temperature)[:, None] * (tl.sum(share, 1)[:, None] * q - share)
        g = tl.where(keep[:, None] & in_cols[None, :], g, 0.0)
        store_row_gradient(
            g, cos, x_norm, p_norm, keep, dx_ptr, x_ptr, x_row, x_col, p_ptr, p_row, p_col, row, in_rows, col, in_cols, D,
            TINY, FEATURES,
        )  # fmt: skip


@torch.library.custom_op("affect::proto_kd", mutates_args=(), schema=SCHEMA)
def loss_and_grad(features: Tensor, prototypes: Tensor, *flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    """flat: the fields of ProtoKDInputs, with_grad. -> loss (), share () = 1 / divisor, d sum / d features (B or 0, D)."""
    *fields, with_grad = flat
    inputs = ProtoKDInputs(*fields)
    (B, D), K = features.shape, len(prototypes)
    target = inputs.target if inputs.teacher_features is None else inputs.teacher_features
    assert target is not None
    programs = triton.cdiv(B, ROWS)
    partial, loss, share, dx = (
        torch.empty(shape, dtype=torch.float32, device=features.device)
        for shape in ((2, programs), (), (), (B if with_grad else 0, D))
    )
    with torch.cuda.device_of(features):
        _proto[(programs,)](
            features, *features.stride(), prototypes, *prototypes.stride(), target, *target.stride(),
            *optional(inputs.sample_weight, features), inputs.temperature, inputs.teacher_temperature, partial, dx, B, K, D,
            TEACHER=inputs.teacher_features is not None, SAMPLE_WEIGHT=inputs.sample_weight is not None, GRAD=with_grad,
            TINY=TINY, ROWS=ROWS, COLS=padded(K), FEATURES=FEATURES,
        )  # fmt: skip
        finish[(1,)](
            partial, optional(inputs.divisor, features)[0], loss, share, loss, programs,
            MEAN=inputs.mean, COUNT=inputs.divisor is not None, HITS=False, BLOCK=min(triton.next_power_of_2(programs), 1024),
        )  # fmt: skip
    return loss, share, dx


@loss_and_grad.register_fake
def _(features: Tensor, prototypes: Tensor, *flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((), (), features.shape if flat[-1] else (0, features.shape[1]))
    loss, share, dx = (torch.empty(shape, dtype=torch.float32, device=features.device) for shape in shapes)
    return loss, share, dx


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, share, dx = output
    ctx.set_materialize_grads(False)  # no zeros for the outputs that only the backward pass reads
    ctx.save_for_backward(share, dx)
    ctx.dtype, ctx.others = inputs[0].dtype, len(inputs) - 1


def _backward(ctx, upstream, _share, _dx):  # type: ignore[no-untyped-def]
    share, dx = ctx.saved_tensors
    grad = None if upstream is None else stored_gradient("proto_kd", dx, upstream, share, ctx.dtype)
    return (grad, *[None] * ctx.others)


loss_and_grad.register_autograd(_backward, setup_context=_save)


def proto_kd_fused(features: Tensor, prototypes: Tensor, inputs: ProtoKDInputs) -> Tensor:
    loss, _, _ = loss_and_grad(features, prototypes, *inputs, features.requires_grad and torch.is_grad_enabled())
    return loss
