"""Pictures in, faces with their outputs out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affect.engine.log import say
from affect.engine.package import ModelPackage, graph_names
from affect.engine.runtime.backends import OnnxBackend
from affect.engine.runtime.facs import PSPI_PROXY, pspi_proxy
from affect.shards.errors import InputError
from affect.shards.images import BadImage, decode
from affect.shards.schema import Kind

BATCH = 32  # pictures a call of the graph
SURE = 0.5  # probability of the first label from which it is called sure
UNIT_MARGIN = 0.1  # units are sure where each is at least so far from its threshold

Picture = np.ndarray | str | Path


@dataclass(frozen=True)
class Output:
    """One output of one face. Classes and multilabel: values are probabilities in the order of names, labels what holds.

    Scalars: values in the units of the manifest, no labels.
    """

    names: tuple[str, ...]
    values: np.ndarray
    labels: tuple[str, ...]
    sure: bool
    kind: Kind = "scalars"


@dataclass(frozen=True)
class Face:
    """box: x, y, width, height in pixels from the top left. score: of the detector. track: its identity over frames.

    outputs: package -> output name -> Output. probs, label, sure: shortcuts to the first Classes output.
    """

    box: tuple[float, float, float, float]
    score: float
    track: int | None
    outputs: dict[str, dict[str, Output]]

    @property
    def _first(self) -> Output:
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
    """A picture's faces; time_s is None where the source has no clock."""

    time_s: float | None
    faces: list[Face]


class Engine:
    """A package that answers.

        engine = Engine.load("runs/smoke/package")
        print(engine.predict("face.jpg")[0].faces[0].label)

    Pictures are RGB. The subject `full` takes each picture as one face, already cropped.
    """

    def __init__(self, package: ModelPackage, device: str = "cpu") -> None:
        self.package, self.manifest = package, package.manifest
        self._backend = OnnxBackend(package, device)

    @classmethod
    def load(cls, path: str | Path, *, backend: str = "auto", device: str = "auto") -> Engine:
        """A package folder, a run that was exported, or one of our .onnx files. Raises InputError, a ValueError."""
        if backend not in ("auto", "onnxruntime"):
            raise InputError(f"backend: {backend!r}; expected auto or onnxruntime")
        package = ModelPackage.open(path)
        if package.clip and cls is Engine:
            from affect.engine.runtime.clip import ClipEngine

            return ClipEngine(package, _best_device() if device == "auto" else device)
        return cls(package, _best_device() if device == "auto" else device)

    def predict(self, pictures: Picture | Sequence[Picture], times_s: Sequence[float] | None = None) -> list[Frame]:
        """One Frame for each picture.

        pictures: one or many of: (H, W, 3) RGB or (H, W) gray uint8 arrays, or files; also one (N, H, W, 3) array.
        times_s: seconds of each, where they are frames of a video.
        Raises: InputError naming the picture that is neither.
        """
        images = [_image(picture, i) for i, picture in enumerate(_several(pictures))]
        if times_s is not None and len(times_s) != len(images):
            raise InputError(f"times_s: {len(times_s)} times for {len(images)} pictures")
        frames: list[Frame] = []
        for start in range(0, len(images), BATCH):
            frames += self._frames(images[start : start + BATCH])
        return frames if times_s is None else [Frame(t, frame.faces) for t, frame in zip(times_s, frames, strict=True)]

    def _frames(self, images: list[np.ndarray]) -> list[Frame]:
        values = self._backend.run(np.stack([self.package.preprocess(image) for image in images]))
        frames = []
        for i, image in enumerate(images):
            height, width = image.shape[:2]
            outputs = outputs_of(self.package, {name: of_all[i] for name, of_all in values.items()})
            frames.append(Frame(None, [Face((0.0, 0.0, float(width), float(height)), 1.0, None, {self.manifest.name: outputs})]))
        return frames


def outputs_of(package: ModelPackage, values: Mapping[str, np.ndarray]) -> dict[str, Output]:
    """Of one face, by name; with the action units of the pain index also its proxy. values: of the graph, (C,) each."""
    found: dict[str, Output] = {}
    for output in package.layout.outputs:
        if output.kind == "scalars":
            found[output.name] = Output(output.names, values[f"{output.name}.values"], (), True)
        elif output.kind == "multilabel":
            found[output.name] = units = _units(output.names, values[f"{output.name}.probs"], package.thresholds)
            proxy = pspi_proxy({name: name in units.labels for name in output.names})
            if proxy is not None:
                found[PSPI_PROXY] = Output((output.name,), np.array([proxy], np.float32), (), units.sure)
        else:
            found[output.name] = _classes(output.names, values[f"{output.name}.probs"])
    return found


def columns_of(package: ModelPackage) -> tuple[str, ...]:
    """Of the values of `outputs_of`, in its order, `<output>.<name>`."""
    zeros = {name: np.zeros(len(o.names), np.float32) for o in package.layout.outputs for name in graph_names(o)}
    return tuple(f"{name}.{of}" for name, output in outputs_of(package, zeros).items() for of in output.names)


def _classes(names: tuple[str, ...], probs: np.ndarray) -> Output:
    best = int(probs.argmax())
    return Output(names, probs, (names[best],), bool(probs[best] >= SURE), "classes")


def _units(names: tuple[str, ...], probs: np.ndarray, thresholds: Mapping[str, float]) -> Output:
    at = np.array([thresholds.get(name, 0.5) for name in names])
    holds = probs >= at
    labels = tuple(name for name, there in zip(names, holds.tolist(), strict=True) if there)
    return Output(names, probs, labels, bool((np.abs(probs - at) >= UNIT_MARGIN).all()), "multilabel")


def _best_device() -> str:
    """CUDA where ONNX Runtime has it and there is a GPU, else the CPU; the choice is said."""
    import onnxruntime as ort

    has_gpu = Path("/proc/driver/nvidia/version").is_file() and "CUDAExecutionProvider" in ort.get_available_providers()
    device = "cuda" if has_gpu else "cpu"
    say(f"engine: ONNX Runtime on {device} ({'the GPU driver and the CUDA provider are there' if has_gpu else 'no GPU'})")
    return device


def _several(pictures: Picture | Sequence[Picture]) -> Iterable[Picture]:
    if isinstance(pictures, str | Path):
        return [pictures]
    if isinstance(pictures, np.ndarray):
        if pictures.ndim == 4:
            return list(pictures)
        return [pictures]
    return pictures


def _image(picture: Picture, index: int) -> np.ndarray:
    if isinstance(picture, str | Path):
        try:
            return decode(Path(picture).read_bytes())
        except OSError as error:
            raise InputError(f"{picture}: cannot be read: {error.strerror}") from error
        except BadImage as error:
            raise InputError(f"{picture}: {error}; expected a picture file") from error
    if not isinstance(picture, np.ndarray):
        raise InputError(
            f"picture {index}: found {type(picture).__name__}; expected a uint8 array (H, W, 3) in RGB, or a file name"
        )
    shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    if picture.dtype != np.uint8 or not shaped or 0 in picture.shape:
        hint = "; values 0..1 become pixels by (255 * x).astype(np.uint8)" if picture.dtype.kind == "f" else ""
        raise InputError(f"picture {index}: found {picture.shape} {picture.dtype}; expected (H, W, 3) or (H, W) uint8{hint}")
    return picture
