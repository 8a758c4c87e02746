"""TensorRT engines of our graphs, through `tensorrt` or `tensorrt_rtx`, whichever is installed; stored in `engines/` beside them.

An engine is of one graph, one version of the library, one GPU, one profile and one precision: these are its facts, in a JSON
beside it, and one whose facts differ is never loaded. `tensorrt_rtx` compiles its kernels where the engine runs, so that it
builds without a GPU, for several at once; `tensorrt` needs the GPU that it builds for.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affect.engine.package.graphs import SIDE
from affect.engine.system.log import say
from affect.shards.errors import InputError

LIBRARIES = ("tensorrt", "tensorrt_rtx")
ENGINES = "engines"
EVERY_RTX = ("8.0", "8.6", "8.9", "12.0", "12.1")  # Turing (7.5) has no float32 matrix product there


@dataclass(frozen=True)
class Gpu:
    """A GPU that an engine is for.

    name: as the driver has it; empty: any of the capabilities. capabilities: `8.9`, one of a real GPU.
    """

    name: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """Rows of a call: fewest, those it is tuned for, most."""

    least: int = 1
    usual: int = 1
    most: int = 32


@dataclass(frozen=True)
class Facts:
    """What an engine was built from and for."""

    graph_sha256: str
    library: str
    gpu: Gpu
    profile: Profile
    precision: str

    @classmethod
    def of(cls, graph: Path, library: Any, gpu: Gpu, profile: Profile, precision: str) -> Facts:
        sha256 = hashlib.sha256(graph.read_bytes()).hexdigest()
        if is_rtx(library):  # its engines run on every GPU of the capability
            gpu = Gpu("", gpu.capabilities)
        return cls(sha256, f"{library.__name__} {library.__version__}", gpu, profile, precision)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Facts:
        gpu = Gpu(value["gpu"]["name"], tuple(value["gpu"]["capabilities"]))
        return cls(value["graph_sha256"], value["library"], gpu, Profile(**value["profile"]), value["precision"])

    def serve(self, wanted: Facts) -> bool:
        """Whether an engine of these facts serves the wanted ones: built for their GPU, perhaps for others, too."""
        same = asdict(self) | {"gpu": None} == asdict(wanted) | {"gpu": None}
        return same and self.gpu.name == wanted.gpu.name and set(self.gpu.capabilities) >= set(wanted.gpu.capabilities)

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def library() -> Any:
    """Raises InputError where neither is installed, or it does not load."""
    reasons = []
    for name in LIBRARIES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {error}")
    raise InputError(f"TensorRT: {'; '.join(reasons)}; pip install tensorrt-rtx, or tensorrt for a GPU of a data centre")


def is_rtx(library: Any) -> bool:
    return bool(library.__name__ == "tensorrt_rtx")


def this_gpu() -> Gpu:
    """The first GPU. Raises InputError where there is none."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise InputError("TensorRT runs with cuda-bindings: pip install cuda-bindings") from error
    status, properties = runtime.cudaGetDeviceProperties(0)
    if status != runtime.cudaError_t.cudaSuccess:
        raise InputError(f"TensorRT: no GPU here ({status.name})")
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(name.rstrip("\0"), (f"{properties.major}.{properties.minor}",))


def gpu_for(library: Any, capabilities: Sequence[str] = ()) -> Gpu:
    """Return the GPU of the capabilities; by default this machine's, and without one all that TensorRT-RTX builds for."""
    if capabilities:
        if not is_rtx(library):
            raise InputError("--gpu: tensorrt builds for the GPU at hand; only tensorrt-rtx builds for others")
        return Gpu("", tuple(capabilities))
    try:
        return this_gpu()
    except InputError:
        if is_rtx(library):
            return Gpu("", EVERY_RTX)
        raise


def engine_of(graph: Path, gpu: Gpu, profile: Profile | None = None, precision: str = "float32") -> Path:
    """Return the engine of a graph for a GPU, built unless it is there. Raises InputError where it cannot be built."""
    facts = Facts.of(graph, library(), gpu, profile or Profile(), precision)
    folder = graph.parent / ENGINES
    stale = []
    for path in sorted(folder.glob(f"{graph.stem}-*.json")):
        if (stored := _facts_of(path)) and stored.serve(facts) and path.with_suffix(".engine").is_file():
            return path.with_suffix(".engine")
        if stored and stored.graph_sha256 == facts.graph_sha256:
            stale.append(_difference(stored, facts))
    if stale:
        say(f"TensorRT: {folder}: {'; '.join(stale)}; left alone")
    say(f"TensorRT: building {graph.name} for {gpu.name or ', '.join(gpu.capabilities)} with {facts.library}")
    data = build(graph, gpu, facts.profile)
    path = folder / f"{graph.stem}-{facts.key}.engine"
    try:
        folder.mkdir(exist_ok=True)
        path.write_bytes(data)
        about = asdict(facts) | {"sha256": hashlib.sha256(data).hexdigest()}
        path.with_suffix(".json").write_text(json.dumps(about, indent=1))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}; TensorRT stores its engines there") from error
    return path


def read(path: Path, wanted: Facts) -> bytes:
    """Return the bytes of an engine. Raises InputError where it is of another graph, library, GPU, profile or precision."""
    stored = _facts_of(path.with_suffix(".json"))
    if not stored:
        raise InputError(f"{path}: no facts beside it; delete it, it is built anew")
    if not stored.serve(wanted):
        raise InputError(f"{path}: {_difference(stored, wanted)}; delete it, it is built anew")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != json.loads(path.with_suffix(".json").read_text())["sha256"]:
        raise InputError(f"{path}: its bytes have changed since it was built; delete it, it is built anew")
    return data


def build(graph: Path, gpu: Gpu, profile: Profile) -> bytes:
    """Build an engine. Numbers are of the graph's own kinds (strongly typed), float32 without TF32."""
    trt = library()
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(_cast_first(graph)):
        raise InputError(f"{graph}: TensorRT cannot read it: {parser.get_error(0).desc()}")
    if any(network.get_input(i).name == SIDE for i in range(network.num_inputs)):
        raise InputError(f"{graph}: takes side signals, which are not given to TensorRT; take onnxruntime or openvino")
    config, shapes = builder.create_builder_config(), builder.create_optimization_profile()
    config.clear_flag(trt.BuilderFlag.TF32)
    for i in range(network.num_inputs):
        row = tuple(network.get_input(i).shape)[1:]
        shapes.set_shape(network.get_input(i).name, *((rows, *row) for rows in asdict(profile).values()))
    config.add_optimization_profile(shapes)
    if is_rtx(trt):
        _for_capabilities(trt, config, gpu.capabilities)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError(f"{graph}: TensorRT cannot build it: {log.last or 'no reason given'}")
    return bytes(engine)


def _for_capabilities(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    known = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(capabilities)
    for i, capability in enumerate(capabilities):
        name = f"SM{capability.replace('.', '')}"
        if name not in known:
            has = ", ".join(f"{key[2:-1]}.{key[-1]}" for key in known if key.startswith("SM"))
            raise InputError(f"TensorRT-RTX has no compute capability {capability}; it has {has}; others need tensorrt")
        config.set_compute_capability(known[name], i)


def _cast_first(path: Path) -> bytes:
    """Return the graph with its pixels cast to float32 first: TensorRT moves no uint8. The numbers are the same."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise InputError(f"{path}: TensorRT cannot read it: no ONNX graph ({error}); export the model anew") from error
    for image in model.graph.input:
        if image.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            for node in model.graph.node:
                for i, name in enumerate(node.input):
                    if name == image.name:
                        node.input[i] = f"{name}.float"
            cast = onnx.helper.make_node("Cast", [image.name], [f"{image.name}.float"], to=onnx.TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
    return bytes(model.SerializeToString())


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        """Keeps the last error; the library prints nothing."""

        last = ""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message

    return Log()


def _facts_of(path: Path) -> Facts | None:
    """Read the facts; None where there are none, or they cannot be read."""
    try:
        return Facts.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _difference(stored: Facts, wanted: Facts) -> str:
    if stored.graph_sha256 != wanted.graph_sha256:
        return "engine of another graph"
    if stored.library != wanted.library:
        return f"engine of another version ({stored.library}, here {wanted.library})"
    if stored.profile != wanted.profile or stored.precision != wanted.precision:
        return f"engine of another profile or precision ({stored.precision}, {asdict(stored.profile)})"
    here = wanted.gpu.name or ", ".join(wanted.gpu.capabilities)
    return f"engine of another GPU ({stored.gpu.name or ', '.join(stored.gpu.capabilities)}, here {here})"
