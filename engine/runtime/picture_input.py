"""Pictures as callers hand them in: files or arrays, one or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.images import decode

Picture = np.ndarray | str | Path


def as_sequence(pictures: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """Return one picture, many, or one (N, H, W, 3) array as a sequence of pictures."""
    if isinstance(pictures, str | Path):
        return [pictures]
    if isinstance(pictures, np.ndarray):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    return pictures


def read_picture(picture: Picture, index: int) -> np.ndarray:
    """Return (H, W, 3) RGB or (H, W) gray uint8. Raises InputError naming the picture, by its file or its index."""
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
