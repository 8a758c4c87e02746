"""The manifest of a package: everything that a consumer must know of a deployed model. Needs neither torch nor onnx."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from affect.engine.config.preprocess import Preprocess
from affect.engine.tasks import TASKS
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout

PACKAGE_SCHEMA = 1

INTENDED_USE = (
    "Research on facial expression. Not a diagnosis, not a lie detector, not a measure of what someone feels; "
    "inferring emotions at work or in education is prohibited in the EU (AI Act, article 5)."
)


@dataclass(frozen=True)
class Manifest:
    """What a package says of its model.

    name: of the run. layout: outputs and their names, in column order. input: of the graph, `images`.

    subject: of the pictures: `full`, already cropped to the face, or one that a detector finds (runtime/vision/subject.py).
    species: whose faces: human, cattle, mouse, or empty where it is not known; by default the task's.
    view: from where faces are seen, in free words. face_px: shorter side of most training faces in pixels, from and to, as they
        were packed.
    clip: of a clip model: `view`, which frames it sees (ClipConfig); window_s, the time that they span; rate_hz, frames a
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
        if not self.species and self.task in TASKS:
            object.__setattr__(self, "species", TASKS[self.task].species)

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
