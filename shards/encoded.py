"""A picture or a clip as it is stored in a tar: bytes that every decoder here reads alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class BadImage(ValueError):
    """Not a picture or a clip; the message is the reason that stands in `rejected.csv`."""


@dataclass(frozen=True)
class Encoded:
    """A picture ready for a tar: `data` is a JPEG or PNG."""

    data: bytes
    extension: str  # jpg | png
    width: int
    height: int
    sha256: bytes  # of the decoded RGB pixels and their shape
    dhash: int  # of the same; see dhash.py

    @property
    def members(self) -> dict[str, bytes]:
        """{extension: bytes} of the image in the tar."""
        return {self.extension: self.data}


@dataclass(frozen=True)
class EncodedClip:
    """A clip ready for a tar: each frame's JPEG or PNG, all of one size."""

    data: tuple[bytes, ...]
    extensions: tuple[str, ...]  # jpg | png
    width: int
    height: int
    sha256: bytes  # of all frames' pixels in order; see clip.clip_sha256
    dhash: int  # of the middle frame
    times_s: tuple[float, ...]
    meta: Mapping[str, str | float]

    @property
    def members(self) -> dict[str, bytes]:
        """{"000.jpg": bytes, ...}, a member for each frame.

        A key has no dots, so WebDataset, and DALI's fn.readers.webdataset by the .idx, take everything after the first dot as the
        extension: ext=["000.jpg", "001.jpg", ...].
        """
        frames = zip(self.data, self.extensions, strict=True)
        return {f"{frame_name(i, len(self.data))}.{extension}": data for i, (data, extension) in enumerate(frames)}


def frame_name(number: int, num_frames: int) -> str:
    """Return a frame's number in three digits, or in as many as the last frame's has."""
    return f"{number:0{max(3, len(str(num_frames - 1)))}d}"
