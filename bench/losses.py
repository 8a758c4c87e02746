"""The cases of `bench/kernels.py`: which losses, on what operands. Axes: B rows, C classes, D features, K prototypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affect import kernels
from affect.bench.timing import Step
from affect.shards.errors import InputError

SEED = 1337
UPSTREAM = 0.37  # 1 would hide a lost factor
MOST_ON_CPU = 256  # rows of a case that a CPU times, too
# A few times those of tests/kernels/tolerances.py: float32 added in another order, and one rounding to the input's dtype.
TOLERANCE = 2e-5  # of the largest value
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-8}


class Draw:
    """Random operands of a case, the same in every process."""

    def __init__(self, sizes: dict[str, int], dtype: torch.dtype, device: torch.device) -> None:
        self.sizes, self.dtype, self.device = sizes, dtype, device
        self.random = torch.Generator(device).manual_seed(SEED)

    def normal(self, axes: str) -> Tensor:
        return torch.randn([self.sizes[axis] for axis in axes], generator=self.random, device=self.device).to(self.dtype)

    def cosines(self) -> Tensor:
        """(B, C), short of +-1, where the slope of the margin has no end."""
        shape = self.sizes["B"], self.sizes["C"]
        return (1.96 * torch.rand(shape, generator=self.random, device=self.device) - 0.98).to(self.dtype)

    def below(self, axis: str) -> Tensor:
        """(B,) int64."""
        return torch.randint(self.sizes[axis], (self.sizes["B"],), generator=self.random, device=self.device)

    def margin(self) -> Tensor:
        """A tensor, as training has it: a number would have to be copied to the GPU, which a CUDA graph does not allow."""
        return torch.tensor(0.35, device=self.device)


@dataclass(frozen=True)
class Op:
    """operands: tensors by argument name, each read. wanted: which of them get a gradient. options: the other arguments."""

    operands: Callable[[Draw], dict[str, Tensor]]
    wanted: tuple[str, ...]
    options: dict[str, Any]


def _arcface_head(draw: Draw) -> dict[str, Tensor]:
    return {"x": draw.normal("BD"), "weight": draw.normal("CD"), "target": draw.below("C"), "margin": draw.margin()}


def _arcface_ce(draw: Draw) -> dict[str, Tensor]:
    return {"cos": draw.cosines(), "target": draw.below("C"), "margin": draw.margin()}


def _dkd(draw: Draw) -> dict[str, Tensor]:
    return {"student": 3 * draw.normal("BC"), "teacher": 3 * draw.normal("BC"), "target": draw.below("C")}


def _proto_kd(draw: Draw) -> dict[str, Tensor]:
    """Each row near one prototype: far from all, the loss would be nothing but rounding."""
    prototypes = draw.normal("KD")
    near = {name: 2 * prototypes[draw.below("K")] + draw.normal("BD") for name in ("features", "teacher_features")}
    return {**near, "prototypes": prototypes}


OPS = {
    "arcface_head": Op(_arcface_head, ("x", "weight"), {"scale": 30.0}),
    "arcface_ce": Op(_arcface_ce, ("cos",), {"scale": 30.0}),
    "dkd": Op(_dkd, ("student",), {"temperature": 4.0, "alpha": 1.0, "beta": 8.0, "ce": 1.0}),
    "proto_kd": Op(_proto_kd, ("features",), {"target": None, "temperature": 0.9, "teacher_temperature": 0.9}),
}


@dataclass(frozen=True)
class Case:
    op: str
    sizes: dict[str, int]
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.op} {' '.join(f'{axis} {size}' for axis, size in self.sizes.items())} {self.dtype_name}"

    def operands(self, device: torch.device) -> dict[str, Tensor]:
        return self._wanted(OPS[self.op].operands(Draw(self.sizes, self.dtype, device)))

    def in_float64(self, operands: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same, already rounded, numbers."""
        wide = {name: value.detach().double() if value.is_floating_point() else value for name, value in operands.items()}
        return self._wanted(wide)

    def _wanted(self, operands: dict[str, Tensor]) -> dict[str, Tensor]:
        for name in OPS[self.op].wanted:
            operands[name].requires_grad_()
        return operands

    def step(self, operands: dict[str, Tensor], *, compiled: bool = False) -> Step:
        """The loss and its gradients; which kernels run is chosen at each call, or at the first one where it is compiled."""
        op, options = getattr(kernels, self.op), OPS[self.op].options

        def forward(operands: dict[str, Tensor]) -> Tensor:
            loss = op(**operands, **options)
            return loss[0] if isinstance(loss, tuple) else loss  # the head counts hits, too

        wanted = [operands[name] for name in OPS[self.op].wanted]
        wide = any(value.dtype == torch.float64 for value in wanted)
        upstream = torch.tensor(UPSTREAM, dtype=torch.float64 if wide else torch.float32, device=wanted[0].device)
        if compiled:
            torch.compiler.reset()  # else the second shape would be compiled for all shapes, and the ninth not at all
            forward = torch.compile(forward, fullgraph=True, dynamic=False)

        def step() -> list[Tensor]:
            loss = forward(operands)
            return [loss.detach(), *torch.autograd.grad(loss, wanted, upstream)]

        return step

    def traffic(self, operands: dict[str, Tensor]) -> int:
        """The fewest bytes: each operand is read once, each gradient written once."""
        wanted = [operands[name] for name in OPS[self.op].wanted]
        return sum(value.numel() * value.element_size() for value in [*operands.values(), *wanted])


FLOAT, BFLOAT = torch.float32, torch.bfloat16
CASES = [
    *(Case("arcface_head", {"B": B, "C": C, "D": 512}, BFLOAT) for C in (7, 14) for B in (64, 256, 1024, 4096)),
    *(Case("arcface_head", {"B": B, "C": 7, "D": 512}, FLOAT) for B in (256, 4096)),
    *(Case("arcface_ce", {"B": B, "C": C}, FLOAT) for C in (8, 1000) for B in (256, 65_536)),
    Case("arcface_ce", {"B": 65_536, "C": 1000}, BFLOAT),
    *(Case("dkd", {"B": B, "C": C}, dtype) for B, C in ((256, 7), (65_536, 1000)) for dtype in (BFLOAT, FLOAT)),
    *(Case("proto_kd", {"B": B, "D": 512, "K": 25}, dtype) for B in (256, 4096) for dtype in (BFLOAT, FLOAT)),
]


def cases(ops: Iterable[str], device: torch.device) -> list[Case]:
    """Return the cases; on a CPU the small ones."""
    most = MOST_ON_CPU if device.type == "cpu" else np.inf
    return [case for case in CASES if case.op in ops and case.sizes["B"] <= most]


def compare(case: Case, name: str, got: Iterable[Tensor], want: Iterable[Tensor]) -> float:
    """The largest deviation, of the largest value wanted. Raises InputError where it is more than rounding."""
    worst = 0.0
    for part, value, right in zip(("loss", *(f"d{name}" for name in OPS[case.op].wanted)), got, want, strict=True):
        difference, largest = (value.double() - right).abs(), right.abs().max()
        rounding = ROUNDING[case.dtype] if value.ndim else 0.0
        off = float(difference.max() / largest)
        if not bool((difference <= rounding * right.abs() + TOLERANCE * largest).all()):  # as a NaN is not
            raise InputError(
                f"bench: {case}: {name} computes something else: its {part} is {off:.1e} of the largest value off float64's, "
                f"at most {TOLERANCE:.0e}{f' and a rounding of {rounding:.0e}' if rounding else ''} expected; "
                "the case was not timed. Mend it: pytest tests/kernels"
            )
        worst = max(worst, off)
    return worst
