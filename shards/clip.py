"""Clips as bytes: the frames of one recording, stored as one sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from affect.shards import images
from affect.shards.encoded import BadImage, Encoded, EncodedClip
from affect.shards.images import Storage
from affect.shards.sample import Box, Clip, Content, Image, Recording


def clip_sha256(frames: Iterable[bytes]) -> bytes:
    """Return 32 bytes that identify a clip by its pixels: the hash of every frame's `pixel_sha256`, in order."""
    return hashlib.sha256(b"".join(frames)).digest()


def encode(content: Content, storage: Storage = Storage(), box: Box | None = None) -> Encoded | EncodedClip:  # noqa: B008
    """Encode a picture with `images.encode`, or every frame of a clip, which must all have one size. Raises BadImage."""

    def encode_frame(frame: Image | Encoded) -> Encoded:
        return frame if isinstance(frame, Encoded) else images.encode(frame, storage, box)

    result = content.clip(encode_frame) if isinstance(content, Recording) else content() if callable(content) else content
    if not isinstance(result, Clip):
        return images.encode(result, storage, box)
    if not result.frames:
        raise BadImage("no frames")
    frames = list[Encoded]()
    for number, frame in enumerate(result.frames):
        try:
            frames.append(encode_frame(frame))
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
        tuple(result.times_s),
        result.meta,
    )


def _same_size(first: Encoded, frame: Encoded, number: int) -> None:
    if (frame.width, frame.height) != (first.width, first.height):
        sizes = f"{frame.width}x{frame.height}, the first {first.width}x{first.height}"
        raise BadImage(f"frame {number} is {sizes}: the frames of a clip have one size")
