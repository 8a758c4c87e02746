"""The message where a training step does not fit into memory."""

from __future__ import annotations

import torch

from affect.engine.config.run import RunConfig
from affect.engine.system.device import describe


def out_of_memory(run: RunConfig, device: torch.device) -> str:
    """Return what was tried, how much memory it took, and what would fit."""
    pieces, size = run.optim.accumulate, run.model.image_size
    now = run.data.batch_size // pieces
    used = ""
    if device.type == "cuda":
        peak, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        used = f" (at most {peak / 2**30:.1f} of {total / 2**30:.1f} GiB were in use)"
    return (
        f"{describe(device)}: out of memory with {now} pictures of {size} px at once{used}. The same update in smaller parts: "
        f"--set optim.accumulate={pieces * 2}. Fewer samples per update: --set data.batch_size={max(now // 2, 1)}, or auto"
    )
