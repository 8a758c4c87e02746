"""A batch: what a training step and an evaluation get from a loader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from affect.engine.data.mixup import Mix


@dataclass(frozen=True)
class Batch:
    """B samples on the device.

    inputs: (B, H, W, 3) uint8 RGB, of clips (B, T, H, W, 3); the model casts, normalises and turns it to channels-last, so
        nothing is copied.
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
    def given(self) -> tuple[Tensor, ...]:
        """What a model is called with: inputs, and side signals where there are any."""
        return (self.inputs,) if self.side is None else (self.inputs, self.side)

    @property
    def window(self) -> np.ndarray:
        """(B,) int64 which window of its sample each is: the stored frame that it starts at; 0 of pictures."""
        return np.zeros(len(self.sample), np.int64) if self.start is None else self.start

    def mixed(self, mix: Mix) -> Batch:
        """Each sample blended with its partner; a side signal that one of them lacks is missing."""
        targets = {name: mix.blend(values) for name, values in self.targets.items()}
        mask = {name: mix.both(values) for name, values in self.mask.items()}
        side = None if self.side is None else mix.blend(self.side)
        return Batch(mix.images(self.inputs), targets, mask, mix.blend(self.weight), self.sample, self.start, side)

    def split(self, pieces: int) -> list[Batch]:
        """As so many batches of B / pieces samples each; views, nothing is copied."""
        if pieces == 1:
            return [self]
        size = len(self.sample) // pieces
        cut = [slice(i * size, (i + 1) * size) for i in range(pieces)]
        return [
            Batch(
                self.inputs[c],
                {name: values[c] for name, values in self.targets.items()},
                {name: values[c] for name, values in self.mask.items()},
                self.weight[c],
                self.sample[c],
                None if self.start is None else self.start[c],
                None if self.side is None else self.side[c],
            )
            for c in cut
        ]
