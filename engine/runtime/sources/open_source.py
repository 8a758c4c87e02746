"""Sources as streams of frames: pictures, folders, sequences, videos, cameras, addresses, arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from affect.engine.runtime.sources.container import (
    Tally,
    decoded,
    is_address,
    length_s,
    limited,
    opened,
    pixels,
    reason_of,
    video_of,
)
from affect.engine.runtime.sources.live import camera, network
from affect.engine.runtime.sources.stream import Channel, Source, VideoFrame
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.images import SUFFIXES, decode

VIDEOS = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif", ".h264", ".3gp"}
SHORT_S = 0.5  # by which a video may be shorter than its header says
EXPECTED = "expected a picture, a folder of pictures or a video"

Picture = np.ndarray | tuple[float, np.ndarray]  # with its time in seconds, or without


def open_source(what: str | Path | int | np.ndarray | Iterable[Picture], rate_hz: float | None = None) -> Source:
    """Return the source of frames that `what` names.

    what: a picture, a folder of pictures or videos, an image sequence (`img_%04d.png`, `day1/*.png`), a video, a GIF, a
    camera's number, an address (rtsp://...), one or many (H, W, 3) or (H, W) uint8 arrays, or an iterator of arrays or of
    (seconds, array).
    rate_hz: of pictures that have no clock; without it their time_s is None.
    Raises InputError; errors that only reading shows are raised by the stream.
    """
    if rate_hz is not None and not 0 < rate_hz < math.inf:
        raise InputError(f"rate: found {rate_hz:g}; expected pictures a second, above 0")
    if isinstance(what, int):
        return camera(what)
    if isinstance(what, np.ndarray):
        many = what.ndim == 4 or (what.ndim == 3 and what.shape[2] != 3)
        return _arrays(what if many else what[None], rate_hz)
    if not isinstance(what, str | Path):
        return _arrays(what, rate_hz)
    text, path = str(what), Path(what).expanduser()
    if is_address(text):
        finite = text.startswith("http") and Path(text.partition("?")[0]).suffix.lower() in VIDEOS
        return Source(text, lambda channel: _video(text, channel), moving=True) if finite else network(text)
    if path.is_char_device() or (text.isdigit() and not path.exists()):
        return camera(int(text) if text.isdigit() else text)
    return _on_disk(path, rate_hz)


def _on_disk(path: Path, rate_hz: float | None) -> Source:
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES | VIDEOS]
        if not files:
            raise InputError(f"{path}: holds no picture ({', '.join(sorted(SUFFIXES))}) and no video")
        moving = any(file.suffix.lower() in VIDEOS for file in files)
        return Source(str(path), lambda channel: _files(sorted(files, key=_natural), channel, rate_hz), moving=moving)
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            return Source(str(path), lambda channel: iter([VideoFrame(path.name, 0, None, _picture(path))]))
        return Source(str(path), lambda channel: _video(path, channel), sound=path, moving=True)
    files = _sequence(path)
    if not files:
        raise InputError(f"{path}: no such file or folder; {EXPECTED}")
    return Source(str(path), lambda channel: _files(files, channel, rate_hz))


def _sequence(path: Path) -> list[Path]:
    """Return the files of `img_%04d.png` by their numbers, or of `*.png` by their names."""
    counted = re.fullmatch(r"(.*?)%0?\d*d(.*)", path.name)
    if counted and path.parent.is_dir():
        name = re.compile(rf"{re.escape(counted[1])}(\d+){re.escape(counted[2])}")
        numbers = {file: match for file in path.parent.iterdir() if (match := name.fullmatch(file.name))}
        return sorted(numbers, key=lambda file: int(numbers[file][1]))
    if re.search(r"[*?\[]", path.name) and path.parent.is_dir():
        return sorted((file for file in path.parent.glob(path.name) if file.is_file()), key=_natural)
    return []


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key: frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _files(files: list[Path], channel: Channel, rate_hz: float | None) -> Iterator[VideoFrame]:
    """Yield each picture, and each frame of each video; a file that cannot be read is named and passed over."""
    number = wrong = 0
    for position, path in enumerate(files):
        try:
            if path.suffix.lower() in VIDEOS:
                for frame in _video(path, channel):
                    yield VideoFrame(path.name, number, frame.time_s, frame.image)
                    number += 1
            else:
                yield VideoFrame(path.name, number, position / rate_hz if rate_hz else None, _picture(path))
                number += 1
        except InputError as error:
            wrong += 1
            channel.tell(f"{error}; passed over")
    if wrong == len(files):
        raise InputError(f"{files[0].parent}: none of {wrong:,} files can be read")


def _picture(path: Path) -> np.ndarray:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except BadImage as error:
        raise InputError(f"{path}: {error}; remove it, or take a copy") from error


def _arrays(images: Iterable[Picture], rate_hz: float | None) -> Source:
    """Read arrays in the caller's own thread: there is nothing to decode, and an iterator may wait for ever."""

    def frames(channel: Channel) -> Iterator[VideoFrame]:
        for number, item in enumerate(images):
            time_s, image = item if isinstance(item, tuple) else (number / rate_hz if rate_hz else None, item)
            yield VideoFrame("array", number, time_s, _rgb(image, number))

    return Source("array", frames, threaded=False)


def _rgb(image: Any, number: int) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        actual = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"frame {number}: found {actual}; expected (H, W, 3) or (H, W) uint8 in RGB, or (seconds, array)")
    if image.ndim == 3 and image.shape[2] != 3:
        raise InputError(f"frame {number}: found {image.shape}; expected three channels in RGB, or (H, W) gray")
    return np.repeat(image[:, :, None], 3, 2) if image.ndim == 2 else image


def _video(path: Path | str, channel: Channel) -> Iterator[VideoFrame]:
    """Yield every frame with its own time; of a video that ends in garbage what can be read, with a message."""
    name = path.name if isinstance(path, Path) else path
    tally = Tally()
    try:
        with opened(path) as container:
            stream = video_of(container)
            if stream is None:
                raise InputError(f"{path}: has no video, only sound or data; {EXPECTED}")
            limited(stream, path)
            rate, promised, promised_s = stream.average_rate or stream.guessed_rate, stream.frames, length_s(stream)
            for number, frame in enumerate(decoded(container, stream, tally)):
                if number == 0 and frame.time is None:
                    clock = f"taken as {float(rate):g} fps" if rate else "times are unknown"
                    channel.tell(f"{path}: has no timestamps; {clock}")
                by_rate = float(number / rate) if rate else None
                time_s = by_rate if frame.time is None else frame.time
                yield VideoFrame(name, number, time_s, pixels(frame))
    except av.FFmpegError as error:
        expected = "expected a server that sends a video" if is_address(path) else EXPECTED
        raise InputError(f"{path}: not readable as a video ({reason_of(error)}); {expected}") from error
    if tally.frames and promised_s and time_s is not None and promised_s - time_s > SHORT_S:
        channel.tell(
            f"{path}: ends at {time_s:.1f} s, its header says {promised_s:.1f} s: it was cut short, or its end is missing"
        )
    _tell_losses(path, channel, tally, promised)


def _tell_losses(path: Path | str, channel: Channel, tally: Tally, promised: int) -> None:
    """promised: packets by the container's header, 0 where it does not say; frames may be fewer by its edit list."""
    reason = f" ({tally.errors[0]})" if tally.errors else ""
    if tally.frames == 0:
        raise InputError(f"{path}: has no frames that can be read{reason}; {EXPECTED}")
    lost = {
        "frames missing at its end": max(promised - tally.packets, 0),
        "frames damaged": tally.damaged,
        "packets not readable": len(tally.errors),
    }
    if any(lost.values()):
        parts = ", ".join(f"{count:,} {what}" for what, count in lost.items() if count)
        channel.tell(f"{path}: {parts}{reason}; the {tally.frames:,} frames that can be read are used")
