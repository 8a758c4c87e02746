"""Writes frames as an MP4 with their own times, and the source's sound."""

from __future__ import annotations

import errno
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2
import numpy as np

from affect.engine.runtime.writers.partial_file import partial_of
from affect.engine.system.log import say
from affect.shards.errors import InputError

TICKS = 90_000  # a second
RATE_HZ = 25  # of frames without a clock
CODECS = {"libx264": {"preset": "veryfast", "crf": "21"}, "libopenh264": {}, "mpeg4": {"qscale": "4"}}
COPIED = {"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "flac", "alac"}  # what an MP4 holds; other sound becomes AAC
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Mp4:
    """`path`, written frame by frame; the first frame gives the size, others are fitted into it with black around.

        with Mp4(path, sound=Path("clip.mp4")) as video:
            video.write(image, time_s)

    The file is hidden and called `.partial` until it is closed. Whatever ends the block, the frames so far stay; a file that
    cannot be written to is removed, and an InputError says so.
    """

    def __init__(self, path: Path, sound: Path | None = None) -> None:
        self.path, self.frames = path, 0
        self._partial = partial_of(path)
        self._sound_file = sound
        self._out: Any = None
        self._failed = False
        self._pts = -1
        self._origin = 0.0

    def write(self, image: np.ndarray, time_s: float | None) -> None:
        """Write (H, W, 3) uint8 RGB at a time that does not go back; None: at RATE_HZ."""
        try:
            if self._out is None:
                self._open(image, time_s)
            seconds = self.frames / RATE_HZ if time_s is None else time_s - self._origin
            self._pts = max(self._pts + 1, round(seconds * TICKS))
            frame = av.VideoFrame.from_ndarray(_fitted(image, self._size), format="rgb24")
            frame.pts, frame.time_base = self._pts, Fraction(1, TICKS)
            self._out.mux(self._video.encode(frame))
            self.frames += 1
            if self._sound is not None:
                self._sound.until(seconds + self._origin)
        except (OSError, av.FFmpegError) as error:
            self._fail(error)

    def _open(self, image: np.ndarray, time_s: float | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._out = av.open(str(self._partial), "w", format="mp4")
        name = next(codec for codec in CODECS if codec in av.codecs_available)
        self._video = self._out.add_stream(name, rate=RATE_HZ, options=CODECS[name])
        self._size = image.shape[1] + image.shape[1] % 2, image.shape[0] + image.shape[0] % 2
        self._video.width, self._video.height = self._size
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = Fraction(1, TICKS)
        self._sound = Sound.of(self._sound_file, self._out) if time_s is not None else None
        first_s = time_s or 0.0
        self._origin = first_s if self._sound is None else min(first_s, self._sound.start_s)
        if self._sound is not None:
            self._sound.origin_s = self._origin

    def close(self) -> None:
        """May be called twice. Without a frame there is no file."""
        out, self._out = self._out, None
        if out is None or self._failed:
            return
        try:
            out.mux(self._video.encode())
            if self._sound is not None:
                self._sound.finish(self._pts / TICKS + self._origin)
                self._sound.close()
            out.close()
            self._partial.replace(self.path)
        except (OSError, av.FFmpegError) as error:
            self._out = out
            self._fail(error)

    def _fail(self, error: OSError | av.FFmpegError) -> None:
        """Remove the partial file; raise the reason as an InputError."""
        self._failed = True
        out, self._out = self._out, None
        with suppress(OSError, av.FFmpegError):  # of the same cause
            if out is not None:
                out.close()
        with suppress(OSError):
            self._partial.unlink()
        reason = f"the disk is full after {self.frames:,} frames" if error.errno in NO_ROOM else f"{error.strerror}"
        raise InputError(
            f"{self.path}: cannot be written: {reason}; the part of it is removed, the tables stay: make room, or run "
            "without the video"
        ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Sound:
    """The sound of a file, copied packet by packet, or encoded as AAC where an MP4 cannot hold it."""

    def __init__(self, source: Any, stream: Any, out: Any) -> None:
        self.source, self.stream, self.out = source, stream, out
        self.start_s = source.start_time / av.time_base if source.start_time is not None else 0.0
        self.origin_s = self.start_s
        self.copied = stream.codec_context.name in COPIED
        self.to = out.add_stream_from_template(stream) if self.copied else out.add_stream("aac", rate=min(stream.rate, 48_000))
        self._packets = source.demux(stream)
        self._next: Any = None
        self._ended = False

    @classmethod
    def of(cls, path: Path | None, out: Any) -> Sound | None:
        """Return None where there is no sound, or none that can be read."""
        if path is None:
            return None
        try:
            source = av.open(str(path), metadata_errors="ignore")
            if source.streams.audio:
                return cls(source, source.streams.audio[0], out)
            source.close()
        except (av.FFmpegError, ValueError) as error:
            say(f"{path}: its sound cannot be read ({error}); the video is written without")
        return None

    def until(self, time_s: float) -> None:
        """Write the sound up to a time of the source."""
        while not self._ended:
            packet = self._next or self._read()
            if packet is None:
                return
            if packet.pts is not None and float(packet.pts * packet.time_base) > time_s:
                self._next = packet
                return
            self._next = None
            self._write(packet)

    def _read(self) -> Any:
        try:
            packet = next(self._packets, None)
        except av.FFmpegError:  # garbage at the end
            packet = None
        self._ended = packet is None or packet.dts is None  # the empty packet that ends a stream
        return None if self._ended else packet

    def _write(self, packet: Any) -> None:
        if self.copied:
            shift = round(self.origin_s / packet.time_base)
            packet.stream = self.to
            packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts -= shift
            self.out.mux(packet)
        else:
            self.out.mux(self._encoded(packet))

    def _encoded(self, packet: Any) -> list[Any]:
        """Encode a packet, or with None the rest in the encoder. A packet that is damaged is left out."""
        try:
            frames = [None] if packet is None else packet.decode()
        except av.error.InvalidDataError:
            return []
        for frame in frames:
            if frame is not None and frame.pts is not None:
                frame.pts -= round(self.origin_s / frame.time_base)
        try:
            return [encoded for frame in frames for encoded in self.to.encode(frame)]
        except (av.FFmpegError, ValueError) as error:
            say(f"{self.source.name}: its sound cannot be encoded ({error}); it ends here")
            self._ended = True
            return []

    def finish(self, time_s: float) -> None:
        """Write the rest, up to the last frame's time."""
        self.until(time_s)
        if not self.copied:
            self.out.mux(self._encoded(None))

    def close(self) -> None:
        self.source.close()


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the picture in (width, height): an odd edge is repeated, another size is scaled with black around."""
    width, height = size
    if image.shape[1::-1] == size:
        return np.ascontiguousarray(image)
    if 0 <= width - image.shape[1] <= 1 and 0 <= height - image.shape[0] <= 1:
        right, bottom = width - image.shape[1], height - image.shape[0]
        return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = cv2.resize(image, (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))))
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return out
