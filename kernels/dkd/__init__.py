"""Decoupled knowledge distillation: what callers see. Axes: B rows, C classes, N rows of a table."""

from torch import Tensor

from affect.kernels.checks import check_classes, check_rows
from affect.kernels.dispatch import choose
from affect.kernels.dkd.inputs import DKDInputs

OP = "dkd"


def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float | None = 8.0,
    ce: float = 1.0,
    weight: float | Tensor = 1.0,
    rows: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore: int = -1,
    reduction: str = "mean",
    count: Tensor | None = None,
) -> Tensor:
    """Cross-entropy plus distillation with the target class and the others weighted apart.

        p = softmax(z / T),   b = p_y,   r_j = p_j / (1 - b) for j != y;   S student, T teacher
        TCKD = b^T log(b^T / b^S) + (1 - b^T) log((1 - b^T) / (1 - b^S)),   NCKD = sum_(j != y) r^T_j log(r^T_j / r^S_j)
        row = ce * cross_entropy(z^S, target) + weight * T^2 * (alpha * TCKD + beta * NCKD)

    The official loss is the defaults with weight = min(epoch / 20, 1). The reference recipe (docs/recipes/student.md) takes T 2,
    beta 4, ce .5, weight .5.

    Args:
        student: (B, C) logits, float32, float16 or bfloat16 (float64 runs the reference); any strides. The only one with a
            gradient.
        teacher: (B, C) logits of any float dtype; or with rows a table (N, C) of them, gathered inside the kernel.
        target: (B,) int64 in [0, C) or `ignore`; or (B, C) distributions, float, with y the top class, of equals the first:
            the cross-entropy then runs against the whole distribution.
        temperature: > 0.   alpha, beta, ce: >= 0.   beta None: plain distillation, alpha * T^2 * KL(p^T || p^S), which is
            NCKD weighted by alpha * (1 - b^T) row by row.
        weight: >= 0, of the distillation; as a () tensor a new value neither recompiles nor waits.
        rows: (B,) int64 in [0, N): the table's row of each sample.   sample_weight: (B,) v.
        ignore: rows with this label, or with a sample weight of 0, add nothing and get no gradient, whatever they hold.
        reduction: "sum": sum_i v_i row_i. "mean": that sum over `count`, zero where the count is.
        count: () the mean's divisor, for a sum over all ranks and micro-batches. Default: sum_i v_i of the rows not ignored.
    Returns: () float32. NaN for a NaN in a row that counts, and for a label outside [0, C) or a number in rows outside [0, N):
        neither is read beforehand, and nothing outside the table is read.
    Raises: ValueError on a shape, dtype, device or number outside the above; on values in tensors only under KERNELS_CHECK=1.
    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, section 3; the weighting is mdistiller's.
    """
    check_rows(OP, "student", student)
    check_classes(OP, "student", student, 1)
    inputs = DKDInputs.checked(
        OP,
        student,
        teacher,
        target,
        temperature=temperature,
        alpha=alpha,
        beta=beta,
        ce=ce,
        weight=weight,
        rows=rows,
        sample_weight=sample_weight,
        ignore=ignore,
        reduction=reduction,
        count=count,
    )
    return choose(OP, student).fn(student, inputs)
