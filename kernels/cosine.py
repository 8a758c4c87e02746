"""Cosines of a block of rows with a few columns, on chip, and the gradient of the rows: what `arcface_head` and `proto_kd` share.

With unit rows x^, w^ and g = d loss / d cos:  d x_i = (sum_j g_ij w^_j - (sum_j g_ij cos_ij) x^_i) / |x_i|. The projection comes
from the cosines: one pass over D gives those, a second the gradient. Axes: B rows, C columns (classes, prototypes), D features.
"""

import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]

ROWS = 16  # the least that tl.dot takes; more of them leaves multiprocessors idle at B = 256
FEATURES = 64  # of a step over D


def padded(columns: int) -> int:
    """COLS: tl.dot takes no less than 16."""
    return max(triton.next_power_of_2(columns), 16)


@triton.jit
def block(ptr, row, step_row, feature, step_feature, inside):  # type: ignore[no-untyped-def]
    """float32, 0 where not inside."""
    at = row.to(tl.int64)[:, None] * step_row + feature.to(tl.int64)[None, :] * step_feature
    return tl.load(ptr + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def cosines(  # type: ignore[no-untyped-def]
    x_ptr, x_row, x_col, w_ptr, w_row, w_col, row, in_rows, col, in_cols, D,
    TINY: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """-> cos (ROWS, COLS), 0 outside C; the norms (ROWS,), (COLS,). Rows and columns that are not in are not read: zeros."""
    dots = tl.zeros((ROWS, COLS), tl.float32)
    xx = tl.zeros((ROWS,), tl.float32)
    ww = tl.zeros((COLS,), tl.float32)
    for start in range(0, D, FEATURES):
        feature = start + tl.arange(0, FEATURES)
        x = block(x_ptr, row, x_row, feature, x_col, in_rows[:, None] & (feature < D)[None, :])
        w = block(w_ptr, col, w_row, feature, w_col, in_cols[:, None] & (feature < D)[None, :])
        dots += tl.dot(x, tl.trans(w), input_precision="ieee")
        xx += tl.sum(x * x, 1)
        ww += tl.sum(w * w, 1)
    x_norm, w_norm = tl.sqrt(xx), tl.sqrt(ww)
    x_scale, w_scale = 1.0 / tl.maximum(x_norm, TINY), 1.0 / tl.maximum(w_norm, TINY)
    cos = tl.where(in_cols[None, :], dots * x_scale[:, None] * w_scale[None, :], 0.0)
    return cos, x_norm, w_norm


@triton.jit
def store_row_gradient(  # type: ignore[no-untyped-def]
    g, cos, x_norm, w_norm, keep, dx_ptr, x_ptr, x_row, x_col, w_ptr, w_row, w_col, row, in_rows, col, in_cols, D,
    TINY: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """g: (ROWS, COLS), 0 outside C and where keep is not. dx: (B, D) contiguous; 0 where keep is not, whatever x holds there."""
    x_scale, w_scale = 1.0 / tl.maximum(x_norm, TINY), 1.0 / tl.maximum(w_norm, TINY)
    along = tl.sum(tl.where(keep[:, None], g * cos, 0.0), 1)
    along = tl.where(x_norm > TINY, along, 0.0) * x_scale  # below TINY the norm is a constant, as in F.normalize
    for start in range(0, D, FEATURES):
        feature = start + tl.arange(0, FEATURES)
        inside = in_rows[:, None] & (feature < D)[None, :]
        x = block(x_ptr, row, x_row, feature, x_col, inside & keep[:, None])
        w = block(w_ptr, col, w_row, feature, w_col, in_cols[:, None] & (feature < D)[None, :])
        dx = (tl.dot(g * w_scale[None, :], w, input_precision="ieee") - along[:, None] * x) * x_scale[:, None]
        tl.store(dx_ptr + row[:, None] * D + feature[None, :], tl.where(keep[:, None], dx, 0.0), mask=inside)
