"""Options of `affect pack` that pack only a part of each clip: around its subject, its sharpest frames, its background."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from affect.shards.sample import Source

Crop = Annotated[
    str,
    typer.Option(
        metavar="SUBJECT",
        help="cut each clip to a box around its subject, found by human_face, yunet:FILE.onnx or onnx:FILE.onnx",
    ),
]
CropMargin = Annotated[float, typer.Option(min=0, max=2, help="with --crop: added on each side, as a share of the box's sides")]
Sharpest = Annotated[
    int, typer.Option("--sharpest", min=0, help="pack only this many frames of each clip, the sharpest, in order; 0: all")
]
Background = Annotated[bool, typer.Option("--background", help="as a control: paint the subject's box gray")]
Box = Annotated[str, typer.Option("--box", metavar="X,Y,W,H", help="with --background: box of the clips that have none")]
CROP: dict[str, tuple[Any, Any]] = {"crop": (Crop, ""), "crop_margin": (CropMargin, 0.1)}
PARTS: dict[str, tuple[Any, Any]] = {"sharpest": (Sharpest, 0), "background": (Background, False), "box": (Box, "")}


def parameters(crop: bool, parts: bool) -> list[inspect.Parameter]:
    """The options of a command that crops, or takes parts."""
    table = (CROP if crop else {}) | (PARTS if parts else {})
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in table.items()
    ]


def check(values: dict[str, Any], animals: str) -> None:
    """Raises InputError where human faces are to be found in pictures of animals."""
    crop = values.get("crop", "")
    if not (crop and animals):
        return
    from affect.engine.runtime.vision.subject import detects_people
    from affect.shards.errors import InputError

    if detects_people(crop):
        raise InputError(f"--crop {crop}: finds human faces, and these are {animals}; expected onnx:FILE.onnx")


def apply(
    source: Source, crop: str = "", crop_margin: float = 0.1, sharpest: int = 0, background: bool = False, box: str = ""
) -> Source:
    """Return the source, with its clips cut to the detected subject or reduced to a part."""
    from affect.shards.errors import InputError

    if crop:
        from affect.engine.runtime.vision.subject import finder
        from affect.shards.sources.parts import Cropped

        source = Cropped(source, finder(crop), crop, crop_margin)
    numbers = [float(text) for text in box.split(",")] if re.fullmatch(r"[\d.]+(,[\d.]+){3}", box) else []
    if box and (not background or not numbers or min(numbers[2:]) <= 0):
        raise InputError(f"--box {box}: expected X,Y,W,H in pixels, W and H above 0, together with --background")
    if background:
        from affect.shards.sources import parts

        x, y, width, height = numbers or [0.0] * 4
        source = parts.Background(source, (y, x, y + height, x + width) if numbers else None)
    if sharpest:
        from affect.shards.sources import parts

        source = parts.Sharpest(source, sharpest)
    return source


def notes(out: Path) -> list[str]:
    """Lines on what is unusual in the recordings of a packed dataset."""
    import numpy as np

    from affect.shards.dataset import Dataset

    dataset = Dataset(out)
    repeated, gaps, origins = (dataset.column(f"meta.{name}") for name in ("repeated", "gaps", "time_from"))
    counts = {
        "clips have fewer frames than requested and repeat some (meta.repeated)": np.count_nonzero(repeated),
        "clips have gaps in their frame numbers (meta.gaps)": np.count_nonzero(gaps),
        "clips have no timestamps; times are by the video's frame rate": np.count_nonzero(origins == "rate"),
        "clips have no frame rate; a time is the number of the frame; name it with --fps": np.count_nonzero(origins == "numbers"),
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]
