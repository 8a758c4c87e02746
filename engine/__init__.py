"""The public face: `from affect.engine import Engine`.

Importing this, and running a package through ONNX Runtime or OpenVINO, loads neither torch nor timm nor DALI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affect.engine.runtime.clip_engine import ClipEngine
    from affect.engine.runtime.engine import Engine
    from affect.engine.runtime.frame_reader import Reader
    from affect.engine.runtime.results import Clip, Face, Frame, Frames
    from affect.engine.runtime.smoothing import OFF, Smoothing
    from affect.engine.runtime.sources.open_source import open_source
    from affect.engine.runtime.vision.subject import Search

MODULES = {
    "clip_engine": ("ClipEngine",),
    "engine": ("Engine",),
    "frame_reader": ("Reader",),
    "results": ("Clip", "Face", "Frame", "Frames"),
    "smoothing": ("OFF", "Smoothing"),
    "sources.open_source": ("open_source",),
    "vision.subject": ("Search",),
}
PLACES = {name: module for module, names in MODULES.items() for name in names}  # name -> its module in the runtime
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
