"""What is deployed: one graph and a manifest that says everything about it. Needs neither torch nor onnx."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affect.engine import zoo
from affect.engine.calibration.conformal import Conformal, checked_coverage
from affect.engine.config.data import ClipConfig
from affect.engine.config.preprocess import Preprocess
from affect.shards.errors import InputError
from affect.shards.schema import Output, TargetLayout

PACKAGE_SCHEMA = 1
MANIFEST, MODEL = "manifest.json", "model.onnx"
ENCODER, TEMPORAL = "encoder.onnx", "temporal.onnx"  # of a model of clips: images -> features, features -> outputs
SIDE = "side"  # the second input of a graph that takes signals beside clips
METADATA_KEY = "affect.manifest"  # in the graph's own metadata: the manifest without `files`

INTENDED_USE = (
    "Research on facial expression. Not a diagnosis, not a lie detector, not a measure of what someone feels; "
    "inferring emotions at work or in education is prohibited in the EU (AI Act, article 5)."
)

SPECIES = {"emotion": "human", "pain_clip": "cattle", "mouse": "mouse"}  # what a task's name begins with -> whose faces


def species_of(task: str) -> str:
    """Empty where the name does not say."""
    return next((species for start, species in SPECIES.items() if task.startswith(start)), "")


def raw_name(output: Output) -> str:
    """Of what the model itself says: logits, or scalars in their units."""
    return f"{output.name}.{'values' if output.kind == 'scalars' else 'logits'}"


def graph_names(output: Output) -> list[str]:
    """Classes and multilabel outputs give logits and probs, scalars their values."""
    return [raw_name(output)] + [f"{output.name}.probs"] * (output.kind != "scalars")


@dataclass(frozen=True)
class Manifest:
    """name: of the run. layout: outputs and their names, in column order. input: of the graph, `images`.

    subject: what the pictures show: `full`, a picture already cropped to the face.
    species: whose faces: human, cattle, mouse, or empty where nobody has said; without it by the task's name.
    view: from where they are seen, in words of whoever trained it. face_px: of most faces that it was trained on the shorter
        side, from and to, as they were packed.
    clip: of a model of clips: `view`, which frames it sees (ClipConfig); window_s, the time that they span; rate_hz, frames a
        second among them; stored, which frames its training clips had (ClipFacts).
    side: signals beside a clip, the graph's second input, (N, S) float32 as measured, NaN where missing: of each its name, the
        column that it was trained on, and the mean and deviation that the graph standardises it by.
    calibration: temperature inside the graph, and where it was fitted. files: name -> {size, sha256, parity}.
    """

    name: str
    task: str
    layout: TargetLayout
    preprocess: Preprocess
    subject: str
    calibration: dict[str, Any]
    fingerprint: dict[str, str]
    sources: list[str]
    label_protocol: str
    input: dict[str, Any]
    intended_use: str = INTENDED_USE
    clip: dict[str, Any] | None = None
    files: dict[str, dict[str, Any]] | None = None
    species: str = ""
    view: str = ""
    face_px: list[int] | None = None
    side: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not self.species:
            object.__setattr__(self, "species", species_of(self.task))

    def to_json(self) -> dict[str, Any]:
        value = asdict(self) | {"layout": [asdict(output) for output in self.layout.outputs]}
        return {"schema": PACKAGE_SCHEMA, **value}

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Manifest:
        try:
            schema = value["schema"]
            if schema > PACKAGE_SCHEMA:
                raise InputError(
                    f"{where}: schema {schema} is newer than this version reads ({PACKAGE_SCHEMA}); update affect-engine"
                )
            rest = {key: part for key, part in value.items() if key not in ("schema", "layout", "preprocess")}
            layout, preprocess = TargetLayout.from_json(value["layout"]), Preprocess.from_json(value["preprocess"])
            return cls(layout=layout, preprocess=preprocess, **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: not a manifest of this engine ({error}); export the model anew") from error


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
        """Unit -> the probability from which it is said to hold; those that are not here hold from .5 on."""
        return self.manifest.calibration.get("thresholds", {})

    @property
    def conformal(self) -> Conformal | None:
        """Sets of labels, where they were fitted."""
        value = self.manifest.calibration.get("conformal")
        return Conformal.from_json(value, self.manifest.name) if value else None

    def conformal_at(self, coverage: float) -> Conformal:
        """Raises InputError where the sets were fitted for another coverage, or not at all."""
        checked_coverage(coverage)
        found, name = self.conformal, self.manifest.name
        if self.clip:
            raise InputError(f"coverage: {name} sees clips, and conformal sets hold for stills; leave the coverage out")
        if found is None or abs(found.coverage - coverage) > 1e-9:
            there = f"for coverage {found.coverage:g} only" if found else "for none"
            raise InputError(
                f"coverage: {coverage:g} asked for, {name} has sets {there}; fit them: affect calibrate RUN "
                f"--coverage {coverage:g}"
            )
        return found

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
        """A package folder, the run that holds one, one of our .onnx files, or the name of a model that comes along: `emotion`.

        Raises: InputError where there is none, or a byte of it has changed.
        """
        path = zoo.find(path)
        if path.suffix == ".onnx":
            return cls._open_file(path)
        folder = path / "package" if (path / "package" / MANIFEST).is_file() else path
        if not (folder / MANIFEST).is_file():
            remedy = (
                f"export it first: affect export {path}"
                if (path / "config.yaml").is_file()
                else f"name a run, its package folder, or a model that comes along: {', '.join(zoo.names())}"
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
        from affect.engine.system.onnxruntime import metadata_of

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
