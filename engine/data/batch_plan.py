"""The plan of a batch, as data: `opencv.py` and `dali.py` make the same picture from the same plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from affect.engine.config.augmentation import AugmentConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.data.augment import Draw, Mix, draw, draw_mix
from affect.engine.data.clip_view import ClipView, Windows
from affect.shards.dataset import Dataset
from affect.shards.sampler import Order
from affect.shards.tar_stream import StreamReader


@dataclass(frozen=True)
class Plan:
    """B pictures: cut `draw.window` out, resize to `size`, cut the model's square at `corner`, then augment by `draw`.

    sample: (B,) int64. data: encoded bytes. size: (B, 2) int32 height, width. corner: (B, 2) int32 top, left.
    start: None; of B clips the stored frame that each view starts at, (B,) int64. Then `data` is of T frames a clip, clip after
        clip, and all of them are treated alike.
    mix: None; how the finished batch is mixed.
    """

    sample: np.ndarray
    data: list[np.ndarray]
    size: np.ndarray
    corner: np.ndarray
    draw: Draw
    start: np.ndarray | None = None
    mix: Mix | None = None

    @property
    def frames(self) -> int:
        """T; 1 of pictures."""
        return len(self.data) // len(self.sample)

    def shaped(self, pictures: torch.Tensor) -> torch.Tensor:
        """The model's inputs: (B * T, H, W, 3), as `data` is, to (B, T, H, W, 3); pictures stay (B, H, W, 3)."""
        return pictures if self.start is None else pictures.unflatten(0, (len(self.sample), self.frames))


@dataclass(frozen=True)
class Planner:
    """Plans step k: a random view each epoch with `augment`, the evaluation view without.

    clip: of a dataset of clips, which frames are seen. windows: the windows that the order's numbers stand for; None: the numbers
    are samples, whose windows are drawn. spread: (N,) by sample, how many times as far the augmentation reaches; None: once.
    """

    dataset: Dataset
    order: Order
    preprocess: Preprocess
    augment: AugmentConfig | None
    seed: int
    stream: StreamReader | None = None
    clip: ClipView | None = None
    windows: Windows | None = None
    spread: np.ndarray | None = None

    @property
    def samples(self) -> np.ndarray:
        """(R,) int64 the sample of each row of the order."""
        return self.samples_of(self.order.rows)

    def samples_of(self, rows: np.ndarray) -> np.ndarray:
        return self.windows.sample[rows] if self.windows else rows

    @property
    def pictures(self) -> int:
        """How many pictures a step of this process has; of clips, frames."""
        return self.order.batch // self.order.world * (self.clip.config.frames if self.clip else 1)

    def plan(self, step: int) -> Plan:
        row, draw_id = self.order.step(step)
        sample = self.samples_of(row)
        height, width = self.dataset.column("height")[sample], self.dataset.column("width")[sample]
        start = self._start(row, draw_id)
        data = self._data(sample, draw_id, start)
        if self.augment is None:
            return Plan(sample, data, *self._evaluation(height, width), start)
        spread = None if self.spread is None else self.spread[sample]
        clahe, side = self.preprocess.clahe, self.preprocess.size
        numbers = draw(self.augment, clahe, side, self.seed, draw_id, sample, height, width, spread)
        size, mix = np.full((len(sample), 2), side, np.int32), draw_mix(self.augment, self.seed, step, side)
        return Plan(sample, data, size, np.zeros_like(size), numbers, start, mix)

    def _start(self, row: np.ndarray, draw_id: np.ndarray) -> np.ndarray | None:
        if self.clip is None:
            return None
        return self.windows.start[row] if self.windows else self.clip.drawn(self.seed, draw_id, row)

    def _data(self, sample: np.ndarray, draw_id: np.ndarray, start: np.ndarray | None) -> list[np.ndarray]:
        """The encoded pictures, of clips the frames that are seen and no others."""
        if self.clip is None or start is None:
            if self.stream:
                return [self.stream.image(*pair) for pair in zip(sample.tolist(), draw_id.tolist(), strict=True)]
            return [self.dataset.image(s) for s in sample.tolist()]
        data, frames = list[np.ndarray](), self.clip.frames(self.seed, sample, start)
        for s, drawn, chosen in zip(sample.tolist(), draw_id.tolist(), frames.tolist(), strict=True):
            if self.stream:
                stored = self.stream.frames(s, drawn)
                data += [stored[i] for i in chosen]
            else:
                data += self.dataset.frames(s, chosen)
        return data

    def _evaluation(self, height: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray, Draw]:
        pairs = list(zip(height.tolist(), width.tolist(), strict=True))
        window = np.array([(0, 0, h, w) for h, w in pairs], np.int32)
        size = np.array([self.preprocess.resized_shape(h, w) for h, w in pairs], np.int32)
        corner = np.array([self.preprocess.corner(h, w) for h, w in size.tolist()], np.int32)
        clahe = self.preprocess.clahe
        level = clahe.levels.index(clahe.clip_limit) if clahe else -1
        return size, corner, Draw(window, np.zeros(len(pairs), bool), np.full(len(pairs), level, np.int32))
