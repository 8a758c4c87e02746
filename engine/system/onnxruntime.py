"""ONNX Runtime sessions, checked."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from affect.shards.errors import InputError


def session(path: Path, providers: list[str], threads: int = 0) -> ort.InferenceSession:
    """An ONNX Runtime session; says so where it did not get the provider that was asked for."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    ort.set_default_logger_severity(4)  # a provider that does not load is said below, in one line
    options.intra_op_num_threads = threads
    try:
        made = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own kinds share no base
        raise InputError(f"{path}: ONNX Runtime cannot load it ({error}); export the model anew") from error
    if made.get_providers()[0] != providers[0]:
        raise InputError(f"{path}: asked ONNX Runtime for {providers[0]}, it gives {made.get_providers()[0]}; take device='cpu'")
    return made


def metadata_of(path: Path) -> dict[str, str]:
    return session(path, ["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
