"""Picks the implementation of an op: Triton on CUDA tensors where it was the fastest measured, else the reference.

`KERNELS=reference` and `KERNELS=triton` in the environment override.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from affect.kernels.checks import wrong

# Ops whose kernel was the fastest in `affect bench kernels` on a GPU; none has run on one yet.
FASTEST: frozenset[str] = frozenset()
WIDEST = 16_384  # columns of a row that one program holds on chip


@dataclass(frozen=True)
class Choice:
    """fn: the implementation, called like the op. provider: "triton" or "reference". reason: printed when training starts."""

    fn: Callable[..., Any]
    provider: str
    reason: str


CHOSEN: dict[tuple[str, str], Choice] = {}  # (op, provider and reason) -> the choice, once made


def choose(op: str, tensor: Tensor, classes: int | None = None, widest: int = WIDEST) -> Choice:
    """The implementation of `op` for tensors like this one, with this many classes (default: as (B, C) has).

    Raises: ValueError where KERNELS asks for what cannot run here.
    """
    wide = widest if (tensor.shape[1] if classes is None else classes) > widest else 0
    return CHOSEN[op, _choose(op, tensor.device.type, tensor.dtype == torch.float64, wide)]


def _choose(op: str, device: str, double: bool, wide: int) -> str:
    """The key's second part: torch.compile takes a string for a constant, but not a function."""
    asked, interpreted = os.environ.get("KERNELS", ""), os.environ.get("TRITON_INTERPRET", "0")
    return _chosen(op, device, double, wide, asked, interpreted.lower() in ("1", "true", "yes", "on"))


# torch.compiler.assume_constant_result does this too, but imports torch._dynamo: seconds that every start would pay.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _chosen(op: str, device: str, double: bool, wide: int, asked: str, interpreted: bool) -> str:
    provider, reason = _provider(op, device, double, wide, asked, interpreted)
    kind = "fused" if provider == "triton" else "reference"
    fn = getattr(import_module(f"affect.kernels.{op}.{kind}"), f"{op}_{kind}")  # only now: fused.py imports Triton
    CHOSEN[op, f"{provider}: {reason}"] = Choice(fn, provider, reason)
    return f"{provider}: {reason}"


def _provider(op: str, device: str, double: bool, wide: int, asked: str, interpreted: bool) -> tuple[str, str]:
    if asked not in ("", "reference", "triton"):
        raise wrong("environment", "KERNELS", "reference or triton", repr(asked))
    if asked == "reference":
        return "reference", "KERNELS=reference"
    if double:
        return "reference", "float64"
    if wide:
        return "reference", f"more than {wide} classes"
    if asked == "triton":
        if not find_spec("triton"):
            raise wrong("environment", "KERNELS=triton", "triton installed", "none; pip install triton, or KERNELS=reference")
        if device == "cpu" and not interpreted:
            raise wrong(
                "environment",
                "KERNELS=triton",
                "a CUDA tensor",
                "a cpu tensor; set TRITON_INTERPRET=1 before Python starts to run the kernels in Triton's interpreter (slow),"
                " or KERNELS=reference",
            )
        return "triton", "KERNELS=triton" + (", interpreted" if interpreted else "")
    if device != "cuda":
        return "reference", f"{device} tensor"
    if not find_spec("triton"):
        return "reference", "triton not installed"
    if op not in FASTEST:
        return "reference", "its kernel has not been timed on a GPU; KERNELS=triton takes it"
    return "triton", "cuda tensor, the fastest measured"
