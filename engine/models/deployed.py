"""Models as they are deployed: pixels in, calibrated outputs out. What is exported, and what the torch backend runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affect.shards.schema import TargetLayout


class CalibratedOutputs(nn.Module):
    """Outputs as a consumer gets them: temperature, softmax and sigmoid are inside, so that they cannot be forgotten.

    temperature: of the first output of classes, one or one a class.
    """

    def __init__(self, layout: TargetLayout, temperature: tuple[float, ...]) -> None:
        super().__init__()
        self.layout, self.calibrated = layout, layout.first_classes
        self.register_buffer("temperature", torch.tensor(temperature))
        self.temperature: Tensor

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """name -> (N, C) -> the outputs of a graph in the order of `package.graphs.output_names`, (N, C) float32 each."""
        results: list[Tensor] = []
        for output in self.layout.outputs:
            values = outputs[output.name]
            if output is self.calibrated:
                values = values / self.temperature
            results.append(values)
            if output.kind != "scalars":
                results.append(values.softmax(1) if output.kind == "classes" else values.sigmoid())
        return tuple(results)


class Deployed(nn.Module):
    """inputs (N, H, W, 3) or (N, T, H, W, 3) uint8, side (N, S) as measured where the model takes it -> outputs."""

    def __init__(self, model: nn.Module, layout: TargetLayout, temperature: tuple[float, ...]) -> None:
        super().__init__()
        self.model, self.outputs = model, CalibratedOutputs(layout, temperature)

    def forward(self, inputs: Tensor, side: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.outputs((self.model(inputs) if side is None else self.model(inputs, side))[1])


class DeployedTemporal(nn.Module):
    """features (N, T, D), side as above -> outputs: the part of a clip model behind its frame encoder."""

    def __init__(self, temporal: nn.Module, layout: TargetLayout, temperature: tuple[float, ...]) -> None:
        super().__init__()
        self.temporal, self.outputs = temporal, CalibratedOutputs(layout, temperature)

    def forward(self, features: Tensor, side: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.outputs(self.temporal(features, side)[1])
