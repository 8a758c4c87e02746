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

from affect.engine.package.graphs import METADATA_KEY, SIDE
from affect.engine.package.manifest import Manifest


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
