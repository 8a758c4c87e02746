"""`affect export`: a run becomes a package, or nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affect.engine.calibrate import Calibration, read_calibration
from affect.engine.checkpoint import BEST, LAST, load
from affect.engine.data.loader import Loader, eval_loader
from affect.engine.data.selection import open_dataset, train_selection, val_selection
from affect.engine.evaluation.predictions import collect
from affect.engine.evaluation.subject import in_torch, trained_model
from affect.engine.export.onnx import Deployed, write_onnx
from affect.engine.export.parity import parity
from affect.engine.ort import session
from affect.engine.package import MANIFEST, MODEL, Manifest, ModelPackage, raw_name
from affect.engine.run import write_json
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout
from affect.shards.select import present
from affect.shards.writer import file_sha256

PARITY_ROWS = 256


@dataclass(frozen=True)
class Exporter:
    """A run's graphs: `manifest` says all but the files, `loader` gives the pictures that parity is measured on."""

    size: int
    layout: TargetLayout
    calibration: Calibration
    manifest: Manifest
    loader: Loader

    @classmethod
    def of(cls, folder: Path) -> tuple[Exporter, nn.Module]:
        """With the run's best model."""
        run, model, layout = trained_model(folder)
        dataset = open_dataset(run.data.dataset)
        size = run.model.image_size
        calibration = read_calibration(folder)
        manifest = Manifest(
            name=folder.resolve().name,
            task=run.task,
            layout=layout,
            preprocess=run.preprocess,
            subject="full",
            calibration=calibration.to_json(),
            fingerprint=load(folder / BEST)["fingerprint"],
            sources=present(dataset, "source", dataset.rows(train_selection(run.data))),
            label_protocol=dataset.info.label_protocol,
            input={"name": "images", "dtype": "uint8", "shape": ["N", size, size, 3], "color": "RGB"},
        )
        loader = eval_loader(dataset, val_selection(run.data), run.preprocess, (), torch.device("cpu"), most=PARITY_ROWS)
        return cls(size, layout, calibration, manifest, loader), model

    def write(self, model: nn.Module, path: Path) -> dict[str, Any]:
        """The graph of a model, and the facts of its file; raises InputError where the graph is not the model."""
        deployed = Deployed(model, self.layout, self.calibration.temperature)
        write_onnx(deployed, self.size, path, self.manifest)
        found = self._measure(deployed, path)
        return {"size": path.stat().st_size, "sha256": file_sha256(path), "precision": "float32", "parity": found}

    def _measure(self, deployed: Deployed, graph: Path) -> dict[str, dict[str, float]]:
        """output -> parity of its logits, model and graph in float32 on the same pictures."""
        running = session(graph, ["CPUExecutionProvider"])
        predict, first = in_torch(deployed.model), self.layout.first_classes

        def by_model(images: torch.Tensor) -> dict[str, np.ndarray]:
            logits = predict(images)
            return logits | ({first.name: self.calibration.apply(logits[first.name])} if first else {})

        def by_graph(images: torch.Tensor) -> dict[str, np.ndarray]:
            values = running.run([raw_name(output) for output in self.layout.outputs], {"images": images.numpy()})
            return {output.name: value for output, value in zip(self.layout.outputs, values, strict=True)}

        want, got = collect(by_model, self.loader), collect(by_graph, self.loader)
        return {
            output.name: parity(want[output.name], got[output.name], f"export: {output.name}", output.kind)
            for output in self.layout.outputs
        }


def export(folder: Path) -> ModelPackage:
    """Write `folder`/package; parity is measured on the run's validation rows before anything is put in place."""
    return _package(folder, *Exporter.of(folder))


def _package(folder: Path, exporter: Exporter, model: nn.Module) -> ModelPackage:
    with _put_in_place(folder / "package") as building:
        facts = exporter.write(model, building / MODEL)
        write_json(building / MANIFEST, replace(exporter.manifest, files={MODEL: facts}).to_json())
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
