"""`affect export`: a run becomes a package, or nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from affect.engine.export import quantize
from affect.engine.export.exporter import Exporter, file_facts
from affect.engine.export.precision_cost import PrecisionCost, openvino_in_bf16
from affect.engine.models.clip_model import ClipModel
from affect.engine.package.graphs import INT8, MANIFEST, MODEL
from affect.engine.package.model_package import ModelPackage
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import LAST
from affect.engine.runs.folder import open_run, write_json
from affect.engine.runtime.backends import tensorrt_engine as tensorrt
from affect.engine.runtime.backends.onnxruntime import OnnxRuntime
from affect.engine.system.log import say
from affect.shards.errors import InputError, nearest

TARGETS = ("onnx", "tensorrt")
MAX_DROP = 0.5  # points


def export(
    folder: Path, to: Sequence[str] = ("onnx",), *, int8: bool = False, max_drop: float = MAX_DROP, gpus: Sequence[str] = ()
) -> ModelPackage:
    """Write `folder`/package; parity is measured on the run's validation rows before anything is put in place.

    What bf16 costs is measured where this machine has it. int8: also a file in INT8. Either is exported where the selection
    metric drops by at most `max_drop` points. to: `onnx`, which is always written; `tensorrt`, engines beside it. gpus: compute
    capabilities that they are for, `8.9`; default: this machine's GPU, without one all that TensorRT-RTX builds for.
    """
    for name in to:
        if name not in TARGETS:
            raise InputError(f"--to: {name!r}{nearest(name, TARGETS)}; expected {', '.join(TARGETS)}")
    if (int8 or "tensorrt" in to) and (side := open_run(folder)[0].data.side):
        raise InputError(
            f"{folder}: takes side signals ({', '.join(side)}); such a model is exported in float32 for ONNX Runtime and "
            "OpenVINO: leave --int8 and --to tensorrt out"
        )
    trt = tensorrt.library() if "tensorrt" in to else None
    if int8:
        quantize.library()
    exporter, model = Exporter.of(folder)

    def lower(building: Path) -> dict[str, dict[str, Any]]:
        cost = PrecisionCost(open_run(folder)[0], exporter.layout, OnnxRuntime(building / MODEL))
        return _lower_precisions(cost, building, max_drop, int8=int8)

    package = _write_package(folder, exporter, model, lower)
    for graph in sorted(package.model.parent.glob("*.onnx")) if trt else ():
        tensorrt.engine_of(graph, tensorrt.gpu_for(trt, gpus), precision=(package.manifest.files or {})[graph.name]["precision"])
    return package


def _lower_precisions(cost: PrecisionCost, building: Path, max_drop: float, *, int8: bool) -> dict[str, dict[str, Any]]:
    """Return {file: facts to add}: `lower` of the float32 graph, and all facts of the INT8 one."""
    added: dict[str, dict[str, Any]] = {}
    in_bf16 = openvino_in_bf16(building / MODEL)
    if in_bf16 and (facts := cost.measure(in_bf16)) and _accepted("bf16", facts, max_drop):
        added[MODEL] = {"lower": {"bf16": facts}}
    if int8:
        path = building / INT8
        quantize.quantize(building / MODEL, cost.samples(), path)
        facts = cost.measure(OnnxRuntime(path))
        if _accepted(INT8, facts, max_drop):
            added[INT8] = file_facts(path) | {"precision": "int8"} | facts
        else:
            path.unlink()
    return added


def _accepted(name: str, facts: dict[str, Any], max_drop: float) -> bool:
    metric = facts["metric"]
    accepted = bool(metric["drop_points"] <= max_drop)
    what = "kept" if accepted else f"left out; --max-drop {metric['drop_points']:.2f} would keep it"
    say(
        f"export: {name}: {metric['name']} {metric['value']:.4f}, in float32 {metric['float32']:.4f}: a drop of "
        f"{metric['drop_points']:.2f} points, at most {max_drop:g} allowed: {what}"
    )
    return accepted


def _write_package(
    folder: Path, exporter: Exporter, model: nn.Module, lower: Callable[[Path], dict[str, dict[str, Any]]] = lambda _: {}
) -> ModelPackage:
    with _put_in_place(folder / "package") as building:
        facts = {MODEL: exporter.write(model, building / MODEL)}
        if isinstance(model, ClipModel):
            facts |= exporter.write_parts(model, building)
        for name, more in lower(building).items():
            facts[name] = facts.get(name, {}) | more
        write_json(building / MANIFEST, replace(exporter.manifest, files=facts).to_json())
    return ModelPackage.open(folder / "package")


def export_run(folder: Path) -> ModelPackage:
    """Write the package, and beside it `best.onnx`, the same graph, and `last.onnx`, of the last step; one calibration."""
    exporter, model = Exporter.of(folder)
    package = _write_package(folder, exporter, model)
    shutil.copyfile(package.model, folder / "best.onnx")
    state = load(folder / LAST)
    model.load_state_dict(state["ema"] or state["model"])
    partial = folder / ".last.onnx.partial"
    exporter.write(model, partial)
    partial.rename(folder / "last.onnx")
    return package


@contextmanager
def _put_in_place(folder: Path) -> Iterator[Path]:
    """Make a new folder that takes the place of the old one when all went well."""
    building = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir()
        yield building
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
