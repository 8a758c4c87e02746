"""The ArcFace head and its loss in one: what callers see. Axes: B rows, C classes, D features."""

from torch import Tensor

from affect.kernels.arcface_inputs import ArcFaceInputs
from affect.kernels.checks import check_beside, check_classes, check_rows, wrong
from affect.kernels.dispatch import choose

OP = "arcface_head"
WIDEST = 64  # classes whose rows of weight a program can hold beside a block of x


def arcface_head(
    x: Tensor,
    weight: Tensor,
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
) -> tuple[Tensor, Tensor]:
    """`arcface_ce` of the cosines between the rows of x and those of weight, and how many rows it got right.

        cos_ij = x_i / max(|x_i|, 1e-12) . w_j / max(|w_j|, 1e-12)

    Args:
        x: (B, D) float32, float16 or bfloat16; any strides.   weight: (C, D), likewise. Both take gradients.
        target and all others: as of `arcface_ce`. An ignored row gives neither x nor weight a gradient, whatever it holds.
    Returns: loss () float32; hits () float32, a whole number: the rows that count (are not ignored) and whose cosine, without
        the margin, is largest at the top class of the target, of equals the first. hits has no gradient.
    Raises: ValueError on a shape, dtype, device or number outside the above; on values in tensors only under KERNELS_CHECK=1.
    Source: Deng et al., ArcFace, CVPR 2019, eq. 3; the second branch is insightface's.
    """
    check_rows(OP, "x", x)
    check_rows(OP, "weight", weight)
    check_classes(OP, "weight", weight, 0)
    if x.shape[1] != weight.shape[1]:
        raise wrong(OP, "weight", f"(C, {x.shape[1]}), as x is {tuple(x.shape)}", tuple(weight.shape))
    check_beside(OP, "weight", weight, x)
    inputs = ArcFaceInputs.checked(
        OP,
        x,
        len(weight),
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
    return choose(OP, x, len(weight), WIDEST).fn(x, weight, inputs)
