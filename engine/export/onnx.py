"""The graph: pixels in, logits and probabilities out, in one file with its manifest inside."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from affect.engine.package import METADATA_KEY, Manifest, graph_names
from affect.shards.schema import TargetLayout


class Deployed(nn.Module):
    """What a consumer calls: temperature and softmax are inside, so that they cannot be forgotten.

    temperature: of the first output of classes, one or one a class.
    """

    def __init__(self, model: nn.Module, layout: TargetLayout, temperature: tuple[float, ...]) -> None:
        super().__init__()
        self.model, self.layout, self.calibrated = model, layout, layout.first_classes
        self.register_buffer("temperature", torch.tensor(temperature))
        self.temperature: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images (N, H, W, 3) uint8 -> what `names_of` names, (N, C) float32 each."""
        _, outputs = self.model(images)
        results: list[Tensor] = []
        for output in self.layout.outputs:
            values = outputs[output.name]
            if output is self.calibrated:
                values = values / self.temperature
            results.append(values)
            if output.kind != "scalars":
                results.append(values.softmax(1) if output.kind == "classes" else values.sigmoid())
        return tuple(results)


def names_of(layout: TargetLayout) -> list[str]:
    return [name for output in layout.outputs for name in graph_names(output)]


def write_onnx(deployed: Deployed, size: int, path: Path, manifest: Manifest) -> None:
    """Through torch's dynamo exporter, any number of pictures a call; no external data."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its steps on stdout
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployed, (example,), dynamo=True, input_names=["images"], output_names=names_of(deployed.layout),
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=65536)},), verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = json.dumps(manifest.to_json())
    program.save(path, external_data=False)
