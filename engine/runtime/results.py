"""Results: frames with their faces, clips, and of each the outputs of every package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affect.engine.calibration.conformal import Conformal
from affect.engine.package.graphs import graph_names
from affect.engine.package.model_package import ModelPackage
from affect.engine.runtime.pspi import PSPI_PROXY, pspi_proxy
from affect.engine.runtime.result_row import COLUMNS, Row
from affect.shards.errors import InputError
from affect.shards.schema import Kind

if TYPE_CHECKING:
    import pandas as pd

SURE = 0.5  # probability from which a label is called sure
UNIT_MARGIN = 0.1  # a multilabel output is sure where each probability is at least so far from its threshold


@dataclass(frozen=True)
class FaceOutput:
    """One output of one face.

    Classes and multilabel: values are probabilities in the order of names, labels the predicted ones. Scalars: values in the
    units of the manifest, no labels.
    set: where a coverage was asked for, the labels of the conformal set, the most probable first; then sure: the set is the
    predicted label alone. Empty without a coverage, and for outputs that sets were not fitted for.
    """

    names: tuple[str, ...]
    values: np.ndarray
    labels: tuple[str, ...]
    sure: bool
    kind: Kind = "scalars"
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Face:
    """A detected face.

    box: x, y, width, height in pixels from the top left. score: of the detector. track: its identity over frames.

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
        outputs = (output for package in self.outputs.values() for output in package.values())
        output = next((output for output in outputs if output.kind == "classes"), None)
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
    """The faces of a picture, the best detection first; time_s is None where the source has no clock.

    number: of the frame in its source, from 0. source: the file or camera. packages: that read it.
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
    """A list of frames, which converts to a table."""

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each package, frame and face, also for frames without one; the columns of predictions.csv."""
        import pandas as pd

        rows = [row for frame in self for row in rows_of(frame)]
        columns = list(dict.fromkeys(name for row in rows for name in row.values))
        sets = list(dict.fromkeys(name for row in rows for name in row.sets))
        table = pd.DataFrame([row.cells(columns, sets) for row in rows], columns=[*COLUMNS, *columns, *sets])
        return table.astype(dict.fromkeys(("frame", "face", "track"), "Int64") | {"sure": "boolean"})


def rows_of(frame: Frame) -> Iterator[Row]:
    """Yield a row for each face and package; a frame without a face is one row for each package."""
    for package in frame.packages if not frame.faces else ():
        yield Row(package, frame.number, frame.time_s, frame.source)
    for number, face in enumerate(frame.faces):
        for package, outputs in face.outputs.items():
            main = main_output(outputs)
            yield Row(
                package,
                frame.number,
                frame.time_s,
                frame.source,
                number,
                face.track,
                face.box,
                face.score,
                face.blur,
                "+".join(main.labels) if main else None,
                main.sure if main else None,
                values_of(outputs),
                sets_of(outputs),
            )


def main_output(outputs: Mapping[str, FaceOutput]) -> FaceOutput | None:
    """Return the output whose labels stand for the package: its first one of classes, else its first multilabel one."""
    ranked = [[output for output in outputs.values() if output.kind == kind] for kind in ("classes", "multilabel")]
    return next((output for kind in ranked for output in kind), None)


def values_of(outputs: Mapping[str, FaceOutput]) -> dict[str, float]:
    """Return {`<output>.<name>`: value}."""
    return {
        f"{name}.{part}": value
        for name, output in outputs.items()
        for part, value in zip(output.names, output.values.tolist(), strict=True)
    }


def sets_of(outputs: Mapping[str, FaceOutput]) -> dict[str, str]:
    """Return {`<output>.set`: its labels, joined by `|`}, of outputs that have one."""
    return {set_column(name): "|".join(output.set) for name, output in outputs.items() if output.set}


def set_column(output: str) -> str:
    return f"{output}.set"


def outputs_of(
    package: ModelPackage,
    values: Mapping[str, np.ndarray],
    sure: float = SURE,
    active: Mapping[str, Sequence[int]] | None = None,
    conformal: Conformal | None = None,
) -> dict[str, FaceOutput]:
    """Return the outputs of one face by name; with the action units of the pain index also its proxy.

    values: of the graph, (C,) each. sure: probability from which a label of classes is sure. active: output -> indices of the
    predicted labels after smoothing; without it those of the values themselves. conformal: the sets of one output, which decide
    there what is sure.
    """
    outputs: dict[str, FaceOutput] = {}
    for output in package.layout.outputs:
        chosen = (active or {}).get(output.name)
        if output.kind == "scalars":
            outputs[output.name] = FaceOutput(output.names, values[f"{output.name}.values"], (), True)
        elif output.kind == "multilabel":
            outputs[output.name] = units = _multilabel(
                output.names, values[f"{output.name}.probs"], thresholds_of(package, output.names), chosen
            )
            proxy = pspi_proxy({name: name in units.labels for name in output.names})
            if proxy is not None:
                outputs[PSPI_PROXY] = FaceOutput((output.name,), np.array([proxy], np.float32), (), units.sure)
        else:
            sets = conformal if conformal and conformal.output == output.name else None
            outputs[output.name] = _classes(output.names, values[f"{output.name}.probs"], sure, chosen, sets)
    return outputs


def columns_of(package: ModelPackage) -> tuple[str, ...]:
    """Return `<output>.<name>` of all values of `outputs_of`, in its order."""
    zeros = {name: np.zeros(len(o.names), np.float32) for o in package.layout.outputs for name in graph_names(o)}
    return tuple(values_of(outputs_of(package, zeros)))


def thresholds_of(package: ModelPackage, names: Sequence[str]) -> np.ndarray:
    """(C,) thresholds of a multilabel output."""
    return np.array([package.thresholds.get(name, 0.5) for name in names])


def _classes(
    names: tuple[str, ...], probs: np.ndarray, sure: float, chosen: Sequence[int] | None, conformal: Conformal | None
) -> FaceOutput:
    best = int(probs.argmax()) if chosen is None else chosen[0]
    if conformal is None:
        return FaceOutput(names, probs, (names[best],), bool(probs[best] >= sure), "classes")
    members = np.flatnonzero(conformal.sets(probs[None])[0])
    labels = tuple(names[i] for i in members[np.argsort(-probs[members], kind="stable")])
    return FaceOutput(names, probs, (names[best],), labels == (names[best],), "classes", labels)


def _multilabel(names: tuple[str, ...], probs: np.ndarray, thresholds: np.ndarray, chosen: Sequence[int] | None) -> FaceOutput:
    active = np.flatnonzero(probs >= thresholds).tolist() if chosen is None else chosen
    labels = tuple(names[i] for i in active)
    return FaceOutput(names, probs, labels, bool((np.abs(probs - thresholds) >= UNIT_MARGIN).all()), "multilabel")
