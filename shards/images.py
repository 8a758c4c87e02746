"""Pictures as bytes: which files keep theirs, which are encoded anew, and how a picture is identified."""

from __future__ import annotations

import hashlib
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from affect.shards.dhash import dhash
from affect.shards.encoded import BadImage, Encoded
from affect.shards.headers import GIF, JPEG, PNG, jpeg_frame, size_of
from affect.shards.sample import Box, Clip, Content, Image, Recording

MOST_MEGAPIXELS = 100  # decoded, 300 MB
LARGE_MEGAPIXELS = 12  # larger ones are decoded one at a time, whatever the number of threads
_large = threading.Lock()
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


def decode(data: bytes | np.ndarray, where: str = "image") -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of an encoded picture, its EXIF orientation applied. Raises BadImage, also of one too large."""
    if len(data) == 0:
        raise BadImage("empty file")
    size = size_of(data if isinstance(data, bytes) else data.tobytes())
    if size is None:  # OpenCV may know more kinds of files, but not how large it will be
        raise BadImage("not a picture, or cut short; expected JPEG, PNG, WebP, TIFF, BMP, GIF, PGM or PPM")
    check_size(*size)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImage(f"not decodable: {error.err}") from error
    if bgr is None:
        raise BadImage("not a picture, or cut short")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def check_size(width: int, height: int) -> None:
    """Raises BadImage where a picture or a frame is far too large."""
    megapixels = width * height / 1e6
    if megapixels > MOST_MEGAPIXELS:
        raise BadImage(f"{width}x{height} is {megapixels:,.0f} megapixels, more than {MOST_MEGAPIXELS}: reduce it")


def pixel_sha256(rgb: np.ndarray) -> bytes:
    """Return 32 bytes that identify a picture by its pixels, (H, W, 3) uint8, gray as three equal channels."""
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]}".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.digest()


def shrink(rgb: np.ndarray, longest: int) -> np.ndarray:
    """Reduce the longer side to at most `longest` pixels, by area averaging."""
    height, width = rgb.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return rgb
    return cv2.resize(rgb, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Storage:
    """How a picture that cannot keep its bytes is stored.

    max_side: pixels; longer pictures are reduced. quality: of JPEG, 1 to 100; None stores PNG, without loss.
    """

    max_side: int | None = None
    quality: int | None = None


def encode(image: Image, storage: Storage = Storage(), box: Box | None = None) -> Encoded:
    """Encode a picture. 8-bit JPEG and PNG files keep their bytes; arrays, parts of pictures and all else are encoded anew.

    box: top, left, bottom, right in pixels; the part of it that lies inside the picture is encoded.
    """
    image = image() if callable(image) else image
    if isinstance(image, np.ndarray):
        return _from_array(_cut(image, box), storage)
    data = _read(image)
    with _in_turn(data):
        return _from_file(data, storage, box)


def pixels(image: Content, box: Box | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of a picture, as it would be read after `encode`. Raises BadImage where `encode` does."""
    image = image() if callable(image) else image
    if isinstance(image, Clip | Recording):
        raise BadImage("a clip, expected a picture")
    if isinstance(image, np.ndarray):
        array = _checked(_cut(image, box))
        return cv2.cvtColor(array, cv2.COLOR_GRAY2RGB) if array.ndim == 2 else array
    data = _read(image)
    with _in_turn(data):
        return _cut(_decoded(data), box)


def _read(image: Path | bytes) -> bytes:
    """Return the bytes of a file. Raises BadImage where its header names a size that is far too large."""
    try:
        data = image if isinstance(image, bytes) else image.read_bytes()
    except FileNotFoundError:
        raise BadImage("missing file") from None
    except OSError as error:
        raise BadImage(f"not readable: {error.strerror}") from error
    check_size(*(size_of(data) or (0, 0)))
    return data


def _megapixels(data: bytes) -> float:
    width, height = size_of(data) or (0, 0)
    return width * height / 1e6


def _in_turn(data: bytes) -> AbstractContextManager[Any]:
    return _large if _megapixels(data) > LARGE_MEGAPIXELS else nullcontext()


def _decoded(data: bytes) -> np.ndarray:
    try:
        rgb = decode(data)
    except BadImage as reason:
        raise BadImage("a GIF that this OpenCV cannot read: store it as PNG") if data.startswith(GIF) else reason from None
    if data.startswith(JPEG) and b"\xff\xd9" not in data[-64:]:
        raise BadImage("cut short: a JPEG without its end")  # OpenCV fills the rest with gray, without an error
    return rgb


def _from_file(data: bytes, storage: Storage, box: Box | None) -> Encoded:
    rgb = _decoded(data)
    height, width = rgb.shape[:2]
    extension = _stored_extension(data)
    if extension and box is None and not (storage.max_side and max(height, width) > storage.max_side):
        return Encoded(data, extension, width, height, pixel_sha256(rgb), dhash(rgb))
    return _from_array(_cut(rgb, box), storage)


def _cut(array: np.ndarray, box: Box | None) -> np.ndarray:
    """The part of a picture inside the box, its edges rounded to whole pixels."""
    if box is None:
        return array
    height, width = array.shape[:2]
    top, left, bottom, right = (round(edge) for edge in box)
    part = array[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if 0 in part.shape or bottom <= top or right <= left:
        raise BadImage(
            f"box {top}, {left}, {bottom}, {right} (top, left, bottom, right) lies outside the {width}x{height} picture"
        )
    return np.ascontiguousarray(part)


def _stored_extension(data: bytes) -> str | None:
    """Return the extension of a file whose bytes every decoder here reads to the same pixels, else None."""
    if data.startswith(JPEG):
        frame = jpeg_frame(data)
        return "jpg" if frame and data[frame + 9] in (1, 3) else None  # four components: CMYK
    if data.startswith(PNG) and len(data) > 25 and data[24] == 8 and data[25] in (0, 2) and b"tRNS" not in data[:4096]:
        return "png"  # 8 bits, gray or RGB: no palette, no alpha
    return None


def _checked(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] != 3):
        raise BadImage(f"expected (H, W) or (H, W, 3) uint8, found {array.shape} {array.dtype}")
    return array


def _from_array(array: np.ndarray, storage: Storage) -> Encoded:
    array = _checked(array)
    array = shrink(array, storage.max_side) if storage.max_side else array
    gray = array if array.ndim == 2 else None
    if gray is None and (array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all():
        gray = array[..., 0]
    stored = gray if gray is not None else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    extension = "jpg" if storage.quality else "png"
    done, data = cv2.imencode(f".{extension}", stored, [cv2.IMWRITE_JPEG_QUALITY, storage.quality] if storage.quality else [])
    assert done
    rgb = decode(data.tobytes()) if storage.quality else cv2.cvtColor(stored, cv2.COLOR_GRAY2RGB) if stored.ndim == 2 else array
    height, width = rgb.shape[:2]
    return Encoded(data.tobytes(), extension, width, height, pixel_sha256(rgb), dhash(rgb))
