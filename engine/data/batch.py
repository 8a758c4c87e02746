"""A batch: what a training step and an evaluation get from a loader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B samples on the device.

    inputs: the pixels that the model takes, (B, H, W, 3) uint8 RGB, of clips (B, T, H, W, 3); they have this name from the loader
        to the model, which casts, normalises and turns them to channels-last, so nothing is copied.
    targets: output -> (B, C) float32, 0 where not labelled. mask: output -> (B, C) float32, 1 where labelled.
    weight: (B,) float32. sample: (B,) int64 on the CPU. start: None; of clips the stored frame that each view starts at.
    side: None; of clips with side signals (B, S) float32, as they were measured, NaN where missing.
    """

    inputs: Tensor
    targets: dict[str, Tensor]
    mask: dict[str, Tensor]
    weight: Tensor
    sample: np.ndarray
    start: np.ndarray | None = None
    side: Tensor | None = None

    @property
    def args(self) -> tuple[Tensor, ...]:
        """The arguments of a model: `model(*batch.args)` passes inputs, and side signals where there are any."""
        return (self.inputs,) if self.side is None else (self.inputs, self.side)

    @property
    def window(self) -> np.ndarray:
        """(B,) int64 which window of its sample each is: the stored frame that it starts at; 0 of pictures."""
        return np.zeros(len(self.sample), np.int64) if self.start is None else self.start

    def split(self, pieces: int) -> list[Batch]:
        """Return `pieces` batches of B / pieces samples each; views, nothing is copied."""
        if pieces == 1:
            return [self]
        size = len(self.sample) // pieces
        return [self._rows(slice(i * size, (i + 1) * size)) for i in range(pieces)]

    def _rows(self, rows: slice) -> Batch:
        return Batch(
            self.inputs[rows],
            {name: values[rows] for name, values in self.targets.items()},
            {name: values[rows] for name, values in self.mask.items()},
            self.weight[rows],
            self.sample[rows],
            None if self.start is None else self.start[rows],
            None if self.side is None else self.side[rows],
        )
