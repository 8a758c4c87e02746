"""Mixup and CutMix: a batch blended with itself turned round, by numbers that depend on (seed, step) alone.

Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019. One share and one box a batch, as timm does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from affect.engine.config.augmentation import AugmentConfig


@dataclass(frozen=True)
class Mix:
    """share: of the first picture of each pair. box: top, left, height, width of what comes from the second; None blends all."""

    share: float
    box: tuple[int, int, int, int] | None

    def images(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8, picture i with picture B - 1 - i; of clips, (B, T, H, W, 3), frame by frame and all alike."""
        if images.ndim == 5:  # one after the other: floats of whole clips would take much memory
            return torch.stack([self.images(frame) for frame in images.unbind(1)], 1)
        other = images.flip(0)
        if self.box is None:
            return torch.lerp(other.float(), images.float(), self.share).round_().to(torch.uint8)
        top, left, height, width = self.box
        mixed = images.clone()
        mixed[:, top : top + height, left : left + width] = other[:, top : top + height, left : left + width]
        return mixed

    def blend(self, values: Tensor) -> Tensor:
        """Targets or weights, (B, ...) float32."""
        return torch.lerp(values.flip(0), values, self.share)

    def both(self, mask: Tensor) -> Tensor:
        """A pair is labelled where both are."""
        return mask * mask.flip(0)


def draw_mix(config: AugmentConfig, seed: int, step: int, size: int) -> Mix | None:
    """What is done to the batch of a step; None where both are off. With both on, each takes half of the batches."""
    if config.mixup == 0 and config.cutmix == 0:
        return None
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, 1))))
    cut = config.cutmix > 0 and (config.mixup == 0 or random.random() < 0.5)
    alpha = config.cutmix if cut else config.mixup
    share = float(random.beta(alpha, alpha))
    if not cut:
        return Mix(share, None)
    side = round(size * (1 - share) ** 0.5)
    top, left = random.integers(0, size - side + 1, 2).tolist()
    return Mix(1 - side * side / size**2, (top, left, side, side))
