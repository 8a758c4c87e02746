"""`data.batch_size: auto`: as many samples per update as the GPU's memory holds."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from affect.engine.config.data import AUTO
from affect.engine.config.run import RunConfig
from affect.engine.models.build import build_model
from affect.engine.runs.files import CONFIG
from affect.engine.system.device import autocast, choose_device, choose_precision
from affect.engine.system.distributed import world_size
from affect.engine.system.log import say
from affect.engine.tasks.spec import TaskSpec
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout

ON_CPU = 64
FIRST, LAST = 16, 4096
SHARE = 0.8  # of the memory; the rest is for what varies


def with_batch_size(run: RunConfig, task: TaskSpec, layout: TargetLayout, resumed: Path | None) -> RunConfig:
    """The run with a number in the place of auto; the choice is logged. A resumed run has the number it began with."""
    if run.data.batch_size != AUTO:
        return run
    if world_size() > 1:
        raise InputError("data.batch_size: auto is for one process; with several give a number, of all of them together")
    config = resumed / CONFIG if resumed else None
    if config and config.is_file():
        size, reason = int(yaml.safe_load(config.read_text())["data"]["batch_size"]), "as when the run began"
    else:
        size, reason = _choose(run, task, layout)
    say(f"data.batch_size: auto: {size} samples per update ({reason})")
    return run.model_copy(update={"data": run.data.model_copy(update={"batch_size": size})})


def _choose(run: RunConfig, task: TaskSpec, layout: TargetLayout) -> tuple[int, str]:
    device, pieces = choose_device(run.train.device), run.optim.accumulate
    if device.type != "cuda":
        return -(-ON_CPU // pieces) * pieces, "on a CPU memory is not the limit"
    total = torch.cuda.get_device_properties(device).total_memory
    fits, size = 0, FIRST
    while size <= LAST:
        peak = probe(run, task, layout, device, size)
        if peak is None or peak > SHARE * total:
            break
        fits, size = size, size * 2
    if not fits:
        return pieces, f"not even {FIRST} samples at once fit"
    return fits * pieces, f"{fits} at once fill at most {100 * SHARE:.0f} % of {total / 2**30:.0f} GiB"


def probe(run: RunConfig, task: TaskSpec, layout: TargetLayout, device: torch.device, size: int) -> int | None:
    """Bytes that an uncompiled step on `size` pictures or clips holds at most; None where it runs out of memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        model = build_model(run.model_copy(update={"model": run.model.model_copy(update={"pretrained": False})}), task, layout)
        model = model.to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters())
        side, frames = run.model.image_size, (run.data.clip.frames,) if run.data.clip else ()
        with autocast(choose_precision(run.train.precision, device)[0], device):
            inputs = torch.zeros(size, *frames, side, side, 3, dtype=torch.uint8, device=device)
            signals = [torch.zeros(size, len(run.data.side), device=device)] if run.data.side else []
            _, outputs = model(inputs, *signals)
        torch.stack([logits.float().square().mean() for logits in outputs.values()]).sum().backward()
        optimizer.step()
        return torch.cuda.max_memory_allocated(device)
    except torch.OutOfMemoryError:
        return None
