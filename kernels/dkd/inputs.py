"""The checked inputs of `dkd` besides the student, as one value from the contract to the kernel.

Axes: B rows, C classes, N rows of a table.
"""

from typing import Any, NamedTuple

from torch import Tensor

from affect.kernels.checks import (
    check_constant,
    check_index,
    check_index_values,
    check_not_negative,
    check_positive,
    check_reduction,
    check_target,
    check_target_values,
    check_weight_values,
    values_are_checked,
    wrong,
)
from affect.kernels.launch import of_target, optional, row_weights

SCHEMA = (  # the fields below, in order, as a torch operator takes them
    "Tensor teacher, Tensor target, Tensor? rows, Tensor? weight, Tensor? sample_weight, Tensor? divisor,"
    " float weight_number, float temperature, float alpha, float? beta, float ce, int ignore, bool mean"
)
TENSORS = 6  # the fields that come first


class DKDInputs(NamedTuple):
    teacher: Tensor  # (B, C), or (N, C) with rows
    target: Tensor  # (B,) int64 or (B, C)
    rows: Tensor | None  # (B,) int64
    weight: Tensor | None  # () where the weight is a tensor; else weight_number holds
    sample_weight: Tensor | None  # (B,)
    divisor: Tensor | None  # () of the mean
    weight_number: float
    temperature: float
    alpha: float
    beta: float | None  # None: alpha (1 - b^T) of each row
    ce: float
    ignore: int
    mean: bool

    @classmethod
    def checked(
        cls,
        op: str,
        student: Tensor,
        teacher: Tensor,
        target: Tensor,
        *,
        temperature: float,
        alpha: float,
        beta: float | None,
        ce: float,
        weight: float | Tensor,
        rows: Tensor | None,
        sample_weight: Tensor | None,
        ignore: int,
        reduction: str,
        count: Tensor | None,
    ) -> "DKDInputs":
        """student: (B, C), on the device that the others must be on. Raises: ValueError that names op and argument."""
        B, C = student.shape
        if rows is not None:
            if teacher.ndim != 2 or teacher.shape[0] < 1 or teacher.shape[1] != C:
                raise wrong(op, "teacher", f"a table (N, {C}), as there are rows", tuple(teacher.shape))
            check_index(op, "rows", rows, student)
        check_constant(op, "teacher", teacher, (B, C) if rows is None else tuple(teacher.shape), student)
        check_target(op, target, student, C)
        check_positive(op, "temperature", temperature)
        for name, number in (("alpha", alpha), ("beta", beta), ("ce", ce)):
            if number is not None:
                check_not_negative(op, name, number)
        if isinstance(weight, Tensor):
            check_constant(op, "weight", weight, (), student)
        else:
            check_not_negative(op, "weight", weight)
        if sample_weight is not None:
            check_constant(op, "sample_weight", sample_weight, (B,), student)
        check_reduction(op, reduction, count, student)
        tensor, value = (weight, 0.0) if isinstance(weight, Tensor) else (None, float(weight))
        inputs = cls(
            teacher,
            target,
            rows,
            tensor,
            sample_weight,
            count,
            value,
            float(temperature),
            float(alpha),
            None if beta is None else float(beta),
            float(ce),
            ignore,
            reduction == "mean",
        )
        if values_are_checked():
            inputs.check_values(op, student)
        return inputs

    def check_values(self, op: str, student: Tensor) -> None:
        """Waits for the GPU."""
        check_weight_values(op, "weight", self.weight)
        check_weight_values(op, "sample_weight", self.sample_weight)
        keep = self.weights(student.float()) != 0
        check_target_values(op, self.target, student.shape[1], self.ignore, keep)
        if self.rows is not None:
            check_index_values(op, "rows", self.rows, len(self.teacher), keep)

    @property
    def hard(self) -> bool:
        return self.target.ndim == 1

    def weights(self, rows: Tensor) -> Tensor:
        """(B,) the sample weights in the dtype of `rows`, 0 where a row is ignored."""
        return row_weights(self.target, self.sample_weight, self.ignore, rows)

    def pointers(self, stand_in: Tensor) -> tuple[Any, ...]:
        """The kernel's arguments from teacher_ptr to ce."""
        return (
            self.teacher,
            self.teacher.stride(0),
            self.teacher.stride(1),
            *optional(self.rows, stand_in),
            len(self.teacher),
            *of_target(self.target),
            *optional(self.sample_weight, stand_in),
            stand_in if self.weight is None else self.weight,
            self.weight_number,
            self.temperature,
            self.alpha,
            0.0 if self.beta is None else self.beta,
            self.ce,
        )

    def constants(self) -> dict[str, Any]:
        """The kernel's arguments from HARD to IGNORE."""
        return {
            "HARD": self.hard,
            "TABLE": self.rows is not None,
            "SAMPLE_WEIGHT": self.sample_weight is not None,
            "WEIGHT_TENSOR": self.weight is not None,
            "PLAIN": self.beta is None,
            "WARM": self.temperature != 1,
            "IGNORE": self.ignore,
        }
