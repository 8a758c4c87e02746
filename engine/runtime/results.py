"""What is said of a frame: its faces, and of each the outputs of every package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affect.engine.calibration.conformal import Conformal
from affect.engine.package.graphs import graph_names
from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.pspi import PSPI_PROXY, pspi_proxy
from affect.engine.runtime.writers.prediction_table import FIXED, Row
from affect.shards.errors import InputError
from affect.shards.schema import Kind

if TYPE_CHECKING:
    import pandas as pd

SURE = 0.5  # probability of the first label from which it is called sure
UNIT_MARGIN = 0.1  # units are sure where each is at least so far from its threshold


@dataclass(frozen=True)
class FaceOutput:
    """One output of one face. Classes and multilabel: values are probabilities in the order of names, labels what holds.

    Scalars: values in the units of the manifest, no labels.
    set: where a coverage was asked for, the labels that it may be, the most probable first; then sure: it is one label, the
    one that is said. Empty without a coverage, and of outputs that sets were not fitted for.
    """

    names: tuple[str, ...]
    values: np.ndarray
    labels: tuple[str, ...]
    sure: bool
    kind: Kind = "scalars"
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Face:
    """box: x, y, width, height in pixels from the top left. score: of the detector. track: its identity over frames.

    outputs: package -> output name -> FaceOutput. probs, label, sure: shortcuts to the first output of classes. blur: the
    variance of the Laplacian, near 0 where blurred.
    """

    box: tuple[float, float, float, float]
    score: float
    track: int | None
    outputs: dict[str, dict[str, FaceOutput]]
    blur: float | None = None

    @property
    def _first(self) -> FaceOutput:
        found = (output for of_package in self.outputs.values() for output in of_package.values() if output.kind == "classes")
        output = next(found, None)
        if output is None:
            raise InputError("probs, label, sure: the package has no output of classes; take face.outputs[package][output]")
        return output

    @property
    def probs(self) -> dict[str, float]:
        return dict(zip(self._first.names, self._first.values.tolist(), strict=True))

    @property
    def label(self) -> str:
        return self._first.labels[0]

    @property
    def sure(self) -> bool:
        return self._first.sure


@dataclass(frozen=True)
class Frame:
    """A picture's faces, the best detection first; time_s is None where the source has no clock.

    number: of the frame in its source, from 0. source: the file or camera. packages: which were asked.
    """

    time_s: float | None
    faces: list[Face]
    number: int = 0
    source: str = ""
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """The outputs of a stretch of a recording. start_s, end_s: seconds of the first and the last frame that the model saw.

    outputs: package -> output name -> FaceOutput. track: of the subject, in a stream; None of a recording that is read whole.
    """

    start_s: float
    end_s: float
    outputs: dict[str, dict[str, FaceOutput]]
    track: int | None = None


class Frames(list[Frame]):
    """Frames, which are also a table."""

    def to_pandas(self) -> pd.DataFrame:
        """A row for each package, frame and face, also for frames without one; the columns of predictions.csv."""
        import pandas as pd

        rows = [row for frame in self for row in rows_of(frame)]
        columns = list(dict.fromkeys(name for row in rows for name in row.values))
        sets = list(dict.fromkeys(name for row in rows for name in row.sets))
        table = pd.DataFrame([row.cells(columns, sets) for row in rows], columns=[*FIXED, *columns, *sets])
        return table.astype(dict.fromkeys(("frame", "face", "track"), "Int64") | {"sure": "boolean"})


def rows_of(frame: Frame) -> Iterator[Row]:
    """Face by face, and of each package by package; a frame without a face is a row of each package."""
    for package in frame.packages if not frame.faces else ():
        yield Row(package, frame.number, frame.time_s, frame.source)
    for number, face in enumerate(frame.faces):
        for package, outputs in face.outputs.items():
            said = named(outputs)
            yield Row(
                package, frame.number, frame.time_s, frame.source, number, face.track, face.box, face.score, face.blur,
                "+".join(said.labels) if said else None, said.sure if said else None, values_of(outputs), sets_of(outputs),
            )  # fmt: skip


def named(outputs: Mapping[str, FaceOutput]) -> FaceOutput | None:
    """The output whose labels stand for the package: its first one of classes, else its first one with labels."""
    ranked = [[output for output in outputs.values() if output.kind == kind] for kind in ("classes", "multilabel")]
    return next((output for some in ranked for output in some), None)


def values_of(outputs: Mapping[str, FaceOutput]) -> dict[str, float]:
    """`<output>.<name>` -> value."""
    return {
        f"{name}.{of}": value
        for name, output in outputs.items()
        for of, value in zip(output.names, output.values.tolist(), strict=True)
    }


def sets_of(outputs: Mapping[str, FaceOutput]) -> dict[str, str]:
    """`<output>.set` -> its labels, joined by `|`; of outputs that have one."""
    return {set_column(name): "|".join(output.set) for name, output in outputs.items() if output.set}


def set_column(output: str) -> str:
    return f"{output}.set"


def outputs_of(
    package: ModelPackage,
    values: Mapping[str, np.ndarray],
    sure: float = SURE,
    holding: Mapping[str, Sequence[int]] | None = None,
    conformal: Conformal | None = None,
) -> dict[str, FaceOutput]:
    """Of one face, by name; with the action units of the pain index also its proxy.

    values: of the graph, (C,) each. sure: probability from which a label of classes is sure. holding: output -> the labels that
    hold, where the frames before have a say; else those that the values speak for. conformal: the sets of one output, which
    rule there what is sure.
    """
    found: dict[str, FaceOutput] = {}
    for output in package.layout.outputs:
        held = (holding or {}).get(output.name)
        if output.kind == "scalars":
            found[output.name] = FaceOutput(output.names, values[f"{output.name}.values"], (), True)
        elif output.kind == "multilabel":
            found[output.name] = units = _units(
                output.names, values[f"{output.name}.probs"], thresholds_of(package, output.names), held
            )
            proxy = pspi_proxy({name: name in units.labels for name in output.names})
            if proxy is not None:
                found[PSPI_PROXY] = FaceOutput((output.name,), np.array([proxy], np.float32), (), units.sure)
        else:
            of = conformal if conformal and conformal.output == output.name else None
            found[output.name] = _classes(output.names, values[f"{output.name}.probs"], sure, held, of)
    return found


def columns_of(package: ModelPackage) -> tuple[str, ...]:
    """Of the values of `outputs_of`, in its order, `<output>.<name>`."""
    zeros = {name: np.zeros(len(o.names), np.float32) for o in package.layout.outputs for name in graph_names(o)}
    return tuple(values_of(outputs_of(package, zeros)))


def thresholds_of(package: ModelPackage, names: Sequence[str]) -> np.ndarray:
    """(C,) of the units of a multilabel output."""
    return np.array([package.thresholds.get(name, 0.5) for name in names])


def _classes(
    names: tuple[str, ...], probs: np.ndarray, sure: float, held: Sequence[int] | None, conformal: Conformal | None
) -> FaceOutput:
    best = int(probs.argmax()) if held is None else held[0]
    if conformal is None:
        return FaceOutput(names, probs, (names[best],), bool(probs[best] >= sure), "classes")
    there = np.flatnonzero(conformal.sets(probs[None])[0])
    may = tuple(names[i] for i in there[np.argsort(-probs[there], kind="stable")])
    return FaceOutput(names, probs, (names[best],), may == (names[best],), "classes", may)


def _units(names: tuple[str, ...], probs: np.ndarray, at: np.ndarray, held: Sequence[int] | None) -> FaceOutput:
    there = np.flatnonzero(probs >= at).tolist() if held is None else held
    labels = tuple(names[i] for i in there)
    return FaceOutput(names, probs, labels, bool((np.abs(probs - at) >= UNIT_MARGIN).all()), "multilabel")
