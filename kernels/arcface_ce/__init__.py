"""ArcFace cross-entropy: what callers see. Axes: B rows, C classes."""

from torch import Tensor

from affect.kernels.arcface_inputs import ArcFaceInputs
from affect.kernels.checks import check_classes, check_rows
from affect.kernels.dispatch import choose

OP = "arcface_ce"


def arcface_ce(
    cos: Tensor,
    target: Tensor,
    *,
    scale: float,
    margin: float | Tensor,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore: int = -1,
    reduction: str = "mean",
    count: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of scaled cosines with an angular margin on each row's class; torch's own at margin 0 and scale 1.

        z_j = scale * cos_j,   z_y = scale * psi(cos_y)
        psi(c) = c cos m - sqrt(1 - c^2) sin m where c > -cos m, else c - m sin m, so it keeps falling past theta = pi - m
        row = -sum_j w_j q_j log softmax(z)_j,   q = (1 - label_smoothing) target + label_smoothing / C

    Args:
        cos: (B, C) cosines, float32, float16 or bfloat16 (float64 runs the reference); any strides. The only one with a gradient.
        target: (B,) int64 in [0, C) or `ignore`; or (B, C) distributions, float, with y the top class, of equals the first.
        margin: radians in [0, pi / 2); as a () tensor a new value neither recompiles nor waits.
        class_weight: (C,) w.   sample_weight: (B,) v.
        ignore: rows with this label, or with a sample weight of 0, add nothing and get no gradient, whatever they hold.
        reduction: "sum": sum_i v_i row_i. "mean": that sum over `count`, zero where the count is.
        count: () the mean's divisor, for a sum over all ranks and micro-batches. Default: torch's own, of these rows:
            sum_i v_i w_(y_i) for labels, sum_i v_i for distributions.
    Returns: () float32. NaN for a NaN in a row that counts, and for a label outside [0, C): labels are not read beforehand.
    Raises: ValueError on a shape, dtype, device or number outside the above; on values in tensors only under KERNELS_CHECK=1.
    Source: Deng et al., ArcFace, CVPR 2019, eq. 3; the second branch is insightface's.
    """
    check_rows(OP, "cos", cos)
    check_classes(OP, "cos", cos, 1)
    inputs = ArcFaceInputs.checked(
        OP,
        cos,
        cos.shape[1],
        target,
        scale=scale,
        margin=margin,
        class_weight=class_weight,
        sample_weight=sample_weight,
        label_smoothing=label_smoothing,
        ignore=ignore,
        reduction=reduction,
        count=count,
    )
    return choose(OP, cos).fn(cos, inputs)
