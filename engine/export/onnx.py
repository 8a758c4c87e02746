"""The graphs: pixels in, logits and probabilities out, each in one file with its manifest inside."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from affect.engine.package.manifest import METADATA_KEY, SIDE, Manifest, graph_names
from affect.shards.schema import TargetLayout


class Answers(nn.Module):
    """What a consumer gets of outputs: temperature, softmax and sigmoid are inside, so that they cannot be forgotten.

    temperature: of the first output of classes, one or one a class.
    """

    def __init__(self, layout: TargetLayout, temperature: tuple[float, ...]) -> None:
        super().__init__()
        self.layout, self.calibrated = layout, layout.first_classes
        self.register_buffer("temperature", torch.tensor(temperature))
        self.temperature: Tensor

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """name -> (N, C) -> what `names_of` names, (N, C) float32 each."""
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
    """images (N, H, W, 3) or (N, T, H, W, 3) uint8, side (N, S) as measured where the model takes it -> answers."""

    def __init__(self, model: nn.Module, layout: TargetLayout, temperature: tuple[float, ...]) -> None:
        super().__init__()
        self.model, self.answers = model, Answers(layout, temperature)

    def forward(self, images: Tensor, side: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.answers((self.model(images) if side is None else self.model(images, side))[1])


class DeployedTemporal(nn.Module):
    """features (N, T, D), side as above -> answers: what is left of a model of clips once its frames are encoded."""

    def __init__(self, temporal: nn.Module, layout: TargetLayout, temperature: tuple[float, ...]) -> None:
        super().__init__()
        self.temporal, self.answers = temporal, Answers(layout, temperature)

    def forward(self, features: Tensor, side: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.answers(self.temporal(features, side)[1])


def names_of(layout: TargetLayout) -> list[str]:
    return [name for output in layout.outputs for name in graph_names(output)]


def write_onnx(
    module: nn.Module, example: Tensor, names: tuple[str, Sequence[str]], path: Path, manifest: Manifest, signals: int = 0
) -> None:
    """Through torch's dynamo exporter, any number of rows a call; no external data. names: of the input, of the outputs.

    signals: S of a second input `side`, (N, S) float32; 0: there is none.
    """
    rows = {0: torch.export.Dim("n", min=1, max=65536)}
    given = {names[0]: example} | ({SIDE: torch.zeros(len(example), signals)} if signals else {})
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its steps on stdout
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, tuple(given.values()), dynamo=True, input_names=list(given), output_names=list(names[1]),
            dynamic_shapes=(rows,) * len(given), verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = json.dumps(manifest.to_json())
    program.save(path, external_data=False)
