"""Which device and number format, and why."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from affect.engine.config.run import RunConfig, TrainConfig
from affect.shards.errors import InputError


def choose_device(name: str) -> torch.device:
    """`auto`: the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"train.device: {name!r} is not a device; expected auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"train.device: {name!r} asked for, but torch sees no GPU; run affect doctor, or take train.device=auto")
    return device


def choose_precision(config: TrainConfig, device: torch.device) -> tuple[torch.dtype | None, str]:
    """(dtype of autocast or None, the reason)."""
    if config.precision == "off":
        return None, "asked for"
    if config.precision != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}[config.precision], "asked for"
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return (torch.bfloat16, "the GPU has it") if fast else (torch.float16, "the GPU has no bf16")
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.bfloat16, "the CPU has it") if fast else (None, "the CPU has no bf16")


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"


def out_of_memory(run: RunConfig, device: torch.device) -> str:
    """What was tried, how much it took, and what fits."""
    pieces, size = run.optim.accumulate, run.model.image_size
    now = run.data.batch_size // pieces
    held = ""
    if device.type == "cuda":
        peak, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        held = f" (at most {peak / 2**30:.1f} of {total / 2**30:.1f} GiB were held)"
    return (
        f"{describe(device)}: out of memory with {now} pictures of {size} px at once{held}. The same update in smaller parts: "
        f"--set optim.accumulate={pieces * 2}. Fewer samples per update: --set data.batch_size={max(now // 2, 1)}, or auto"
    )
