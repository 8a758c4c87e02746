"""Reads recordings from video files: mp4, avi, mkv, webm and any other that FFmpeg reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from affect.shards.encoded import BadImage, Encoded
from affect.shards.sample import Clip, Image, Recording
from affect.shards.schema import ClipFacts
from affect.shards.sources.frame_limits import OPTIONS, limit
from affect.shards.sources.frames import pick


@dataclass(frozen=True)
class VideoFile(Recording):
    """The chosen frames of a video, by their own timestamps; times count from its first frame.

    The packets list the frames without decoding; where decoding gives other frames, those count, and the file is read again.
    A rotation in the file's metadata is applied, so boxes and sizes are those of the upright picture.
    """

    path: Path
    facts: ClipFacts

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def clip(self, encode_frame: Callable[[Image], Encoded]) -> Clip:
        clip = self._read(_of_packets(self.path), encode_frame) or self._read(_of_frames(self.path), encode_frame)
        if clip is None:
            raise BadImage("its frames differ from one reading to the next")
        return clip

    def _read(self, stamps: Stamps, encode_frame: Callable[[Image], Encoded]) -> Clip | None:
        """Return the clip if decoding gives the frames that `stamps` lists."""
        times = stamps.seconds()
        numbers, repeated = pick(times, self.facts)
        encoded, last = dict[int, Encoded](), max(numbers)
        wanted = set(numbers)
        for number, frame in enumerate(_decoded(self.path)):
            if number == len(stamps.pts) or frame.pts != stamps.pts[number]:
                return None
            if number in wanted:
                if frame.is_corrupt:
                    raise BadImage(f"frame {number} ({times[number]:.3f} s) is damaged")
                encoded[number] = encode_frame(_upright(frame))
            if number == last:
                break
        if len(encoded) < len(wanted):
            return None
        meta: dict[str, str | float] = {"repeated": float(repeated), "gaps": 0.0, "time_from": stamps.origin}
        return Clip(tuple(encoded[n] for n in numbers), tuple(times[numbers].tolist()), meta)


@dataclass(frozen=True)
class Stamps:
    """Presentation timestamps of all frames, in the order in which they are shown."""

    pts: list[int | None]
    unit: Fraction | None  # seconds
    rate: Fraction | None  # mean frames a second

    @property
    def origin(self) -> str:
        """timestamps, or, where they are missing or run backwards, rate."""
        known = [pts for pts in self.pts if pts is not None]
        whole = self.unit and len(known) == len(self.pts) and all(a <= b for a, b in pairwise(known))
        return "timestamps" if whole else "rate"

    def seconds(self) -> np.ndarray:
        """(M,) float64 from the first frame."""
        if not self.pts:
            return np.zeros(0)
        if self.origin == "timestamps":
            assert self.unit
            return (np.array(self.pts, np.float64) - float(self.pts[0] or 0)) * float(self.unit)
        if not self.rate:
            raise BadImage("no timestamps and no frame rate: store it anew, as mp4")
        return np.arange(len(self.pts)) / float(self.rate)


def _of_packets(path: Path) -> Stamps:
    with _opened(path) as (container, stream):
        packets = [(packet.pts, packet.is_discard) for packet in container.demux(stream) if packet.size]
        shown = [pts for pts, discard in packets if not discard]
        if len(packets) < stream.frames:
            raise BadImage(f"cut short: {len(packets)} of {stream.frames} frames are there")
        known = sorted(pts for pts in shown if pts is not None)
        return Stamps([*known] if len(known) == len(shown) else [None] * len(shown), stream.time_base, _rate(stream))


def _of_frames(path: Path) -> Stamps:
    with _opened(path) as (_, stream):
        unit, rate = stream.time_base, _rate(stream)
    return Stamps([frame.pts for frame in _decoded(path)], unit, rate)


def _decoded(path: Path) -> Iterator[av.VideoFrame]:
    with _opened(path) as (container, stream):
        limit(stream)
        yield from container.decode(stream)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream that is not a cover picture. Raises BadImage, also while it is read."""
    try:
        with av.open(str(path), options=OPTIONS) as container:
            shown = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not shown:
                raise BadImage("has no video" + (", only sound" if container.streams.audio else ""))
            yield container, shown[0]
    except FileNotFoundError:
        raise BadImage("missing file") from None
    except av.FFmpegError as error:
        raise BadImage(f"not readable as a video: {error.strerror}") from error
    except OSError as error:
        raise BadImage(f"not readable: {error.strerror}") from error


def _rate(stream: VideoStream) -> Fraction | None:
    return stream.average_rate or stream.guessed_rate


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    rgb = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4  # counterclockwise
    return np.ascontiguousarray(np.rot90(rgb, quarters)) if quarters else rgb
