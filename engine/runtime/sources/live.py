"""Cameras and network streams: lost connections are opened again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np

from affect.engine.runtime.sources.container import Tally, decoded, limited, pixels, reason_of, video_of
from affect.engine.runtime.sources.stream import Channel, Source, VideoFrame
from affect.engine.system.quiet import opencv_quiet
from affect.shards.errors import InputError
from affect.shards.sources.frame_limits import OPTIONS

TIMEOUT_S = 5.0  # to open, and for the next packet; closing a stream that hangs takes as long

Pictures = Iterator[tuple[float | None, np.ndarray]]  # seconds by the connection's clock, and the picture


class Gone(Exception):
    """The connection is lost; the message says how."""


@dataclass(frozen=True)
class Retry:
    """Waits between attempts to connect: first_s, then twice as long each time up to most_s, for patience_s in all."""

    first_s: float = 0.5
    most_s: float = 30.0
    patience_s: float = 120.0


class Clock:
    """Seconds since the first frame: by the source's clock within a connection, by this machine's between two."""

    def __init__(self) -> None:
        self._time_s = 0.0
        self._source: float | None = None
        self._here = math.nan

    @property
    def silent_s(self) -> float:
        """Since the latest frame."""
        return time.monotonic() - self._here

    def at(self, source: float | None) -> float:
        """Return the time of a frame that has just arrived; source: its time by the connection's clock, which may jump back."""
        now = time.monotonic()
        if source is not None and self._source is not None and source >= self._source:
            self._time_s += source - self._source
        elif not math.isnan(self._here):
            self._time_s += now - self._here
        self._source, self._here = source, now
        return self._time_s

    def lost(self) -> None:
        self._source = None


def camera(number: int | str, retry: Retry = Retry(), capture: Callable[[Any], Any] = cv2.VideoCapture) -> Source:
    """Open a camera by its number or device file."""
    name = f"camera {number}"
    return Source(
        name, lambda channel: reconnecting(name, lambda: _capture(number, capture), channel, retry), live=True, moving=True
    )


def network(url: str, retry: Retry = Retry()) -> Source:
    """Open what FFmpeg opens: rtsp://, http://, tcp://, udp://, srt://, rtmp://."""
    return Source(url, lambda channel: reconnecting(url, lambda: _receive(url), channel, retry), live=True, moving=True)


def reconnecting(name: str, connect: Callable[[], Pictures], channel: Channel, retry: Retry) -> Iterator[VideoFrame]:
    """Yield frames from one connection after the other; a source that cannot be opened at first is an InputError."""
    number, wait_s, clock = 0, retry.first_s, Clock()
    while True:
        try:
            for seconds, image in connect():
                yield VideoFrame(name, number, clock.at(seconds), image)
                number, wait_s = number + 1, retry.first_s
            reason = "it ended"
        except Gone as gone:
            reason = str(gone)
        if not number:
            raise InputError(f"{name}: gives no frames ({reason}); is it there, and does nobody else use it?")
        clock.lost()
        if clock.silent_s + wait_s > retry.patience_s:
            channel.tell(f"{name}: gone for good ({reason}) after {number:,} frames")
            return
        channel.tell(f"{name}: lost ({reason}); trying again in {wait_s:g} s")
        if channel.wait(wait_s):
            return
        wait_s = min(2 * wait_s, retry.most_s)


def _capture(number: int | str, capture: Callable[[Any], Any]) -> Pictures:
    with opencv_quiet():
        device = capture(number)
    try:
        if not device.isOpened():
            raise Gone("it cannot be opened")
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        while True:
            there, image = device.read()
            if not there or image is None:
                raise Gone("unplugged, or it gives no more frames")
            yield None, cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
    finally:
        device.release()


def _receive(url: str) -> Pictures:
    options = OPTIONS | {"flags": "low_delay"} | ({"rtsp_transport": "tcp"} if url.startswith("rtsp") else {})
    try:
        with av.open(url, options=options, timeout=(TIMEOUT_S, TIMEOUT_S)) as container:
            stream = video_of(container)
            if stream is None:
                raise InputError(f"{url}: has no video; expected a stream with pictures")
            limited(stream, url).thread_type = "SLICE"  # threads over frames give each of them later
            for frame in decoded(container, stream, Tally(live=True)):
                yield frame.time, pixels(frame)
    except av.FFmpegError as error:
        raise Gone(reason_of(error, TIMEOUT_S)) from error
