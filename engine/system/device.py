"""The device and the number format that torch computes in, and why."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from affect.shards.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return a device by name; `auto`: the GPU where there is one. Raises InputError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"train.device: {name!r} is not a device; expected auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"train.device: {name!r} asked for, but torch sees no GPU; run affect doctor, or take train.device=auto")
    return device


def choose_precision(precision: str, device: torch.device) -> tuple[torch.dtype | None, str]:
    """Return the dtype of autocast, None for none, and the reason. precision: off, auto, bf16, fp16."""
    if precision == "off":
        return None, "asked for"
    if precision != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}[precision], "asked for"
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return (torch.bfloat16, "the GPU has it") if fast else (torch.float16, "the GPU has no bf16")
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.bfloat16, "the CPU has it") if fast else (None, "the CPU has no bf16")


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def describe(device: torch.device) -> str:
    """Name the GPU, or the threads and the instruction set of the CPU."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"
