"""Pixels as networks are trained on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Normalise(nn.Module):
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, zero mean and unit deviation by ImageNet's figures.

    Inside the model, so that no caller can get it wrong. The cast comes first: TensorRT refuses a uint8 transpose.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD) * 255, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.channels_last = True  # else in NCHW memory: convolutions follow their input

    def forward(self, inputs: Tensor) -> Tensor:
        """By rows of pixels: on a CPU torch is three times as slow with an innermost axis of three numbers."""
        width = inputs.shape[2]
        rows = inputs.flatten(2).float()  # (B, H, W * 3)
        planes = ((rows - self.mean.repeat(width)) / self.std.repeat(width)).unflatten(2, (width, 3)).permute(0, 3, 1, 2)
        return planes if self.channels_last else planes.contiguous()
