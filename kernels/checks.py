"""Checks of the arguments of every op. An error names op and argument, what was expected and what was found.

Shapes, dtypes, devices and Python numbers are always checked. The values in tensors are read only under KERNELS_CHECK=1,
since reading them waits for the GPU.
"""

import math
import os

import torch
from torch import Tensor

ROWS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SUM_SLACK = 1e-2  # a distribution in bfloat16 sums to 1 within this


def wrong(op: str, argument: str, expected: str, actual: object) -> ValueError:
    return ValueError(f"{op}: {argument}: expected {expected}, found {actual}")


def check_rows(op: str, name: str, rows: Tensor) -> None:
    """(B, anything) float with B >= 1."""
    if rows.ndim != 2:
        raise wrong(op, name, "two axes", tuple(rows.shape))
    if rows.dtype not in ROWS:
        raise wrong(op, name, "float32, float16, bfloat16 or float64", rows.dtype)
    if rows.shape[0] < 1:
        raise wrong(op, name, "at least one row", tuple(rows.shape))


def check_classes(op: str, name: str, rows: Tensor, axis: int) -> None:
    if rows.shape[axis] < 2:
        raise wrong(op, name, "at least two classes", tuple(rows.shape))


def check_target(op: str, target: Tensor, rows: Tensor, classes: int) -> None:
    """(B,) int64 labels or (B, C) float distributions, for B rows."""
    shape = (rows.shape[0], classes)
    if target.shape not in (shape[:1], shape):
        raise wrong(op, "target", f"({shape[0]},) labels or {shape} distributions", tuple(target.shape))
    if target.ndim == 1 and target.dtype != torch.int64:
        raise wrong(op, "target", "int64 labels", target.dtype)
    if target.ndim == 2 and not target.dtype.is_floating_point:
        raise wrong(op, "target", "distributions of a float dtype", target.dtype)
    _check_constant_beside(op, "target", target, rows)


def check_constant(op: str, name: str, value: Tensor, shape: tuple[int, ...], rows: Tensor) -> None:
    """A float tensor of this shape that takes no gradient."""
    if value.shape != shape:
        raise wrong(op, name, str(tuple(shape)), tuple(value.shape))
    if not value.dtype.is_floating_point:
        raise wrong(op, name, "a float dtype", value.dtype)
    _check_constant_beside(op, name, value, rows)


def _check_constant_beside(op: str, name: str, value: Tensor, rows: Tensor) -> None:
    check_beside(op, name, value, rows)
    if value.requires_grad:
        raise wrong(op, name, "no gradient wanted for it (detach it)", "requires_grad=True")


def check_beside(op: str, name: str, value: Tensor, rows: Tensor) -> None:
    if value.device != rows.device:
        raise wrong(op, name, f"a tensor on {rows.device}, as the rows", value.device)


def check_positive(op: str, name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise wrong(op, name, "a finite number > 0", value)


def check_not_negative(op: str, name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise wrong(op, name, "a finite number >= 0", value)


def check_index(op: str, name: str, index: Tensor, rows: Tensor) -> None:
    """(B,) int64: for each row the number of its row in a table."""
    if index.shape != rows.shape[:1]:
        raise wrong(op, name, str(tuple(rows.shape[:1])), tuple(index.shape))
    if index.dtype != torch.int64:
        raise wrong(op, name, "int64", index.dtype)
    check_beside(op, name, index, rows)


def check_margin(op: str, margin: float | Tensor, rows: Tensor) -> None:
    """Check a margin: radians in [0, pi / 2); a tensor's value is not read."""
    if isinstance(margin, Tensor):
        check_constant(op, "margin", margin, (), rows)
    elif not 0 <= margin < math.pi / 2:
        raise wrong(op, "margin", "radians in [0, pi / 2)", margin)


def check_share(op: str, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise wrong(op, name, "a number in [0, 1]", value)


def values_are_checked() -> bool:
    return not torch.compiler.is_compiling() and os.environ.get("KERNELS_CHECK") == "1"


def check_target_values(op: str, target: Tensor, classes: int, ignore: int, keep: Tensor | None) -> None:
    """Labels in [0, classes) or `ignore`; distributions not negative with a sum of 1. Waits for the GPU."""
    if target.ndim == 1:
        bad = ((target < 0) | (target >= classes)) & (target != ignore)
    else:
        bad = ~((target >= 0).all(1) & ((target.double().sum(1) - 1).abs() <= SUM_SLACK))
    if keep is not None:
        bad &= keep
    if bad.any():
        row = int(bad.nonzero()[0])
        expected = f"labels in [0, {classes}) or {ignore}" if target.ndim == 1 else "distributions: not negative, with a sum of 1"
        raise wrong(op, "target", expected, f"{target[row].tolist()} in row {row}")


def check_index_values(op: str, name: str, index: Tensor, size: int, keep: Tensor) -> None:
    """Check that numbers are in [0, size) where keep is. Waits for the GPU."""
    bad = ((index < 0) | (index >= size)) & keep
    if bad.any():
        row = int(bad.nonzero()[0])
        raise wrong(op, name, f"numbers in [0, {size})", f"{index[row].item()} in row {row}")


def check_margin_value(op: str, margin: float | Tensor) -> None:
    """Waits for the GPU."""
    if isinstance(margin, Tensor) and not 0 <= margin.item() < math.pi / 2:
        raise wrong(op, "margin", "radians in [0, pi / 2)", margin.item())


def check_weight_values(op: str, name: str, weight: Tensor | None) -> None:
    """Waits for the GPU."""
    if weight is not None and not bool((weight >= 0).all()):
        raise wrong(op, name, "no negative and no NaN", weight.min().item())


def check_reduction(op: str, reduction: str, count: Tensor | None, rows: Tensor) -> None:
    if reduction not in ("sum", "mean"):
        raise wrong(op, "reduction", "'sum' or 'mean'", repr(reduction))
    if count is not None:
        check_constant(op, "count", count, (), rows)
        if reduction == "sum":
            raise wrong(op, "count", "none with reduction='sum'", "a tensor")
