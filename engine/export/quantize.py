"""INT8: the graph with QuantizeLinear and DequantizeLinear around its heavy operators, by NNCF, calibrated on real samples.

One file runs in ONNX Runtime, OpenVINO and TensorRT alike. TensorRT reads unsigned numbers as signed ones and would lose half
of their range, so that all become signed: after a ReLU that leaves 7 bits of 8.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affect.shards.errors import InputError

SAMPLES, CLIPS = 300, 64  # for the ranges of values
HEAVY = ("Conv", "Gemm", "MatMul")
TO_SIGNED = 255 / 127  # a step of 255 levels becomes one of 127


def quantize(model: Path, samples: Sequence[np.ndarray], out: Path) -> None:
    """Write `model` in INT8 to `out`, with the same metadata.

    samples: inputs of the graph, one call each: (1, H, W, 3) or (1, T, H, W, 3) uint8.
    Raises: InputError where NNCF is not installed or cannot do it.
    """
    nncf = library()
    import onnx

    graph = onnx.load(model)
    data = nncf.Dataset(list(samples), lambda sample: {graph.graph.input[0].name: sample})
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars; results are on stdout
        try:
            quantized = nncf.quantize(
                graph,
                data,
                subset_size=len(samples),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                ignored_scope=nncf.IgnoredScope(names=_before_the_heavy(graph), validate=False),
            )
        except Exception as error:  # NNCF's own kinds share no base
            raise InputError(f"{model}: NNCF cannot quantize it ({type(error).__name__}: {error}); leave --int8 out") from error
    _make_signed(quantized)
    onnx.save(quantized, out)


def library() -> Any:
    """Import NNCF. Raises InputError where it is not installed."""
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers
    try:
        import nncf
    except ImportError as error:
        raise InputError("--int8 needs NNCF: pip install 'affect-engine[int8]'") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _before_the_heavy(graph: Any) -> list[str]:
    """Return the nodes of the normalisation: it needs 255 levels, and INT8 has 127 to each side."""
    kinds = [node.op_type for node in graph.graph.node]
    first = next((i for i, kind in enumerate(kinds) if kind in HEAVY), 0)
    return [node.name for node in graph.graph.node[:first]]


def _make_signed(graph: Any) -> None:
    """Turn uint8 from zero on into int8 with a wider step."""
    from onnx import numpy_helper

    constants = {constant.name: constant for constant in graph.graph.initializer}
    changed = set()
    for node in graph.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (constants[name] for name in node.input[1:3])
        point = numpy_helper.to_array(zero)
        if point.dtype == np.uint8:
            assert not point.any(), "symmetric quantization has its zero point at 0"
            wider = numpy_helper.to_array(scale) * np.float32(TO_SIGNED)
            scale.CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale.name))
            zero.CopyFrom(numpy_helper.from_array(point.astype(np.int8), zero.name))
        if node.op_type == "QuantizeLinear":
            changed.add(node.output[0])
    unchanged = [info for info in graph.graph.value_info if info.name not in changed]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(unchanged)
