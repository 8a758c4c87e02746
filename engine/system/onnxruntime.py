"""ONNX Runtime sessions, with the provider that was asked for."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from affect.shards.errors import InputError


def session(path: Path, providers: list[str], threads: int = 0) -> ort.InferenceSession:
    """Open a graph. Raises InputError where it does not load, or not with the first of the providers."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    ort.set_default_logger_severity(4)  # a provider that does not load is named below, in one line
    options.intra_op_num_threads = threads
    try:
        opened = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own kinds share no base
        raise InputError(f"{path}: ONNX Runtime cannot load it ({error}); export the model anew") from error
    if opened.get_providers()[0] != providers[0]:
        raise InputError(
            f"{path}: asked ONNX Runtime for {providers[0]}, it gives {opened.get_providers()[0]}; take device='cpu'"
        )
    return opened


def metadata_of(path: Path) -> dict[str, str]:
    return session(path, ["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
