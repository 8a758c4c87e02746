"""Chooses the frames of a recording that become its clip; reads recordings that are folders of pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from affect.shards.encoded import BadImage, Encoded
from affect.shards.errors import InputError
from affect.shards.images import SUFFIXES
from affect.shards.sample import Clip, Image, Recording
from affect.shards.schema import ClipFacts
from affect.shards.sources.pack_command import Option

MOST_FRAMES = 10_000  # of a clip, which is one sample and is read as one
Frames = Annotated[int, Option("this many frames a clip, spread evenly over it", min=0)]
RateHz = Annotated[float, Option("a frame each 1 / RATE seconds", min=0)]
AllFrames = Annotated[bool, Option("every frame")]
StartS = Annotated[float | None, Option("only frames from here, in seconds from the first frame")]
EndS = Annotated[float | None, Option("only frames before this")]
Fps = Annotated[float | None, Option("frames a second of folders of frames", min=0.001)]
META: dict[str, type] = {"repeated": float, "gaps": float, "time_from": str}
"""Meta of every clip. repeated: frames that are repeated, since there were too few; gaps: frame numbers that are missing between
others; time_from: timestamps, rate (the video's mean frame rate), fps (--fps) or numbers (a frame number is a second)."""


def chosen(
    num_frames: int = 0, rate_hz: float = 0, all_frames: bool = False, start_s: float | None = None, end_s: float | None = None
) -> ClipFacts:
    """Return the facts of a choice: num_frames spread evenly, a frame each 1 / rate_hz seconds, or all. Raises InputError."""
    if (num_frames > 0) + (rate_hz > 0) + all_frames != 1:
        raise InputError("which frames: expected one of --frames N, --rate-hz R and --all-frames")
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise InputError(f"--end-s {end_s:g} is not after --start-s {start_s:g}")
    window_s = None if end_s is None else end_s - (start_s or 0)
    choice = "uniform" if num_frames else "rate" if rate_hz else "all"
    return ClipFacts(choice, num_frames or None, rate_hz or None, start_s, end_s, window_s)  # type: ignore[arg-type]


def pick(times_s: np.ndarray, facts: ClipFacts) -> tuple[list[int], int]:
    """Return (frame numbers in order, how many of them repeat a frame).

    times_s: (M,) seconds of all frames, ascending. A recording of fewer frames than requested repeats its last one.
    Raises: BadImage where no frame lies in the window.
    """
    start = -np.inf if facts.start_s is None else facts.start_s
    end = np.inf if facts.end_s is None else facts.end_s
    inside = np.flatnonzero((times_s >= start) & (times_s < end))
    if len(inside) == 0:
        last = f"to {end:g} s" if np.isfinite(end) else "on"
        window = f"from {max(start, 0.0):g} s {last}; it lasts {times_s[-1]:.3g} s" if len(times_s) else "at all"
        raise BadImage(f"no frames {window}")
    if facts.choice == "uniform":
        assert facts.num_frames
        numbers = _spread(inside, facts.num_frames)
    elif facts.choice == "rate":
        assert facts.rate_hz
        numbers = _nearest(inside, times_s, facts.start_s or 0.0, min(times_s[-1], end - 1e-6), facts.rate_hz)
    else:
        numbers = inside
    if len(numbers) > MOST_FRAMES:
        raise BadImage(f"{len(numbers):,} frames, more than {MOST_FRAMES:,} a clip: take a window or fewer, with --frames N")
    return numbers.tolist(), int((np.diff(numbers) == 0).sum())


def _spread(inside: np.ndarray, count: int) -> np.ndarray:
    """(count,) of (M,) frames, the first and the last among them; all of them and the last repeated where M is smaller."""
    if len(inside) <= count:
        return np.concatenate([inside, np.repeat(inside[-1:], count - len(inside))])
    places = (np.arange(count) * (len(inside) - 1) / (count - 1)).round() if count > 1 else np.array([(len(inside) - 1) // 2])
    return inside[places.astype(int)]


def _nearest(inside: np.ndarray, times_s: np.ndarray, start_s: float, last_s: float, rate_hz: float) -> np.ndarray:
    """The frames inside nearest to start_s + k / rate_hz, up to last_s; of two equally near ones the earlier."""
    times = times_s[inside]
    count = int(np.floor((last_s - start_s) * rate_hz + 1e-6)) + 1
    if count > MOST_FRAMES:
        raise BadImage(f"{count:,} frames at {rate_hz:g} Hz, more than {MOST_FRAMES:,} a clip: take a window, or a lower rate")
    grid = start_s + np.arange(max(count, 1)) / rate_hz
    after = np.searchsorted(times, grid).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    return inside[np.where(grid - times[before] <= times[after] - grid + 1e-9, before, after)]


@dataclass(frozen=True)
class FrameFolder(Recording):
    """Pictures of one recording, ordered by the number in their names.

    fps: pictures a second; None: unknown, and a time is the frame's number, counted from the first. Missing numbers leave gaps.
    """

    path: Path
    facts: ClipFacts
    fps: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def clip(self, encode_frame: Callable[[Image], Encoded]) -> Clip:
        paths, places = listed(self.path)
        if self.fps is None and self.facts != ClipFacts(self.facts.choice, self.facts.num_frames):
            raise BadImage("a folder of frames has no times: name their rate with --fps")
        times = places / (self.fps or 1.0)
        numbers, repeated = pick(times, self.facts)
        encoded: dict[int, Encoded] = {}
        for number in numbers:
            if number not in encoded:
                encoded[number] = encoded_frame(paths[number], encode_frame)
        gaps = float(places[-1] - (len(places) - 1))
        meta = {"repeated": float(repeated), "gaps": gaps, "time_from": "numbers" if self.fps is None else "fps"}
        return Clip(tuple(encoded[n] for n in numbers), tuple(times[numbers].tolist()), meta)


def encoded_frame(path: Path, encode_frame: Callable[[Image], Encoded]) -> Encoded:
    """Encode a picture of a folder. Raises BadImage with its name."""
    try:
        return encode_frame(path)
    except BadImage as reason:
        raise BadImage(f"{path.name}: {reason}") from reason


def listed(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Return (pictures of a folder in the order of their numbers, (M,) float64 their places).

    The number is the last one in a name: `cow3_frame12.jpg` is 12. Places count from 0 in steps of the smallest distance between
    two numbers, so that frames taken each fifth have no gaps. Raises BadImage.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    except OSError as error:
        raise BadImage("missing folder" if isinstance(error, FileNotFoundError) else f"not readable: {error.strerror}") from error
    if not paths:
        raise BadImage("no pictures in the folder")
    numbered: dict[int, Path] = {}
    for path in sorted(paths):
        number = frame_number(path)
        if number is None and len(paths) > 1:
            raise BadImage(f"{path.name} has no frame number; expected names like frame_0012.jpg, and no other pictures")
        twin = numbered.setdefault(number or 0, path)
        if twin is not path:
            raise BadImage(f"frame number {number} stands twice: {twin.name} and {path.name}")
    numbers = np.array(sorted(numbered), np.float64)
    step = np.diff(numbers).min(initial=np.inf)
    return [numbered[int(n)] for n in numbers], np.floor((numbers - numbers[0]) / step + 1e-9)


def frame_number(path: Path) -> int | None:
    """Return the last number in a name; None where there is none."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else None
