"""`affect doctor`: which libraries are installed and work, and which device and precision would be used."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from importlib import metadata


def _torch() -> str:
    import torch

    from affect.engine.system.device import choose_device, choose_precision, describe

    device = choose_device("auto")
    dtype, reason = choose_precision("auto", device)
    return f"{torch.__version__}; training on {describe(device)} in {dtype or 'float32'} ({reason})"


def _dali() -> str:
    import nvidia.dali as dali

    return f"{dali.__version__}; fast loading" + ("" if hasattr(dali.fn, "clahe") else "; too old: no CLAHE, update it")


def _onnxruntime() -> str:
    import onnxruntime as ort

    return f"{ort.__version__}; {', '.join(ort.get_available_providers())}"


def _openvino() -> str:
    import openvino

    from affect.engine.system import openvino as ov

    abilities = ov.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return f"{openvino.__version__.partition('-')[0]}; on this CPU " + ("bf16 and float32" if "BF16" in abilities else "float32")


def _nncf() -> str:
    return metadata.version("nncf")  # importing it takes seconds


def _version(module: str) -> Callable[[], str]:
    return lambda: str(importlib.import_module(module).__version__)


CHECKS: dict[str, tuple[Callable[[], str], str]] = {
    "torch": (_torch, "needed"),
    "timm": (_version("timm"), "needed"),
    "triton": (_version("triton"), "only for the fused losses on a GPU"),
    "nvidia.dali": (_dali, "without it nothing is decoded on a GPU"),
    "onnxruntime": (_onnxruntime, "needed to run packages"),
    "openvino": (_openvino, "packages are faster with it on a CPU"),
    "nncf": (_nncf, "only for affect export --int8"),
    "tensorrt_rtx": (_version("tensorrt_rtx"), "only for TensorRT engines"),
    "cv2": (_version("cv2"), "needed"),
    "av": (_version("av"), "needed for video"),
}


def report() -> Iterator[tuple[str, str]]:
    """Yield (name, finding) of each library; one that does not load gives its error and what it is for."""
    yield "cores", str(os.cpu_count())
    for name, (check, purpose) in CHECKS.items():
        try:
            yield name, check()
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            yield name, f"NOT WORKING ({type(error).__name__}: {error}); {purpose}"
