"""Reads faces: `from affect.engine import Engine`.

Importing this, and running a package through ONNX Runtime, loads neither torch nor timm nor DALI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affect.engine.runtime.clip import Clip, ClipEngine
    from affect.engine.runtime.frame import Engine, Face, Frame

__all__ = ["Clip", "ClipEngine", "Engine", "Face", "Frame"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from affect.engine.runtime import clip, frame

        return getattr(clip if name.startswith("Clip") else frame, name)
    raise AttributeError(f"module 'affect.engine' has no attribute {name!r}")
