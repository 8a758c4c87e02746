"""The sums of an epoch, on the device, so that adding waits for nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from affect.engine.system.distributed import Ranks


@dataclass
class Meter:
    """sums: part of the loss -> its sum over the steps. bad: part -> the first step in which it was not finite, -1 for none."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # seconds of `seconds` in which the loop had no batch
    sums: dict[str, Any] = field(default_factory=dict)
    bad: dict[str, Any] = field(default_factory=dict)

    def add(self, step: int, parts: dict[str, Tensor], seconds: float, waited: float) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            first = self.bad.get(name)
            first = value.new_full((), -1) if first is None else first
            self.bad[name] = torch.where((first < 0) & ~value.isfinite(), step, first)
        self.steps, self.seconds, self.waited = self.steps + 1, self.seconds + seconds, self.waited + waited

    def mean(self, name: str = "total") -> float:
        """Return the mean over steps; of this process's share where there are several."""
        return float(self.sums[name]) / max(self.steps, 1)

    def first_bad(self) -> tuple[int, str] | None:
        """(step, part) that was not finite, the earliest; of those of one step the first in the order of computation."""
        steps = [(int(first), name) for name, first in self.bad.items()]
        return min((pair for pair in steps if pair[0] >= 0), key=lambda pair: pair[0], default=None)

    @property
    def waiting_share(self) -> float:
        return self.waited / max(self.seconds, 1e-9)

    def over_all(self, ranks: Ranks) -> Meter:
        """Sums over all processes."""
        if ranks.world == 1 or not self.sums:
            return self
        sums = ranks.add(torch.stack([torch.as_tensor(value, device=ranks.device) for value in self.sums.values()]))
        return Meter(self.steps, self.seconds, self.waited, dict(zip(self.sums, sums.tolist(), strict=True)), self.bad)

    def plain(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "waited": self.waited,
            "sums": {name: float(value) for name, value in self.sums.items()},
            "bad": {},  # a checkpoint is written only where there is none
        }
