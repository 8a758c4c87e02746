"""The stored frames of a clip that the model sees: pure functions of the settings, the times and (seed, draw_id, sample).

Frames keep the order of time, unless the settings ask for a control without it.
Axes: B clips, T frames that are seen, M stored frames that may be, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affect.engine.config.data import ClipConfig
from affect.engine.data.augment import START, uniforms
from affect.engine.system.log import say_once
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError, first

SHUFFLED = 2**32 - 1  # in place of a draw_id, which never gets there: the numbers that shuffle a clip's frames


def reach(config: ClipConfig) -> int:
    """How many stored frames a view needs, so that none is shown twice."""
    return config.frames if config.choice == "uniform" else (config.frames - 1) * config.stride + 1


def inside(config: ClipConfig, times_s: np.ndarray) -> tuple[int, int]:
    """(the first stored frame in [start_s, end_s), how many there are). times_s: float32, ascending."""
    begin = 0 if config.start_s is None else int(np.searchsorted(times_s, np.float32(config.start_s)))
    end = len(times_s) if config.end_s is None else int(np.searchsorted(times_s, np.float32(config.end_s)))
    return begin, max(0, end - begin)


def drawn_starts(config: ClipConfig, seed: int, draw_id: np.ndarray, sample: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(B,) int64 where the views of training begin, counted from the first frame inside; count: (B,) frames inside."""
    if config.choice == "uniform":
        return np.zeros(len(sample), np.int64)
    room = np.maximum(count - reach(config) + 1, 1)
    return np.floor(uniforms(seed, draw_id, sample, START + 1)[:, START] * room).astype(np.int64)


def all_starts(config: ClipConfig, count: int) -> np.ndarray:
    """(W,) int64 where the views of evaluation begin, ascending; count: frames inside.

    Frames behind the last whole window are seen by one that ends with the clip, unless a `hop` leaves gaps on purpose.
    """
    last = max(0, count - reach(config))
    if config.choice == "uniform" or last == 0:
        return np.zeros(1, np.int64)
    beside = config.frames * config.stride
    hop = config.hop or beside
    starts = np.arange(0, last + 1, hop)
    unseen = last - starts[-1] >= config.stride and hop <= beside
    return np.append(starts, last) if unseen else starts


def seen(config: ClipConfig, count: int, start: int, turn: np.ndarray | None = None) -> np.ndarray:
    """(T,) int64 frames counted from the first one inside. A clip that is too short repeats its last frame.

    count: frames inside, 1 or more. turn: (T,) the places that shuffled frames come from.
    """
    frames = config.frames
    if config.choice == "window":
        chosen = np.arange(start, count, config.stride)[:frames]
    elif count <= frames:
        chosen = np.arange(count)
    elif frames == 1:
        chosen = np.array([(count - 1) // 2])
    else:
        chosen = (np.arange(frames) * (count - 1) / (frames - 1)).round().astype(np.int64)
    if config.order == "single":
        return np.repeat(chosen[len(chosen) // 2], frames)
    filled = np.append(chosen, np.repeat(chosen[-1], frames - len(chosen)))
    return filled if turn is None else filled[turn]


def turns(config: ClipConfig, seed: int, sample: np.ndarray) -> np.ndarray:
    """(B, T) for each clip the order of its shuffled frames, the same in every epoch and window."""
    return uniforms(seed, np.full(len(sample), SHUFFLED), sample, config.frames).argsort(1)


@dataclass(frozen=True)
class Windows:
    """The rows of an evaluation of clips. sample: (R,) int64. start: (R,) int64, the stored frame that the view starts at.

    The windows of a sample stand side by side and ascend.
    """

    sample: np.ndarray
    start: np.ndarray

    def of_rows(self, rows: np.ndarray) -> Windows:
        return Windows(self.sample[rows], self.start[rows])


@dataclass(frozen=True)
class ClipView:
    """The clips of a dataset under the settings.

    first, count: (N,) int64 by sample number, the stored frames that may be seen; count 0 for samples outside these rows.
    """

    config: ClipConfig
    first: np.ndarray
    count: np.ndarray

    def drawn(self, seed: int, draw_id: np.ndarray, sample: np.ndarray) -> np.ndarray:
        """(B,) the stored frame that each view of training starts at."""
        return self.first[sample] + drawn_starts(self.config, seed, draw_id, sample, self.count[sample])

    def windows(self, rows: np.ndarray) -> Windows:
        """Every view of evaluation of these samples, in their order."""
        starts = [self.first[row] + all_starts(self.config, int(self.count[row])) for row in rows]
        return Windows(np.repeat(rows, [len(of_sample) for of_sample in starts]), np.concatenate(starts))

    def frames(self, seed: int, sample: np.ndarray, start: np.ndarray) -> np.ndarray:
        """(B, T) the stored frames that are shown of views that start at `start`."""
        turn = turns(self.config, seed, sample) if self.config.order == "shuffled" else [None] * len(sample)
        begin, count = self.first[sample], self.count[sample]
        rows = zip(begin, count, start - begin, turn, strict=True)
        return np.stack([b + seen(self.config, int(c), int(s), t) for b, c, s, t in rows])


def clip_view(config: ClipConfig | None, dataset: Dataset, rows: np.ndarray) -> ClipView | None:
    """The view of these samples; None of pictures. How many clips repeat a frame is logged, once.

    Raises: InputError where clips are to be seen as pictures or pictures as clips, and naming the clips without a frame inside.
    """
    stored = dataset.column("num_frames")[rows].astype(np.int64)
    if config is None:
        _refuse_clips(dataset, rows[stored > 1], stored)
        return None
    _refuse_pictures(config, dataset, rows[stored == 1], len(rows))
    bounds = np.stack([np.zeros_like(stored), stored])
    if config.start_s is not None or config.end_s is not None:
        bounds = np.array([inside(config, dataset.times_s(row)) for row in rows.tolist()], np.int64).reshape(-1, 2).T
        _refuse_empty(config, dataset, rows, stored, bounds[1])
    short = int((bounds[1] < reach(config)).sum())
    if short:
        say_once(
            f"data.clip: {short:,} of {len(rows):,} clips of {dataset.folder} have fewer than the {reach(config)} frames that a "
            "view needs; their last one is repeated"
        )
    placed = np.zeros((2, dataset.info.num_samples), np.int64)
    placed[:, rows] = bounds
    return ClipView(config, *placed)


def _refuse_clips(dataset: Dataset, clips: np.ndarray, stored: np.ndarray) -> None:
    if len(clips):
        raise InputError(
            f"{dataset.folder}: {len(clips):,} of {len(stored):,} samples are clips (of up to {stored.max()} frames), and "
            "data.clip is null: pictures are expected. For a task of clips say which frames are seen, e.g. "
            f"--set data.clip.frames={min(int(stored.max()), 32)}; a task of pictures needs a dataset of pictures"
        )


def _refuse_pictures(config: ClipConfig, dataset: Dataset, singles: np.ndarray, among: int) -> None:
    """singles: samples of one stored frame; a clip among them has the frame's time."""
    pictures = [row for row in singles.tolist() if len(dataset.times_s(row)) == 0]
    if pictures:
        raise InputError(
            f"{dataset.folder}: {len(pictures):,} of {among:,} samples are pictures, and data.clip asks for {config.frames} "
            f"frames of each:\n{_named(dataset, pictures)}\nPack clips (affect pack clips|pain|mouse), or train a task of "
            "pictures with --set data.clip=null"
        )


def _refuse_empty(config: ClipConfig, dataset: Dataset, rows: np.ndarray, stored: np.ndarray, count: np.ndarray) -> None:
    untimed = [row for row, num in zip(rows.tolist(), stored, strict=True) if len(dataset.times_s(row)) != num]
    if untimed:
        raise InputError(
            f"{dataset.folder}: data.clip.start_s and end_s need the time of each frame, which {len(untimed):,} clips do not "
            f"have:\n{_named(dataset, untimed)}\nPack them anew, or take null for both"
        )
    empty = rows[count == 0].tolist()
    if empty:
        low, high = ("..." if bound is None else f"{bound:g}" for bound in (config.start_s, config.end_s))
        raise InputError(
            f"{dataset.folder}: data.clip: no frame of {len(empty):,} clips lies in [{low}, {high}) s:\n"
            f"{_named(dataset, empty, times=True)}\nWiden start_s and end_s, or leave these clips out: data.where"
        )


def _named(dataset: Dataset, rows: list[int], *, times: bool = False) -> str:
    def name(row: int) -> str:
        text = f"sample {row}, {dataset.column('path')[row]}"
        return text + (f": {dataset.times_s(row)[0]:g} to {dataset.times_s(row)[-1]:g} s" if times else "")

    return first([name(row) for row in rows])
