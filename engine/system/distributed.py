"""Several processes as one: `torchrun --nproc-per-node N -m affect.engine.cli.main train ...`; or one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from affect.engine.system.device import choose_device


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of `world`, and its device. The first one writes files and messages."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """Sum over all processes in place; the host does not wait for it."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it."""
        return any(self.gather(wish)) if self.world > 1 else wish

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients averaged over all processes; on GPUs batch norms see the whole batch, too."""
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def mean_gradients(self, module: nn.Module) -> None:
        """Average the gradients of a module that `parallel` does not wrap."""
        if self.world > 1:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    self.add(parameter.grad)
                    parameter.grad /= self.world

    def quiet(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around all micro-batches but the last, whose backward pass exchanges the gradients."""
        return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()


def first_process() -> bool:
    """Whether this process writes files and messages, before or after the others are joined."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun has started; or yield this one alone."""
    world = world_size()
    if world == 1:
        yield Ranks(choose_device(device))
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(chosen, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
