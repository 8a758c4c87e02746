"""The definition of a picture: OpenCV and numpy, one at a time, in threads. Runs everywhere; tests compare `dali.py` with it.

The formulas are DALI's (contrast about mid-gray, hue and saturation in YIQ, pixel centres at .5), not torchvision's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from affect.engine.config.preprocess import Preprocess, equalised, fit, in_three_channels
from affect.engine.data.augment import ERASED
from affect.engine.data.batch_plan import Plan
from affect.shards.images import decode

AHEAD = 2  # batches
MOST_AHEAD = 2**28  # bytes of them: large ones, as of clips, are fewer
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]], np.float32)  # from RGB
MID_GRAY = 128


def picture(plan: Plan, i: int, preprocess: Preprocess) -> np.ndarray:
    """The i-th picture of a plan, (size, size, 3) uint8 RGB; of clips, the frames count one after the other."""
    draw, clahe, data = plan.draw, preprocess.clahe, plan.data[i]
    i //= plan.frames  # the frames of a clip are treated alike
    top, left, height, width = draw.window[i]
    image = preprocess.plane(decode(data))[top : top + height, left : left + width]
    image = fit(image, *plan.size[i].tolist())
    top, left = plan.corner[i]
    image = image[top : top + preprocess.size, left : left + preprocess.size]
    image = np.ascontiguousarray(image[:, ::-1] if draw.flip[i] else image)
    if draw.affine is not None:
        image = warped(image, draw.affine[i])
    if draw.jitter is not None:
        image = jittered(image, *draw.jitter[i])
    if draw.blur is not None and draw.blur[i] > 0:
        image = blurred(image, float(draw.blur[i]))
    if clahe and draw.clahe_level[i] >= 0:
        image = equalised(image, clahe.levels[draw.clahe_level[i]], clahe.tiles)
    image = in_three_channels(image)
    if draw.erase is not None:
        top, left, height, width = draw.erase[i]
        image[top : top + height, left : left + width] = ERASED
    return image


def warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Linear sampling at `matrix` (2, 3) of each pixel's centre; beyond the border its nearest pixel."""
    grid = _grid(matrix.tobytes(), *image.shape[:2])
    planes = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[None].float()
    sampled = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return _rounded(sampled[0].permute(1, 2, 0).numpy()).reshape(image.shape)


@lru_cache(maxsize=32)
def _grid(matrix: bytes, height: int, width: int) -> torch.Tensor:
    """(1, H, W, 2) x, y from -1 to 1, of (2, 3) float32: half of the work, and all frames of a clip have the same."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    source = np.stack([row[0] * x + row[1] * y + row[2] for row in np.frombuffer(matrix, np.float32).reshape(2, 3)], axis=-1)
    return torch.from_numpy(source * (2 / np.array([width, height], np.float32)) - 1)[None]


def jittered(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Factors, and the hue's turn in degrees; a gray plane knows the first two only."""
    if image.ndim == 2:
        return _rounded(brightness * (MID_GRAY + contrast * (image.astype(np.float32) - MID_GRAY)))
    cos, sin = math.cos(math.radians(hue)), math.sin(math.radians(hue))
    turn = saturation * np.array([[cos, sin], [-sin, cos]], np.float32)
    inner = np.eye(3, dtype=np.float32)
    inner[1:, 1:] = turn
    matrix = brightness * contrast * np.linalg.inv(YIQ) @ inner @ YIQ
    return _rounded(image.astype(np.float32) @ matrix.T.astype(np.float32) + brightness * MID_GRAY * (1 - contrast))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    side = 2 * math.ceil(3 * sigma) + 1
    return _rounded(cv2.GaussianBlur(image.astype(np.float32), (side, side), sigma, borderType=cv2.BORDER_REFLECT_101))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def pictures(plan: Callable[[int], Plan], preprocess: Preprocess, workers: int, step: int) -> Iterator[tuple[Plan, torch.Tensor]]:
    """(plan, (B, size, size, 3) uint8, of clips (B, T, size, size, 3)) from `step` on, without end."""
    side = preprocess.size

    def put(planned: Plan, first: int, inputs: np.ndarray) -> None:
        """A picture, or all frames of a clip: a task each would cost a tenth of their time."""
        for i in range(first, first + planned.frames):
            inputs[i] = picture(planned, i, preprocess)

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Plan, np.ndarray, list[Future[None]]]] = deque()
        try:
            while True:
                while len(waiting) <= AHEAD:
                    planned = plan(step)
                    inputs = np.empty((len(planned.data), side, side, 3), np.uint8)
                    firsts = range(0, len(inputs), planned.frames)
                    waiting.append((planned, inputs, [pool.submit(put, planned, i, inputs) for i in firsts]))
                    step += 1
                    if (len(waiting) + 1) * inputs.nbytes > MOST_AHEAD:
                        break
                planned, inputs, futures = waiting.popleft()
                for future in futures:
                    future.result()
                yield planned, planned.shaped(torch.from_numpy(inputs))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
