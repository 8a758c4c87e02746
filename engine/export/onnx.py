"""Writes graphs: pixels in, logits and probabilities out, each in one file with its manifest inside."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from affect.engine.package.graphs import METADATA_KEY, SIDE
from affect.engine.package.manifest import Manifest


def write_onnx(
    module: nn.Module, example: Tensor, names: tuple[str, Sequence[str]], path: Path, manifest: Manifest, signals: int = 0
) -> None:
    """Export through torch's dynamo exporter, for any number of rows a call; no external data.

    names: of the input, of the outputs. signals: S of a second input `side`, (N, S) float32; 0: there is none.
    """
    rows = {0: torch.export.Dim("n", min=1, max=65536)}
    inputs = {names[0]: example} | ({SIDE: torch.zeros(len(example), signals)} if signals else {})
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its steps on stdout
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(names[1]),
            dynamic_shapes=(rows,) * len(inputs),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = json.dumps(manifest.to_json())
    model = program.model_proto
    strip_metadata(model.graph)
    for function in model.functions:
        strip_metadata(function)
    onnx.save(model, path)


def strip_metadata(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Remove what the exporter notes beside nodes and values: stack traces with paths of this machine, names of classes.

    What is computed, names, and the metadata of the model itself stay.
    """
    _clear(graph)
    for values in ("input", "output", "value_info", "initializer") if isinstance(graph, onnx.GraphProto) else ("value_info",):
        for value in getattr(graph, values):
            _clear(value)
    for node in graph.node:
        _clear(node)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                strip_metadata(inner)


def _clear(proto: onnx.GraphProto | onnx.FunctionProto | onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto) -> None:
    proto.ClearField("metadata_props")
    proto.ClearField("doc_string")
