"""Decodes containers with FFmpeg: the right stream, upright pictures, past packets that cannot be decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.images import MOST_MEGAPIXELS
from affect.shards.sources.frame_limits import OPTIONS, limit

SILENT_S = 10.0  # a server that sends nothing for so long, while it is opened or before the next packet, is given up


@dataclass
class Tally:
    """Counts of what a container gave. live: an error other than a damaged packet is raised, for the connection is lost."""

    live: bool = False
    packets: int = 0
    frames: int = 0
    damaged: int = 0  # frames that the decoder has repaired
    errors: list[str] = field(default_factory=list)

    def failed(self, error: av.FFmpegError) -> None:
        if self.live and not isinstance(error, av.error.InvalidDataError):
            raise error
        if not self.live:
            self.errors.append(reason_of(error))


def is_address(source: Path | str) -> bool:
    return re.match(r"\w+://", str(source)) is not None


def opened(source: Path | str) -> Any:
    """Open a file, or an address, which may be silent for SILENT_S at most."""
    timeout = SILENT_S if is_address(source) else None
    return av.open(str(source), metadata_errors="ignore", timeout=timeout, options=OPTIONS)


def reason_of(error: av.FFmpegError, silent_s: float | None = None) -> str:
    """Say why FFmpeg gave up. silent_s: the time limit that it had; default: SILENT_S."""
    if isinstance(error, av.error.ExitError):  # what it calls a time limit that has passed
        return f"the server was silent for {SILENT_S if silent_s is None else silent_s:g} s"
    if isinstance(error, av.error.ArgumentError):
        return f"invalid, or frames of more than {MOST_MEGAPIXELS} megapixels"
    return str(error.strerror)


def video_of(container: Any) -> Any:
    """Return the first video stream, or None; the cover of an audio file is none."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def limited(stream: Any, where: Path | str) -> Any:
    """Return the stream, ready to be decoded. Raises InputError where its frames are far too large."""
    try:
        limit(stream)
    except BadImage as error:
        raise InputError(f"{where}: its frames are too large: {error}") from error
    return stream


def length_s(stream: Any) -> float | None:
    """Return the time at which the video ends, by its header: in Matroska the tag that its writers leave."""
    if stream.duration is not None and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    clock = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return None if clock is None else 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])


def decoded(container: Any, stream: Any, tally: Tally) -> Iterator[Any]:
    """Yield the frames that can be decoded, past packets that cannot, up to where the container breaks off."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            tally.failed(error)
            packet = None
        tally.packets += packet is not None and packet.size > 0
        for frame in _frames(stream, packet, tally):
            tally.frames += 1
            tally.damaged += bool(frame.is_corrupt)
            yield frame
        if packet is None:
            return


def _frames(stream: Any, packet: Any, tally: Tally) -> list[Any]:
    """Return the frames of a packet; None: those that remain in the decoder."""
    try:
        return list(stream.decode(packet))
    except av.error.EOFError:  # it was emptied already
        return []
    except av.FFmpegError as error:
        tally.failed(error)
        return []


def pixels(frame: Any) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, rotated as the file asks for."""
    image = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image
