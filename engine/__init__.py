"""Reads faces: `from affect.engine import Engine`.

Importing this, and running a package through ONNX Runtime, loads neither torch nor timm nor DALI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affect.engine.runtime.clip_engine import Clip, ClipEngine
    from affect.engine.runtime.engine import Engine
    from affect.engine.runtime.frame_reader import Reader
    from affect.engine.runtime.results import Face, Frame, Frames
    from affect.engine.runtime.smoothing import OFF, Smoothing
    from affect.engine.runtime.sources.open_source import open_source
    from affect.engine.runtime.vision.prepare import Search

PLACES = {  # name -> the module of the runtime that has it
    "Clip": "clip_engine", "ClipEngine": "clip_engine", "Engine": "engine", "Face": "results", "Frame": "results",
    "Frames": "results", "OFF": "smoothing", "Reader": "frame_reader", "Search": "vision.prepare", "Smoothing": "smoothing",
    "open_source": "sources.open_source",
}  # fmt: skip
__all__ = [
    "OFF",
    "Clip",
    "ClipEngine",
    "Engine",
    "Face",
    "Frame",
    "Frames",
    "Reader",
    "Search",
    "Smoothing",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name in PLACES:
        return getattr(import_module(f"affect.engine.runtime.{PLACES[name]}"), name)
    raise AttributeError(f"module 'affect.engine' has no attribute {name!r}")
