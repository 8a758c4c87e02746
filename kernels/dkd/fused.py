"""`dkd` in Triton: one pass over each row gives the loss, another in the backward pass the gradient. Axes: B rows, C classes.

With v the sample weight, w the weight, p and Q q the softmax at T = 1 and the sum of the target q, and beta' = beta, or
alpha (1 - b^T) for plain distillation:

    d row / d z_y = v (ce (Q p_y - q_y) + w T alpha (b^S - b^T))
    d row / d z_j = v (ce (Q p_j - q_j) + w T ((beta' - alpha (b^S - b^T)) r^S_j - beta' r^T_j))

All of it comes from the log odds of the target against the rest, log(b / (1 - b)) = z_y / T - logsumexp_(j != y)(z_j / T).

The gradient is computed again, not stored: bytes moved per element with student and teacher in bfloat16, or both in float32:
    computed again       read S T, then read S T and write        10   20     <- one rounding, no (B, C) buffer
    stored in float32    read S T and write, then read and write  14   20
    stored in S's dtype  likewise                                 10   20     rounds twice
The least that a caller who knew the upstream gradient could do, all in one pass, is 6 and 12.
Deterministic: each program writes its own partial sum, and one program adds them in order.
"""

from typing import Any

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from affect.kernels.dkd.inputs import SCHEMA, TENSORS, DKDInputs
from affect.kernels.gradient import no_second_derivative
from affect.kernels.launch import optional
from affect.kernels.reduce import finish

LOG2_E = tl.constexpr(1.4426950408889634)  # exp2 is one instruction, exp is five
TILE = 1024  # elements a program holds at a time
PROGRAMS = 4096  # of the loss, at most: `finish` adds their sums one block after the other


@triton.jit
def _log1p(x):  # type: ignore[no-untyped-def]
    """x in [0, 1]; keeps what a small x loses beside 1."""
    near = 1.0 + x
    return tl.where(near == 1.0, x, tl.log(near) * (x / tl.where(near == 1.0, 1.0, near - 1.0)))


@triton.jit
def _log_sides(odds):  # type: ignore[no-untyped-def]
    """odds: log(b / (1 - b)). -> log b, log(1 - b)."""
    less = _log1p(tl.exp(-tl.abs(odds)))
    return tl.minimum(odds, 0.0) - less, -tl.maximum(odds, 0.0) - less


@triton.jit
def _kl_terms(p, log_ratio):  # type: ignore[no-untyped-def]
    return tl.where(p == 0.0, 0.0, p * log_ratio)


@triton.jit
def _apart(row_ptr, step, y, known, keep, inside, rest, at_col):  # type: ignore[no-untyped-def]
    """z (ROWS, COLS) minus its highest non-target, -inf at the target and outside C; z_y (ROWS,) likewise, NaN if not known."""
    z = tl.load(row_ptr[:, None] + at_col * step, mask=inside & known[:, None], other=0.0).to(tl.float32)
    z = tl.where(rest, z, float("-inf"))
    z_y = tl.load(row_ptr + y * step, mask=known, other=0.0).to(tl.float32)
    high = tl.max(z, 1)
    return z - high[:, None], tl.where(known | ~keep, z_y - high, float("nan"))


@triton.jit
def _target(  # type: ignore[no-untyped-def]
    target_ptr, target_row, target_col, sample_ptr, sample_step, row, in_rows, col, at_col, in_cols,
    HARD: tl.constexpr, SAMPLE_WEIGHT: tl.constexpr, IGNORE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """-> sample weight, 0 where ignored; keep; top class y, all (ROWS,); shares q (ROWS, COLS), zeros where HARD."""
    keep = in_rows
    sample = tl.full((ROWS,), 1.0, tl.float32)
    if SAMPLE_WEIGHT:
        sample = tl.load(sample_ptr + row * sample_step, mask=in_rows, other=0.0).to(tl.float32)
        keep = keep & (sample != 0.0)
    if HARD:
        y = tl.load(target_ptr + row * target_row, mask=in_rows, other=IGNORE)
        keep = keep & (y != IGNORE)
        q = tl.zeros((ROWS, COLS), tl.float32)
    else:
        inside = keep[:, None] & in_cols
        q = tl.load(target_ptr + row[:, None] * target_row + at_col * target_col, mask=inside, other=0.0).to(tl.float32)
        highest = tl.max(tl.where(in_cols, q, float("-inf")), 1)
        y = tl.min(tl.where(in_cols & (q == highest[:, None]), col, COLS), 1).to(tl.int64)
    return tl.where(keep, sample, 0.0), keep, y, q


@triton.jit
def _rows(  # type: ignore[no-untyped-def]
    student_ptr, student_row, student_col, teacher_ptr, teacher_row, teacher_col, rows_ptr, rows_step, N,
    target_ptr, target_row, target_col, sample_ptr, sample_step, weight_ptr, weight_number, temperature, alpha, beta, ce,
    upstream_ptr, share_ptr, out_ptr, B, C: tl.constexpr, steps, DENSE: tl.constexpr,
    HARD: tl.constexpr, TABLE: tl.constexpr, SAMPLE_WEIGHT: tl.constexpr, WEIGHT_TENSOR: tl.constexpr, PLAIN: tl.constexpr,
    WARM: tl.constexpr, IGNORE: tl.constexpr, GRAD: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """out: (2, programs) partial sums of loss and count; with GRAD (B, C), the gradient times upstream times share.

    A program owns steps * ROWS rows. What an ignored row holds is not read: it is zeros here, with a weight of 0.
    """
    col = tl.arange(0, COLS)[None, :]  # (1, COLS) the power of two >= C
    at_col = col.to(tl.int64)
    in_cols = col < C
    cool = 1.0 / temperature
    if DENSE:  # a step known to the compiler: it loads 16 bytes at once where C allows it
        student_row = C
        teacher_row = C
    weight = weight_number
    if WEIGHT_TENSOR:
        weight = tl.load(weight_ptr).to(tl.float32)
    losses = tl.zeros((ROWS,), tl.float32)
    counts = tl.zeros((ROWS,), tl.float32)

    for step in range(steps):
        row = (tl.program_id(0).to(tl.int64) * steps + step) * ROWS + tl.arange(0, ROWS)  # (ROWS,): row * stride can pass 2**31
        in_rows = row < B
        sample, keep, y, q = _target(
            target_ptr, target_row, target_col, sample_ptr, sample_step, row, in_rows, col, at_col, in_cols,
            HARD, SAMPLE_WEIGHT, IGNORE, ROWS, COLS,
        )  # fmt: skip
        inside = keep[:, None] & in_cols
        known = keep & (y >= 0) & (y < C)
        is_top = col == tl.where(known, y, -1).to(tl.int32)[:, None]
        rest = in_cols & ~is_top
        teacher_at = row
        in_table = known
        if TABLE:
            teacher_at = tl.load(rows_ptr + row * rows_step, mask=keep, other=0)
            in_table = known & (teacher_at >= 0) & (teacher_at < N)

        s, s_y = _apart(student_ptr + row * student_row, student_col, y, known, keep, inside, rest, at_col)
        t, t_y = _apart(teacher_ptr + teacher_at * teacher_row, teacher_col, y, in_table, keep, inside, rest, at_col)

        s_power, t_power = tl.exp2(s * (cool * LOG2_E)), tl.exp2(t * (cool * LOG2_E))
        s_total, t_total = tl.sum(s_power, 1), tl.sum(t_power, 1)
        s_odds, t_odds = s_y * cool - tl.log(s_total), t_y * cool - tl.log(t_total)
        s_log_b, s_log_rest = _log_sides(s_odds)
        t_log_b, t_log_rest = _log_sides(t_odds)
        t_b, t_rest = tl.exp(t_log_b), tl.exp(t_log_rest)
        power, total = s_power, s_total  # at T = 1, for the cross-entropy
        if WARM:
            power = tl.exp2(s * LOG2_E)
            total = tl.sum(power, 1)
        log_p_y, log_p_rest = _log_sides(s_y - tl.log(total))
        on_nckd = alpha * t_rest if PLAIN else beta

        if GRAD:
            factor = sample * tl.load(upstream_ptr).to(tl.float32) * tl.load(share_ptr)
            # b^S - b^T, from whichever side keeps digits: both may be near 1
            lean = alpha * tl.where(t_odds > 0.0, t_rest - tl.exp(s_log_rest), tl.exp(s_log_b) - t_b)
            distil, label = factor * weight * temperature, factor * ce
            p_rest = tl.exp(log_p_rest)
            if HARD:
                dz_y = -p_rest
            else:
                whole = tl.sum(q, 1)
                dz_y = whole * tl.exp(log_p_y) - tl.sum(tl.where(is_top, q, 0.0), 1)
                p_rest = whole * p_rest
            dz_y = label * dz_y + distil * lean
            dz = (distil * (on_nckd - lean) / s_total)[:, None] * s_power - (distil * on_nckd / t_total)[:, None] * t_power
            dz += (label * p_rest / total)[:, None] * power
            if not HARD:
                dz -= label[:, None] * q
            dz = tl.where(is_top, dz_y[:, None], dz).to(out_ptr.dtype.element_ty)
            tl.store(out_ptr + row[:, None] * C + at_col, dz, mask=in_rows[:, None] & in_cols)
        else:
            tckd = _kl_terms(t_b, t_log_b - s_log_b) + _kl_terms(t_rest, t_log_rest - s_log_rest)
            nckd = cool * tl.sum(_kl_terms(t_power, t - s), 1) / t_total + tl.log(s_total) - tl.log(t_total)
            cross_entropy = -log_p_y
            if not HARD:
                q_y = tl.sum(tl.where(is_top, q, 0.0), 1)
                q = tl.where(rest, q, 0.0)
                cross_entropy = -q_y * log_p_y - tl.sum(q, 1) * (log_p_rest - tl.log(total))
                cross_entropy -= tl.sum(tl.where(rest, q * s, 0.0), 1)
            losses += sample * (ce * cross_entropy + weight * temperature * temperature * (alpha * tckd + on_nckd * nckd))
            counts += sample

    if not GRAD:
        tl.store(out_ptr + tl.program_id(0), tl.sum(losses, 0))
        tl.store(out_ptr + tl.num_programs(0) + tl.program_id(0), tl.sum(counts, 0))


def _tiling(student: Tensor, teacher: Tensor) -> tuple[int, dict[str, Any]]:
    """How many tiles there are, and what one is."""
    C = student.shape[1]
    cols = triton.next_power_of_2(C)
    rows = max(TILE // cols, 1)
    # A warp has a row to itself up to 1024 columns: its sums need no barrier, and what is done once a row is done once.
    warps = 4 if cols <= 256 else min(max(cols // 1024, 1), 16)
    dense = student.stride() == teacher.stride() == (C, 1)
    return triton.cdiv(len(student), rows), {"DENSE": dense, "ROWS": rows, "COLS": cols, "num_warps": warps}


@torch.library.custom_op("affect::dkd", mutates_args=(), schema=f"(Tensor student, {SCHEMA}) -> (Tensor, Tensor)")
def loss_and_share(student: Tensor, *flat: Any) -> tuple[Tensor, Tensor]:
    """flat: the fields of a DKDInputs. -> loss (), share () = 1 / divisor; float32."""
    inputs = DKDInputs(*flat)
    tiles, tile = _tiling(student, inputs.teacher)
    steps = triton.cdiv(tiles, PROGRAMS)
    programs = triton.cdiv(tiles, steps)
    partial, loss, share = (torch.empty(shape, dtype=torch.float32, device=student.device) for shape in ((2, programs), (), ()))
    with torch.cuda.device_of(student):
        _rows[(programs,)](
            student, *student.stride(), *inputs.pointers(student), student, student, partial, *student.shape, steps,
            **inputs.constants(), GRAD=False, **tile,
        )  # fmt: skip
        finish[(1,)](
            partial, optional(inputs.divisor, student)[0], loss, share, loss, programs,
            MEAN=inputs.mean, COUNT=inputs.divisor is not None, HITS=False, BLOCK=min(triton.next_power_of_2(programs), 1024),
        )  # fmt: skip
    return loss, share


@torch.library.custom_op(
    "affect::dkd_gradient", mutates_args=(), schema=f"(Tensor upstream, Tensor share, Tensor student, {SCHEMA}) -> Tensor"
)
def gradient(upstream: Tensor, share: Tensor, student: Tensor, *flat: Any) -> Tensor:
    """upstream * d loss / d student, (B, C) in the student's dtype."""
    inputs = DKDInputs(*flat)
    tiles, tile = _tiling(student, inputs.teacher)
    out = torch.empty(student.shape, dtype=student.dtype, device=student.device)
    with torch.cuda.device_of(student):
        _rows[(tiles,)](
            student, *student.stride(), *inputs.pointers(student), upstream, share, out, *student.shape, 1,
            **inputs.constants(), GRAD=True, **tile,
        )  # fmt: skip
    return out


@loss_and_share.register_fake
def _(student: Tensor, *flat: Any) -> tuple[Tensor, Tensor]:
    return student.new_empty((), dtype=torch.float32), student.new_empty((), dtype=torch.float32)


@gradient.register_fake
def _(upstream: Tensor, share: Tensor, student: Tensor, *flat: Any) -> Tensor:
    return torch.empty(student.shape, dtype=student.dtype, device=student.device)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    student, *flat = inputs
    ctx.set_materialize_grads(False)  # no zeros for the share, which only the backward pass reads
    ctx.save_for_backward(output[1], student, *flat[:TENSORS])
    ctx.numbers = flat[TENSORS:]


def _backward(ctx, upstream, _share):  # type: ignore[no-untyped-def]
    share, student, *tensors = ctx.saved_tensors
    grad = None if upstream is None else gradient(upstream, share, student, *tensors, *ctx.numbers)
    return (grad, *[None] * (len(tensors) + len(ctx.numbers)))


def _refuse(ctx, grad):  # type: ignore[no-untyped-def]
    raise no_second_derivative("dkd")


loss_and_share.register_autograd(_backward, setup_context=_save)
gradient.register_autograd(_refuse)


def dkd_fused(student: Tensor, inputs: DKDInputs) -> Tensor:
    loss, _ = loss_and_share(student, *inputs)
    return loss
