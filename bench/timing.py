"""Time of a step on this device, and what it is compared with: a large copy, a kernel that does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[[], Iterable[Tensor]]  # its results stay on the device

FLUSHED = 2**28  # bytes, several times a GPU's L2 cache
COPIED = {"cuda": 2**30, "cpu": 2**27}  # bytes
WARM_UPS = 3  # before a CUDA graph is captured


@dataclass(frozen=True)
class Timing:
    """How long is measured: `seconds` a round of each step. One more round warms up and does not count."""

    seconds: float = 0.05
    rounds: int = 5


class Clock:
    """On a GPU a sample lies between two events, and the L2 cache holds nothing of the step; on a CPU it is wall-clock time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        # Read, not written: what is written would have to leave the cache while the step runs.
        self.flushed = torch.ones(FLUSHED // 4 if self.on_gpu else 0, device=device)

    def ms(self, step: Step, *, launches: bool) -> float:
        """launches: begin on an idle GPU, so that what Python takes to launch the kernels counts. Else they wait in its queue."""
        if not self.on_gpu:
            began = time.perf_counter()
            step()
            return 1e3 * (time.perf_counter() - began)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self.flushed.sum()
        if launches:
            torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def round(self, step: Step, seconds: float, *, launches: bool) -> list[float]:
        """Milliseconds of each step that begins within `seconds`, one at least."""
        times: list[float] = []
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            times.append(self.ms(step, launches=launches))
        return times


def captured(step: Step) -> tuple[Step, list[Tensor]]:
    """`step` as a CUDA graph: a replay, and the tensors that each replay writes anew. Raises RuntimeError where it cannot be."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = list(step())

    def replay() -> list[Tensor]:
        graph.replay()
        return results

    return replay, results


def peak_mib(step: Step) -> float:
    """GPU memory that a step takes beside what is there before it, its results included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def copy(device: torch.device) -> tuple[Step, int]:
    """`Tensor.copy_` of a large tensor, and the bytes that it reads and writes."""
    source = torch.ones(COPIED[device.type] // 4, device=device)
    target = torch.zeros_like(source)
    return lambda: [target.copy_(source)], 2 * COPIED[device.type]


def empty_kernel(device: torch.device) -> Step:
    """The launch of a Triton kernel that does nothing."""
    import triton  # type: ignore[import-untyped, unused-ignore]

    @triton.jit
    def nothing(pointer):  # type: ignore[no-untyped-def]
        pass

    operand = torch.zeros(1, device=device)

    def step() -> list[Tensor]:
        nothing[(1,)](operand)
        return []

    return step
