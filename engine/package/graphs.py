"""Names of a package's files, and of the inputs and outputs of its graphs."""

from __future__ import annotations

from affect.shards.schema import Output, TargetLayout

MANIFEST = "manifest.json"
MODEL, INT8 = "model.onnx", "model.int8.onnx"
ENCODER, TEMPORAL = "encoder.onnx", "temporal.onnx"  # of a clip model: images -> features, features -> outputs
SIDE = "side"  # the second input of a graph that takes signals beside clips
METADATA_KEY = "affect.manifest"  # in the graph's own metadata: the manifest without `files`


def raw_name(output: Output) -> str:
    """Name of the model's own values in the graph: logits, or scalars in their units."""
    return f"{output.name}.{'values' if output.kind == 'scalars' else 'logits'}"


def graph_names(output: Output) -> list[str]:
    """Names of an output in the graph: logits and probs of classes and multilabel outputs, values of scalars."""
    return [raw_name(output)] + [f"{output.name}.probs"] * (output.kind != "scalars")


def output_names(layout: TargetLayout) -> list[str]:
    """Names of all outputs of a graph, in its order."""
    return [name for output in layout.outputs for name in graph_names(output)]
