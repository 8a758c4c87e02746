"""Reads the size of a picture from its header, before it is decoded: a small file can unpack to gigabytes."""

from __future__ import annotations

import re
import struct

JPEG, PNG, GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8"
TIFF = {b"II*\0": "<", b"MM\0*": ">"}


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the header of a JPEG, PNG, GIF, BMP, WebP, TIFF, PGM or PPM; None where there is none."""
    try:
        if data.startswith(JPEG):
            at = jpeg_frame(data, past_garbage=True)
            return (_whole(data, at + 7, ">H"), _whole(data, at + 5, ">H")) if at else None
        if data.startswith(PNG):
            return _whole(data, 16, ">I"), _whole(data, 20, ">I")
        if data.startswith(GIF):
            return _whole(data, 6, "<H"), _whole(data, 8, "<H")
        if data.startswith(b"BM"):
            return abs(_whole(data, 18, "<i")), abs(_whole(data, 22, "<i"))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:4] in TIFF:
            return _tiff(data, TIFF[data[:4]])
    except struct.error:  # cut short: the decoder will report it
        return None
    match = re.match(rb"P[1-6]\s+(?:#.*\s+)*(\d{1,9})\s+(?:#.*\s+)*(\d{1,9})\s", data[:4096])
    return (int(match[1]), int(match[2])) if match else None


def jpeg_frame(data: bytes, past_garbage: bool = False) -> int:
    """Return where the frame header begins, which holds height, width and the number of components; 0 where there is none.

    past_garbage: pass over what stands between the segments, as libjpeg does.
    """
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF and past_garbage:
            at = start if (start := data.find(b"\xff", at)) > 0 else len(data)
            continue
        if data[at] != 0xFF:
            return 0
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return at
        at += 1 if marker == 0xFF else 2 if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7 else 2 + length
    return 0


def _whole(data: bytes, at: int, kind: str) -> int:
    return int(struct.unpack_from(kind, data, at)[0])


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = _whole(data, 21, "<I")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return (_whole(data, 26, "<H") & 0x3FFF, _whole(data, 28, "<H") & 0x3FFF) if kind == b"VP8 " else None


def _tiff(data: bytes, order: str) -> tuple[int, int] | None:
    """Tags 256 (width) and 257 (height) of the first directory; their values are 16 or 32 bits."""
    directory, tags = _whole(data, 4, f"{order}I"), dict[int, int]()
    for i in range(_whole(data, directory, f"{order}H")):
        at = directory + 2 + 12 * i
        tag, kind = _whole(data, at, f"{order}H"), _whole(data, at + 2, f"{order}H")
        if tag in (256, 257):
            tags[tag] = _whole(data, at + 8, f"{order}H" if kind == 3 else f"{order}I")
    return (tags[256], tags[257]) if len(tags) == 2 else None
