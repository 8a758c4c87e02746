"""Reads faces from an npz: pictures one at a time, labels and names at once."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from affect.shards.errors import InputError, nearest

IMAGES = ("images", "x", "pixels")  # of each group, the first that is there is read
LABELS = ("votes", "labels", "y", "hard")
DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class FaceArrays:
    """An opened npz: labels are in memory, pictures stay in the file.

    labels: (N, ...), of the array `label`. names: (N,) of the pictures, where the file has them.
    fer2013: (N,) the older label, '' where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not zipfile.is_zipfile(path):
                raise InputError(
                    f"{path}: not an npz, or cut short; expected one with {IMAGES[0]} and {LABELS[0]} or {LABELS[1]}"
                )
            with np.load(path, allow_pickle=False) as archive:
                self.keys = tuple(archive.files)
                self.image, self.label = self._key(IMAGES, "pictures"), self._key(LABELS, "labels")
                self.labels = archive[self.label]
                self.names = archive["names"] if "names" in self.keys else None
                self.fer2013 = archive["fer2013_label"] if "fer2013_label" in self.keys else None
                self.vote_names = tuple(archive["vote_names"].tolist()) if "vote_names" in self.keys else None
        except InputError:
            raise
        except DAMAGED as error:
            raise InputError(f"{path}: not a readable npz ({error}); take a copy") from error
        for key in ("names", "fer2013"):
            values = getattr(self, key)
            if values is not None and len(values) != len(self.labels):
                raise InputError(f"{path}: {len(values)} {key}, {len(self.labels)} {self.label}; expected one a picture")

    def place(self, i: int) -> str:
        """Return the name of the i-th picture for messages."""
        return f"{self.path.name}#{i if self.names is None else self.names[i]}"

    def _key(self, known: tuple[str, ...], what: str) -> str:
        folded = {key.casefold(): key for key in self.keys}
        for key in known:
            if key in folded:
                return folded[key]
        close = next((f" ({key!r}{guess})" for key in self.keys if (guess := nearest(key, known))), "")
        raise InputError(
            f"{self.path}: no array {known[0]!r} with the {what}{close}; found {', '.join(self.keys) or 'nothing'}; "
            f"expected one of {', '.join(known)}"
        )

    def images(self) -> Iterator[np.ndarray]:
        """Yield pictures, (H, W) or (H, W, 3) uint8, in the file's order."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.image}.npy") as stream:
                shape, fortran, dtype = _header(stream)
                face = self._face(shape, dtype)
                if fortran:  # a picture's pixels are all over the array
                    with np.load(self.path) as arrays:
                        yield from arrays[self.image].reshape(len(self.labels), *face)
                    return
                size = math.prod(face)
                for i in range(len(self.labels)):
                    data = stream.read(size)
                    if len(data) < size:
                        raise InputError(f"{self.path}: {self.image} ends in picture {i:,} of {len(self.labels):,}; take a copy")
                    yield np.frombuffer(data, np.uint8).reshape(face)
                stream.read(1)  # at its end zipfile compares the checksum
        except InputError:
            raise
        except DAMAGED as error:
            raise InputError(f"{self.path}: damaged npz ({type(error).__name__}: {error}); take a copy") from error

    def _face(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
        """The shape of one picture."""
        count, *face = shape or (0,)
        side = math.isqrt(face[0]) if len(face) == 1 else 0
        if side and side * side == face[0]:
            face = [side, side]
        if len(face) == 3 and face[2] == 1:
            face.pop()
        if dtype != np.uint8 or len(face) not in (2, 3) or (len(face) == 3 and face[2] != 3) or 0 in face:
            hint = "; values 0..1 become pixels by (255 * x).astype(np.uint8)" if dtype.kind == "f" else ""
            raise InputError(f"{self.path}: {self.image}: found {shape} {dtype}, expected (N, H, W) or (N, H, W, 3) uint8{hint}")
        if count != len(self.labels):
            raise InputError(f"{self.path}: {count:,} {self.image}, {len(self.labels):,} {self.label}; expected one a picture")
        return tuple(face)


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an .npy: shape, whether it is in Fortran order, dtype."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)
