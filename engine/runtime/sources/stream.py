"""Frames decoded in a thread of their own: a file loses none, a live source keeps the newest."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from affect.engine.system.log import say

AHEAD = 8  # frames decoded ahead of a file; of 1080p they are 50 MB
AHEAD_BYTES = 256_000_000  # of their images, beyond which fewer wait: of 4K there are 8, of 8K 2
MOST_NOTES = 100
JOIN_S = 15.0  # a live source may be within its read timeout


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame of a source.

    name: of the file or camera. number: from 0, of the source's frames, those that were dropped too.
    time_s: by the source's clock; None where it has none. image: (H, W, 3) uint8 RGB.
    """

    name: str
    number: int
    time_s: float | None
    image: np.ndarray


def fits(frames: Sequence[VideoFrame]) -> bool:
    """True where so many frames may wait at once."""
    return sum(frame.image.nbytes for frame in frames) <= AHEAD_BYTES


class Channel:
    """The queue between the two sides of a stream.

    depth: frames that wait at most, of AHEAD_BYTES together where there is more than one.
    newest: a full channel drops the oldest instead of waiting.
    """

    def __init__(self, depth: int, newest: bool) -> None:
        self.depth, self.newest = depth, newest
        self.dropped = 0
        self.notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._waiting: deque[VideoFrame] = deque()
        self._changed = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None

    def put(self, frame: VideoFrame) -> bool:
        """Append a frame; False once nobody reads any more."""
        with self._changed:
            if self.newest and len(self._waiting) >= self.depth:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._closed or self._has_room(frame))
            self._waiting.append(frame)
            self._changed.notify_all()
            return not self._closed

    def _has_room(self, frame: VideoFrame) -> bool:
        return len(self._waiting) < self.depth and (not self._waiting or fits([*self._waiting, frame]))

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> VideoFrame | None:
        """Return the next frame, or None at the end. Raises the error that ended the source."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self._closed)
            if self._waiting and not self._closed:
                frame = self._waiting.popleft()
                self._changed.notify_all()
                return frame
            error, self._error = self._error, None
        if error is not None and not self._closed:
            raise error
        return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Sleep; True at once where the stream is closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)

    def tell(self, note: str) -> None:
        """Print a message about the source, and keep it in `notes`."""
        self.notes.append(note)
        say(note)


@dataclass(frozen=True)
class Source:
    """Something that frames come from.

    frames: generates them, within the stream's thread. live: frames that come too fast are dropped, not kept.
    threaded: there is something to decode. sound: the file with the frames' sound. moving: a video or a camera, not pictures.
    """

    name: str
    frames: Callable[[Channel], Iterator[VideoFrame]]
    live: bool = False
    threaded: bool = True
    sound: Path | None = None
    moving: bool = False


class Stream:
    """The frames of a source, in order.

        with Stream(open_source("clip.mp4")) as stream:
            for frame in stream: ...

    It ends, and its thread with it, at the end of the source, at `close`, or when nothing refers to it any more. Errors of
    the source are raised by the iteration, after the frames before them. Threads do not survive a fork: open it afterwards.
    """

    def __init__(self, source: Source, ahead: int = AHEAD) -> None:
        self.source = source
        self.channel = Channel(1 if source.live else ahead, source.live)
        self._frames: Iterator[VideoFrame] | None = None
        thread: threading.Thread | None = None
        if source.threaded or source.live:
            thread = threading.Thread(target=_decode, args=(source, self.channel), name=f"decode {source.name}", daemon=True)
            thread.start()
        else:
            self._frames = source.frames(self.channel)
        self._finish = weakref.finalize(self, _finish, self.channel, thread)

    @property
    def dropped(self) -> int:
        """Frames of a live source that were not taken in time."""
        return self.channel.dropped

    @property
    def notes(self) -> list[str]:
        """Messages about the source: frames that could not be read, connections lost."""
        return list(self.channel.notes)

    def __iter__(self) -> Iterator[VideoFrame]:
        return self

    def __next__(self) -> VideoFrame:
        if not self._finish.alive:
            raise StopIteration
        frame = next(self._frames, None) if self._frames is not None else self.channel.get()
        if frame is None:
            self.close()
            raise StopIteration
        return frame

    def close(self) -> None:
        """End the thread; frames still waiting are given up. May be called twice."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _decode(source: Source, channel: Channel) -> None:
    error: BaseException | None = None
    try:
        frames = source.frames(channel)
        try:
            for frame in frames:
                if not channel.put(frame):
                    break
        finally:
            if close := getattr(frames, "close", None):
                close()
    except BaseException as raised:
        error = raised
    channel.end(error)


def _finish(channel: Channel, thread: threading.Thread | None) -> None:
    channel.close()
    if thread is not None and thread is not threading.current_thread():  # the last reference may die in there
        thread.join(JOIN_S)
