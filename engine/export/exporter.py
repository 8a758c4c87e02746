"""The graphs of a run's model, each held to the model on real samples before anything relies on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affect.engine.calibration.calibration import Calibration, read_calibration
from affect.engine.data.build import eval_loader
from affect.engine.data.loader import Loader
from affect.engine.data.selection import open_dataset, train_selection, val_selection
from affect.engine.evaluation.evaluated_model import Predict, in_torch
from affect.engine.evaluation.predictions import predict_all
from affect.engine.export.manifest_facts import clip_facts, side_facts, usual_px
from affect.engine.export.onnx import write_onnx
from affect.engine.export.parity import parity
from affect.engine.models.clip_model import ClipModel
from affect.engine.models.deployed import Deployed, DeployedTemporal
from affect.engine.package.graphs import ENCODER, SIDE, TEMPORAL, output_names, raw_name
from affect.engine.package.manifest import Manifest
from affect.engine.runs.checkpoint import load
from affect.engine.runs.files import BEST
from affect.engine.runs.trained import trained_model
from affect.engine.system.onnxruntime import session
from affect.shards.checksum import file_sha256
from affect.shards.schema import TargetLayout
from affect.shards.selection import present

PARITY_ROWS, PARITY_CLIPS = 256, 32
CPU = ["CPUExecutionProvider"]


@dataclass(frozen=True)
class Exporter:
    """Writes a run's graphs. manifest: all but the files. loader: the pictures or clips that parity is measured on."""

    shape: tuple[int, ...]  # of one row of images
    layout: TargetLayout
    calibration: Calibration
    manifest: Manifest
    loader: Loader

    @classmethod
    def of(cls, folder: Path) -> tuple[Exporter, nn.Module]:
        """Return the exporter of a run, and the run's best model."""
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
            dataset,
            val_selection(run.data),
            run.preprocess,
            (),
            torch.device("cpu"),
            clip=clip,
            most=PARITY_CLIPS if clip else PARITY_ROWS,
            side=run.data.side,
        )
        return cls(shape, layout, calibration, manifest, loader), model

    def write(self, model: nn.Module, path: Path) -> dict[str, Any]:
        """Write the graph of a model; return the facts of its file. Raises InputError where the graph is not the model."""
        deployed = Deployed(model, self.layout, self.calibration.temperature)
        example = torch.zeros(2, *self.shape, dtype=torch.uint8)
        write_onnx(deployed, example, ("images", output_names(self.layout)), path, self.manifest, self.signals)
        running = session(path, CPU)

        def by_graph(images: torch.Tensor, *side: torch.Tensor) -> dict[str, np.ndarray]:
            return self._run(running, "images", images.numpy(), *side)

        return file_facts(path) | {"parity": self._parity(model, by_graph)}

    def write_parts(self, model: ClipModel, folder: Path) -> dict[str, dict[str, Any]]:
        """Write encoder.onnx and temporal.onnx of a clip model; return the facts of both. Together they are held to the model."""
        frames = torch.zeros(2, *self.shape[1:], dtype=torch.uint8)
        write_onnx(model.encoder, frames, ("images", ["features"]), folder / ENCODER, self.manifest)
        features = torch.zeros(2, self.shape[0], model.encode(frames).shape[1])
        temporal = DeployedTemporal(model.temporal, self.layout, self.calibration.temperature)
        write_onnx(temporal, features, ("features", output_names(self.layout)), folder / TEMPORAL, self.manifest, self.signals)
        encoder, after = session(folder / ENCODER, CPU), session(folder / TEMPORAL, CPU)

        def by_parts(images: torch.Tensor, *side: torch.Tensor) -> dict[str, np.ndarray]:
            (encoded,) = encoder.run(None, {"images": images.flatten(0, 1).numpy()})
            return self._run(after, "features", encoded.reshape(*images.shape[:2], -1), *side)

        measured = self._parity(model, by_parts)
        return {name: file_facts(folder / name) | {"parity": measured} for name in (ENCODER, TEMPORAL)}

    @property
    def signals(self) -> int:
        return len(self.manifest.side or ())

    def _run(self, running: Any, name: str, values: np.ndarray, *side: torch.Tensor) -> dict[str, np.ndarray]:
        inputs = {name: values} | ({SIDE: side[0].numpy()} if side else {})
        results = running.run([raw_name(output) for output in self.layout.outputs], inputs)
        return {output.name: value for output, value in zip(self.layout.outputs, results, strict=True)}

    def _parity(self, model: nn.Module, by_graph: Predict) -> dict[str, dict[str, float]]:
        """Return {output: parity of its logits}, model and graph in float32 on the same rows."""
        predict, first = in_torch(model), self.layout.first_classes

        def by_model(*inputs: torch.Tensor) -> dict[str, np.ndarray]:
            logits = predict(*inputs)
            return logits | ({first.name: self.calibration.apply(logits[first.name])} if first else {})

        want, got = predict_all(by_model, self.loader), predict_all(by_graph, self.loader)
        return {
            output.name: parity(want[output.name], got[output.name], f"export: {output.name}", output.kind)
            for output in self.layout.outputs
        }


def file_facts(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": file_sha256(path), "precision": "float32"}
