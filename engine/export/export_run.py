"""`affect export`: a run becomes a package, or nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affect.engine.calibration.calibration import Calibration, read_calibration
from affect.engine.config.run import RunConfig
from affect.engine.data.build import eval_loader
from affect.engine.data.loader import Loader
from affect.engine.data.selection import open_dataset, train_selection, val_selection
from affect.engine.data.side_signals import signal
from affect.engine.evaluation.evaluated_model import Predict, in_torch
from affect.engine.evaluation.predictions import predict_all
from affect.engine.export import quantize
from affect.engine.export.judge import Judge, openvino_in_bf16
from affect.engine.export.onnx import write_onnx
from affect.engine.export.parity import parity
from affect.engine.models.clip_model import ClipModel
from affect.engine.models.deployed import Deployed, DeployedTemporal
from affect.engine.models.side_signals import scale_of
from affect.engine.package.graphs import ENCODER, INT8, MANIFEST, MODEL, SIDE, TEMPORAL, output_names, raw_name
from affect.engine.package.manifest import Manifest
from affect.engine.package.model_package import ModelPackage
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST, LAST
from affect.engine.runs.folder import open_run, write_json
from affect.engine.runs.trained import trained_model
from affect.engine.runtime.backends import tensorrt_engine as tensorrt
from affect.engine.runtime.backends.onnxruntime import OnnxRuntime
from affect.engine.system.log import say
from affect.engine.system.onnxruntime import session
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, nearest
from affect.shards.schema import TargetLayout
from affect.shards.selection import present

PARITY_ROWS, PARITY_CLIPS = 256, 32
CPU = ["CPUExecutionProvider"]
TARGETS = ("onnx", "tensorrt")
MAX_DROP = 0.5  # points
USUAL = (5, 95)  # percent: what face_px says


@dataclass(frozen=True)
class Exporter:
    """A run's graphs: `manifest` says all but the files, `loader` gives the pictures or clips that parity is measured on."""

    shape: tuple[int, ...]  # of one row of images
    layout: TargetLayout
    calibration: Calibration
    manifest: Manifest
    loader: Loader

    @classmethod
    def of(cls, folder: Path) -> tuple[Exporter, nn.Module]:
        """With the run's best model."""
        run, model, layout = trained_model(folder)
        dataset, clip = open_dataset(run.data.dataset), run.data.clip
        size = run.model.image_size
        shape = (clip.frames, size, size, 3) if clip else (size, size, 3)
        calibration = read_calibration(folder)
        manifest = Manifest(
            name=folder.resolve().name,
            task=run.task,
            layout=layout,
            preprocess=run.preprocess,
            subject=run.subject,
            calibration=calibration.to_json(),
            fingerprint=load(folder / BEST)["fingerprint"],
            sources=present(dataset, "source", dataset.rows(train_selection(run.data))),
            label_protocol=dataset.info.label_protocol,
            input={"name": "images", "dtype": "uint8", "shape": ["N", *shape], "color": "RGB"},
            clip=clip_facts(run, dataset),
            species=run.species,
            view=run.view,
            face_px=usual_px(dataset, dataset.rows(train_selection(run.data))),
            side=side_facts(run, model),
        )
        loader = eval_loader(
            dataset, val_selection(run.data), run.preprocess, (), torch.device("cpu"), clip=clip,
            most=PARITY_CLIPS if clip else PARITY_ROWS, side=run.data.side,
        )  # fmt: skip
        return cls(shape, layout, calibration, manifest, loader), model

    def write(self, model: nn.Module, path: Path) -> dict[str, Any]:
        """The graph of a model, and the facts of its file; raises InputError where the graph is not the model."""
        deployed = Deployed(model, self.layout, self.calibration.temperature)
        example = torch.zeros(2, *self.shape, dtype=torch.uint8)
        write_onnx(deployed, example, ("images", output_names(self.layout)), path, self.manifest, self.signals)
        running = session(path, CPU)

        def by_graph(images: torch.Tensor, *side: torch.Tensor) -> dict[str, np.ndarray]:
            return self._run(running, "images", images.numpy(), *side)

        return _facts(path) | {"parity": self._measured(model, by_graph)}

    def write_parts(self, model: ClipModel, folder: Path) -> dict[str, dict[str, Any]]:
        """encoder.onnx and temporal.onnx of a model of clips, the facts of both; together they are held to the whole model."""
        frames = torch.zeros(2, *self.shape[1:], dtype=torch.uint8)
        write_onnx(model.encoder, frames, ("images", ["features"]), folder / ENCODER, self.manifest)
        features = torch.zeros(2, self.shape[0], model.encode(frames).shape[1])
        temporal = DeployedTemporal(model.temporal, self.layout, self.calibration.temperature)
        write_onnx(temporal, features, ("features", output_names(self.layout)), folder / TEMPORAL, self.manifest, self.signals)
        encoder, after = session(folder / ENCODER, CPU), session(folder / TEMPORAL, CPU)

        def by_parts(images: torch.Tensor, *side: torch.Tensor) -> dict[str, np.ndarray]:
            (encoded,) = encoder.run(None, {"images": images.flatten(0, 1).numpy()})
            return self._run(after, "features", encoded.reshape(*images.shape[:2], -1), *side)

        found = self._measured(model, by_parts)
        return {name: _facts(folder / name) | {"parity": found} for name in (ENCODER, TEMPORAL)}

    @property
    def signals(self) -> int:
        return len(self.manifest.side or ())

    def _run(self, running: Any, name: str, values: np.ndarray, *side: torch.Tensor) -> dict[str, np.ndarray]:
        given = {name: values} | ({SIDE: side[0].numpy()} if side else {})
        answers = running.run([raw_name(output) for output in self.layout.outputs], given)
        return {output.name: value for output, value in zip(self.layout.outputs, answers, strict=True)}

    def _measured(self, model: nn.Module, by_graph: Predict) -> dict[str, dict[str, float]]:
        """output -> parity of its logits, model and graph in float32 on the same rows."""
        predict, first = in_torch(model), self.layout.first_classes

        def by_model(*given: torch.Tensor) -> dict[str, np.ndarray]:
            logits = predict(*given)
            return logits | ({first.name: self.calibration.apply(logits[first.name])} if first else {})

        want, got = predict_all(by_model, self.loader), predict_all(by_graph, self.loader)
        return {
            output.name: parity(want[output.name], got[output.name], f"export: {output.name}", output.kind)
            for output in self.layout.outputs
        }


def _facts(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": file_sha256(path), "precision": "float32"}


def usual_px(dataset: Dataset, rows: np.ndarray) -> list[int] | None:
    """The shorter side of all but the smallest and the largest 5 % of the packed pictures or frames, in pixels."""
    shorter = np.minimum(dataset.column("width")[rows], dataset.column("height")[rows])
    return [round(float(px)) for px in np.percentile(shorter, USUAL)] if len(rows) else None


def clip_facts(run: RunConfig, dataset: Dataset) -> dict[str, Any] | None:
    """Of a model of clips, for the manifest: see `Manifest.clip`. Times are medians over the training clips."""
    clip = run.data.clip
    if clip is None:
        return None
    rows = dataset.rows(train_selection(run.data))[:256]
    steps = np.concatenate([np.diff(dataset.times_s(row)) for row in rows.tolist()] or [np.zeros(0)])
    step_s = float(np.median(steps)) if len(steps) else None
    if step_s and clip.choice == "uniform":
        step_s *= float(np.median([len(dataset.times_s(row)) for row in rows.tolist()])) / clip.frames
    elif step_s:
        step_s *= clip.stride
    return {
        "view": clip.model_dump(mode="json"),
        "window_s": step_s and step_s * clip.frames,
        "rate_hz": step_s and 1 / step_s,
        "stored": asdict(dataset.info.clip) if dataset.info.clip else None,
    }


def side_facts(run: RunConfig, model: nn.Module) -> list[dict[str, Any]] | None:
    """For the manifest: see `Manifest.side`."""
    pairs = zip(run.data.side, *scale_of(model), strict=True)
    facts = [{"name": signal(column), "column": column, "mean": mean, "deviation": dev} for column, mean, dev in pairs]
    return facts or None


def export(
    folder: Path, to: Sequence[str] = ("onnx",), *, int8: bool = False, max_drop: float = MAX_DROP, gpus: Sequence[str] = ()
) -> ModelPackage:
    """Write `folder`/package; parity is measured on the run's validation rows before anything is put in place.

    What bf16 costs is measured where this machine has it. int8: also a file in INT8. Either is kept where the selection metric
    drops by at most `max_drop` points. to: `onnx`, which is always written; `tensorrt`, engines beside it. gpus: compute
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
        judge = Judge(open_run(folder)[0], exporter.layout, OnnxRuntime(building / MODEL))
        return _lower(judge, building, max_drop, int8=int8)

    package = _package(folder, exporter, model, lower)
    for graph in sorted(package.model.parent.glob("*.onnx")) if trt else ():
        tensorrt.engine_of(graph, tensorrt.gpu_for(trt, gpus), precision=(package.manifest.files or {})[graph.name]["precision"])
    return package


def _lower(judge: Judge, building: Path, max_drop: float, *, int8: bool) -> dict[str, dict[str, Any]]:
    """File -> facts that are added to it: `lower` of the float32 graph, and all of the INT8 one."""
    found: dict[str, dict[str, Any]] = {}
    in_bf16 = openvino_in_bf16(building / MODEL)
    if in_bf16 and (facts := judge.facts(in_bf16)) and _accepted("bf16", facts, max_drop):
        found[MODEL] = {"lower": {"bf16": facts}}
    if int8:
        path = building / INT8
        quantize.quantize(building / MODEL, judge.samples(), path)
        facts = judge.facts(OnnxRuntime(path))
        if _accepted(INT8, facts, max_drop):
            found[INT8] = _facts(path) | {"precision": "int8"} | facts
        else:
            path.unlink()
    return found


def _accepted(name: str, facts: dict[str, Any], max_drop: float) -> bool:
    metric = facts["metric"]
    accepted = bool(metric["drop_points"] <= max_drop)
    what = "kept" if accepted else f"not kept; --max-drop {metric['drop_points']:.2f} would keep it"
    say(
        f"export: {name}: {metric['name']} {metric['value']:.4f}, in float32 {metric['float32']:.4f}: a drop of "
        f"{metric['drop_points']:.2f} points, at most {max_drop:g} allowed: {what}"
    )
    return accepted


def _package(
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
    """The package, and beside it `best.onnx`, the same graph, and `last.onnx`, of the last step, under the same calibration."""
    exporter, model = Exporter.of(folder)
    package = _package(folder, exporter, model)
    shutil.copyfile(package.model, folder / "best.onnx")
    state = load(folder / LAST)
    model.load_state_dict(state["ema"] or state["model"])
    partial = folder / ".last.onnx.partial"
    exporter.write(model, partial)
    partial.rename(folder / "last.onnx")
    return package


@contextmanager
def _put_in_place(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of the old one when all went well."""
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
