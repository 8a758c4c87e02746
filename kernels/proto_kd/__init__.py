"""Distillation through prototypes: what callers see. Axes: B rows, K prototypes, D features."""

import math

from torch import Tensor

from affect.kernels.checks import (
    check_constant,
    check_positive,
    check_reduction,
    check_rows,
    check_target_values,
    check_weight_values,
    values_are_checked,
    wrong,
)
from affect.kernels.dispatch import choose
from affect.kernels.proto_kd.reference import ProtoKDInputs

__all__ = ["one_hot_floor", "proto_kd"]

OP = "proto_kd"
WIDEST = 64  # prototypes that a program can hold beside a block of features


def proto_kd(
    features: Tensor,
    prototypes: Tensor,
    target: Tensor | None = None,
    *,
    teacher_features: Tensor | None = None,
    temperature: float = 0.9,
    teacher_temperature: float = 0.9,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    count: Tensor | None = None,
) -> Tensor:
    """KL divergence of where the features lie among the prototypes, by softmax of cosines, from a target distribution.

        s_ik = f_i / max(|f_i|, 1e-12) . P_k / max(|P_k|, 1e-12),   q^S = softmax(s / temperature)
        row = KL(q^T || q^S) = sum_k q^T_k (log q^T_k - log q^S_k),   0 log 0 = 0

    Cosines are bounded, so q^S never becomes one-hot and the loss never zero for a one-hot target: see `one_hot_floor`.

    Args:
        features: (B, D) float32, float16 or bfloat16 (float64 runs the reference); any strides. The only one with a gradient;
            that of a row of zeros is F.normalize's, some 1e12 times a direction: finite in float32, not in float16.
        prototypes: (K, D) float, K >= 2; more than 64 run the reference.
        target: (B, K) float: q^T.   teacher_features: (B, D) float, in place of target: q^T is then the softmax of their
            cosines to the same prototypes over teacher_temperature. One of the two.
        sample_weight: (B,) v. Rows with a weight of 0 add nothing and get no gradient, whatever they hold.
        reduction: "sum": sum_i v_i row_i. "mean": that sum over `count`, zero where the count is.
        count: () the mean's divisor, for a sum over all ranks and micro-batches. Default: sum_i v_i.
    Returns: () float32. NaN for a NaN in a row that counts.
    Raises: ValueError on a shape, dtype, device or number outside the above; on values in tensors only under KERNELS_CHECK=1.
    Source: NeuroGaze-Distill's proto_kd (mode cos, tau .90). How it makes its target is not public: both kinds here are choices.
    """
    check_rows(OP, "features", features)
    shape, width = tuple(features.shape), features.shape[1]
    if prototypes.ndim != 2 or len(prototypes) < 2 or prototypes.shape[1] != width:
        raise wrong(OP, "prototypes", f"(K, {width}) with K >= 2, as features is {shape}", tuple(prototypes.shape))
    check_constant(OP, "prototypes", prototypes, tuple(prototypes.shape), features)
    if (target is None) == (teacher_features is None):
        raise wrong(OP, "target", "either it or teacher_features", "neither" if target is None else "both")
    if target is not None:
        check_constant(OP, "target", target, (len(features), len(prototypes)), features)
    if teacher_features is not None:
        check_constant(OP, "teacher_features", teacher_features, shape, features)
    check_positive(OP, "temperature", temperature)
    check_positive(OP, "teacher_temperature", teacher_temperature)
    if sample_weight is not None:
        check_constant(OP, "sample_weight", sample_weight, shape[:1], features)
    check_reduction(OP, reduction, count, features)
    if values_are_checked():
        check_weight_values(OP, "sample_weight", sample_weight)
        if target is not None:
            check_target_values(OP, target, len(prototypes), -1, None if sample_weight is None else sample_weight != 0)
    inputs = ProtoKDInputs(
        target, teacher_features, sample_weight, count, float(temperature), float(teacher_temperature), reduction == "mean"
    )
    return choose(OP, features, len(prototypes), WIDEST).fn(features, prototypes, inputs)


def one_hot_floor(prototypes: int, temperature: float) -> float:
    """The least that `proto_kd` of a row with a one-hot target can be: -log(e^(2 / t) / (e^(2 / t) + K - 1)).

    q^S is largest where its own cosine is 1 and all others are -1; prototypes that are not opposite keep the loss further up.
    For other targets this is no bound: with the teacher's own temperature, a student that equals the teacher has a loss of 0.
    """
    if prototypes < 2:
        raise wrong("one_hot_floor", "prototypes", "2 or more", prototypes)
    check_positive("one_hot_floor", "temperature", temperature)
    return math.log1p((prototypes - 1) * math.exp(-2 / temperature))
