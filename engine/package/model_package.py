"""A package on disk: a manifest and the graphs it describes, opened and checked. Needs neither torch nor onnx."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect.engine.calibration.conformal import Conformal, checked_coverage
from affect.engine.config.data import ClipConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.package.builtin import builtin_names, model_path
from affect.engine.package.graphs import MANIFEST, METADATA_KEY, MODEL
from affect.engine.package.manifest import Manifest
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout


@dataclass(frozen=True)
class ModelPackage:
    """A manifest and the file of its graph, checked."""

    manifest: Manifest
    model: Path

    @property
    def layout(self) -> TargetLayout:
        return self.manifest.layout

    @property
    def thresholds(self) -> dict[str, float]:
        """Label of a multilabel output -> the probability from which it holds; .5 for those that are not here."""
        return self.manifest.calibration.get("thresholds", {})

    @property
    def conformal(self) -> Conformal | None:
        """Conformal sets of labels, where they were fitted."""
        value = self.manifest.calibration.get("conformal")
        return Conformal.from_json(value, self.manifest.name) if value else None

    def conformal_at(self, coverage: float) -> Conformal:
        """Raises InputError where the sets were fitted for another coverage, or not at all."""
        checked_coverage(coverage)
        fitted, name = self.conformal, self.manifest.name
        if self.clip:
            raise InputError(f"coverage: {name} sees clips, and conformal sets hold for stills; leave the coverage out")
        if fitted is None or abs(fitted.coverage - coverage) > 1e-9:
            there = f"for coverage {fitted.coverage:g} only" if fitted else "for none"
            raise InputError(
                f"coverage: {coverage:g} asked for, {name} has sets {there}; fit them: affect calibrate RUN "
                f"--coverage {coverage:g}"
            )
        return fitted

    @property
    def clip(self) -> ClipConfig | None:
        return ClipConfig.model_validate(self.manifest.clip["view"]) if self.manifest.clip else None

    @property
    def side(self) -> list[dict[str, Any]]:
        """See `Manifest.side`; empty where it takes none."""
        return self.manifest.side or []

    @property
    def preprocess(self) -> Preprocess:
        return self.manifest.preprocess

    @classmethod
    def open(cls, path: Path | str) -> ModelPackage:
        """Open a package folder, the run that holds one, one of our .onnx files, or the built-in model of that name: `emotion`.

        Raises: InputError where there is none, or a byte of it has changed.
        """
        path = model_path(path)
        if path.suffix == ".onnx":
            return cls._open_file(path)
        folder = path / "package" if (path / "package" / MANIFEST).is_file() else path
        if not (folder / MANIFEST).is_file():
            remedy = (
                f"export it first: affect export {path}"
                if (path / "config.yaml").is_file()
                else f"name a run, its package folder, or a built-in model: {', '.join(builtin_names())}"
            )
            raise InputError(f"{path}: no package: no {MANIFEST} there; {remedy}")
        try:
            value = json.loads((folder / MANIFEST).read_text())
        except ValueError as error:
            raise InputError(f"{folder / MANIFEST}: not readable as JSON ({error}); export the model anew") from error
        manifest = Manifest.from_json(value, str(folder / MANIFEST))
        for name, fact in (manifest.files or {}).items():
            _check(folder / name, fact)
        return cls(manifest, folder / MODEL)

    @classmethod
    def _open_file(cls, path: Path) -> ModelPackage:
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected a package folder or its {MODEL}")
        from affect.engine.system.onnxruntime import metadata_of  # loads ONNX Runtime, which a folder does without

        text = metadata_of(path).get(METADATA_KEY)
        if text is None:
            raise InputError(f"{path}: an ONNX file without our manifest; only graphs made by affect export can be read")
        return cls(Manifest.from_json(json.loads(text), str(path)), path)


def _check(path: Path, fact: dict[str, Any]) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing; export the model anew")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != fact["sha256"]:
        raise InputError(
            f"{path}: its bytes have changed since it was exported ({len(data)} bytes, expected {fact['size']}, "
            f"sha256 {fact['sha256'][:12]}...); take a copy, or export the model anew"
        )
