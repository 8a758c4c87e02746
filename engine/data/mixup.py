"""Mixup and CutMix: a batch blended with itself in reverse order, by the numbers that `augment.py` draws.

Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from affect.engine.data.augment import Mix
from affect.engine.data.batch import Batch


def mixed(batch: Batch, mix: Mix) -> Batch:
    """Blend sample i with sample B - 1 - i; a side signal that one of them lacks is missing."""
    targets = {name: blend(values, mix) for name, values in batch.targets.items()}
    mask = {name: both(values) for name, values in batch.mask.items()}
    side = None if batch.side is None else blend(batch.side, mix)
    return Batch(mixed_inputs(batch.inputs, mix), targets, mask, blend(batch.weight, mix), batch.sample, batch.start, side)


def mixed_inputs(inputs: Tensor, mix: Mix) -> Tensor:
    """(B, H, W, 3) uint8; clips, (B, T, H, W, 3), are mixed frame by frame and all alike."""
    if inputs.ndim == 5:  # one frame after the other: floats of whole clips would take much memory
        return torch.stack([mixed_inputs(frame, mix) for frame in inputs.unbind(1)], 1)
    partner = inputs.flip(0)
    if mix.box is None:
        return torch.lerp(partner.float(), inputs.float(), mix.share).round_().to(torch.uint8)
    top, left, height, width = mix.box
    pasted = inputs.clone()
    pasted[:, top : top + height, left : left + width] = partner[:, top : top + height, left : left + width]
    return pasted


def blend(values: Tensor, mix: Mix) -> Tensor:
    """Targets, weights or side signals, (B, ...) float32."""
    return torch.lerp(values.flip(0), values, mix.share)


def both(mask: Tensor) -> Tensor:
    """A pair is labelled where both samples are."""
    return mask * mask.flip(0)
