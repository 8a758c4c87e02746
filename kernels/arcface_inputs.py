"""The checked inputs of `arcface_ce` and `arcface_head` besides their rows, as one value from the contract to the kernel.

Axes: B rows, C classes.
"""

from typing import Any, NamedTuple

from torch import Tensor

from affect.kernels.checks import (
    check_constant,
    check_margin,
    check_margin_value,
    check_positive,
    check_reduction,
    check_share,
    check_target,
    check_target_values,
    check_weight_values,
    values_are_checked,
)
from affect.kernels.launch import of_target, optional, row_weights

SCHEMA = (  # the fields below, in order, as a torch operator takes them
    "Tensor target, Tensor? margin, Tensor? class_weight, Tensor? sample_weight, Tensor? divisor,"
    " float margin_rad, float scale, float label_smoothing, int ignore, bool mean"
)


class ArcFaceInputs(NamedTuple):
    target: Tensor  # (B,) int64 or (B, C)
    margin: Tensor | None  # () where the margin is a tensor; else margin_rad holds
    class_weight: Tensor | None  # (C,)
    sample_weight: Tensor | None  # (B,)
    divisor: Tensor | None  # () of the mean
    margin_rad: float
    scale: float
    label_smoothing: float
    ignore: int
    mean: bool

    @classmethod
    def checked(
        cls,
        op: str,
        rows: Tensor,
        classes: int,
        target: Tensor,
        *,
        scale: float,
        margin: float | Tensor,
        class_weight: Tensor | None,
        sample_weight: Tensor | None,
        label_smoothing: float,
        ignore: int,
        reduction: str,
        count: Tensor | None,
    ) -> "ArcFaceInputs":
        """rows: (B, anything), on the device that the others must be on. Raises: ValueError that names op and argument."""
        check_target(op, target, rows, classes)
        check_positive(op, "scale", scale)
        check_margin(op, margin, rows)
        check_share(op, "label_smoothing", label_smoothing)
        if class_weight is not None:
            check_constant(op, "class_weight", class_weight, (classes,), rows)
        if sample_weight is not None:
            check_constant(op, "sample_weight", sample_weight, (rows.shape[0],), rows)
        check_reduction(op, reduction, count, rows)
        if values_are_checked():
            check_margin_value(op, margin)
            check_weight_values(op, "class_weight", class_weight)
            check_weight_values(op, "sample_weight", sample_weight)
            check_target_values(op, target, classes, ignore, None if sample_weight is None else sample_weight != 0)
        tensor, number = (margin, 0.0) if isinstance(margin, Tensor) else (None, float(margin))
        return cls(
            target,
            tensor,
            class_weight,
            sample_weight,
            count,
            number,
            float(scale),
            float(label_smoothing),
            ignore,
            reduction == "mean",
        )

    @property
    def hard(self) -> bool:
        return self.target.ndim == 1

    def weights(self, rows: Tensor) -> Tensor:
        """(B,) the sample weights in the dtype of `rows`, 0 where a row is ignored."""
        return row_weights(self.target, self.sample_weight, self.ignore, rows)

    def pointers(self, stand_in: Tensor) -> tuple[Any, ...]:
        """The kernels' arguments from target_ptr to smoothing."""
        return (
            *of_target(self.target),
            *optional(self.class_weight, stand_in),
            *optional(self.sample_weight, stand_in),
            stand_in if self.margin is None else self.margin,
            self.margin_rad,
            self.scale,
            self.label_smoothing,
        )

    def constants(self) -> dict[str, Any]:
        """The kernels' arguments from HARD to IGNORE."""
        return {
            "HARD": self.hard,
            "CLASS_WEIGHT": self.class_weight is not None,
            "SAMPLE_WEIGHT": self.sample_weight is not None,
            "MARGIN_TENSOR": self.margin is not None,
            "IGNORE": self.ignore,
        }
