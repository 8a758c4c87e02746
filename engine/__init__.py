"""Reads faces: `from affect.engine import Engine`.

Importing this, and running a package through ONNX Runtime, loads neither torch nor timm nor DALI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affect.engine.runtime.answers import Face, Frame, Frames
    from affect.engine.runtime.clip import Clip, ClipEngine
    from affect.engine.runtime.frame import Engine
    from affect.engine.runtime.prepare import Search
    from affect.engine.runtime.reader import Reader
    from affect.engine.runtime.smooth import OFF, Smoothing
    from affect.engine.runtime.sources import open_source

PLACES = {  # name -> the module of the runtime that has it
    "Clip": "clip", "ClipEngine": "clip", "Engine": "frame", "Face": "answers", "Frame": "answers", "Frames": "answers",
    "OFF": "smooth", "Reader": "reader", "Search": "prepare", "Smoothing": "smooth", "open_source": "sources",
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
