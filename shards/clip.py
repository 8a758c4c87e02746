"""Clips as bytes: the frames of one recording, stored as one sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from affect.shards import images
from affect.shards.images import BadImage, Encoded, Storage
from affect.shards.schema import Box, Clip, Content, Image, Recording


@dataclass(frozen=True)
class EncodedClip:
    """A clip ready for a tar: each frame's JPEG or PNG, all of one size."""

    data: tuple[bytes, ...]
    extensions: tuple[str, ...]  # jpg | png
    width: int
    height: int
    sha256: bytes  # of all frames' pixels in order; see clip_sha256
    dhash: int  # of the middle frame
    times_s: tuple[float, ...]
    meta: Mapping[str, str | float]

    @property
    def members(self) -> dict[str, bytes]:
        """`000.jpg` and so on.

        A key has no dots, so WebDataset, and DALI's fn.readers.webdataset by the .idx, take all behind the first one as the
        extension: ext=["000.jpg", "001.jpg", ...].
        """
        frames = zip(self.data, self.extensions, strict=True)
        return {f"{frame_name(i, len(self.data))}.{extension}": data for i, (data, extension) in enumerate(frames)}


def frame_name(number: int, num_frames: int) -> str:
    """Three digits, or as many as the last frame's number has."""
    return f"{number:0{max(3, len(str(num_frames - 1)))}d}"


def clip_sha256(frames: Iterable[bytes]) -> bytes:
    """32 bytes that name a clip by its pixels: of the `pixel_sha256` of every frame, in order."""
    return hashlib.sha256(b"".join(frames)).digest()


def encode(content: Content, storage: Storage = Storage(), box: Box | None = None) -> Encoded | EncodedClip:  # noqa: B008
    """A picture as `images.encode` has it; of a clip, every frame so, and all alike in size. Raises BadImage."""

    def keep(frame: Image | Encoded) -> Encoded:
        return frame if isinstance(frame, Encoded) else images.encode(frame, storage, box)

    made = content.clip(keep) if isinstance(content, Recording) else content() if callable(content) else content
    if not isinstance(made, Clip):
        return images.encode(made, storage, box)
    if not made.frames:
        raise BadImage("no frames")
    frames = list[Encoded]()
    for number, frame in enumerate(made.frames):
        try:
            frames.append(keep(frame))
        except BadImage as reason:
            raise BadImage(f"frame {number}: {reason}") from reason
        _same_size(frames[0], frames[-1], number)
    return EncodedClip(
        tuple(frame.data for frame in frames),
        tuple(frame.extension for frame in frames),
        frames[0].width,
        frames[0].height,
        clip_sha256(frame.sha256 for frame in frames),
        frames[len(frames) // 2].dhash,
        tuple(made.times_s),
        made.meta,
    )


def _same_size(first: Encoded, frame: Encoded, number: int) -> None:
    if (frame.width, frame.height) != (first.width, first.height):
        found = f"{frame.width}x{frame.height}, the first {first.width}x{first.height}"
        raise BadImage(f"frame {number} is {found}: the frames of a clip have one size")
