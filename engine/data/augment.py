"""Augmentation as data: the random numbers of a sample are a pure function of (seed, draw_id, sample).

So a resumed run sees the pictures of an undisturbed one, whatever the number of ranks, and two pipelines make the same picture
from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affect.engine.config.augmentation import AffineConfig, AugmentConfig, BlurConfig, CropConfig, EraseConfig, JitterConfig
from affect.engine.config.preprocess import Clahe

TRIES = 10  # torchvision's: a window that does not fit is drawn again
# The columns of a sample's numbers that each augmentation reads: switching one on moves no other.
CROP = slice(0, 2 * TRIES + 2)  # area and ratio a try, top, left
FLIP, CLAHE, CLAHE_LEVEL = 22, 23, 24
AFFINE = slice(25, 29)  # angle, shift down, shift right, scale
JITTER = slice(29, 33)  # brightness, contrast, saturation, hue
SPREAD = slice(AFFINE.start, JITTER.stop)  # the numbers whose middle means no change
BLUR = slice(33, 35)  # whether, sigma
ERASE = slice(35, 40)  # whether, area, ratio, top, left
DRAWS = 40
START = 40  # of a clip's window, drawn in clip_view.py
ERASED = 118  # the gray of an erased box: about the mean that the model subtracts


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011).

    counter: (..., 4) uint32; key: (..., 2) uint32. Returns: (..., 4) uint32.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = (key[..., i].astype(np.uint64) for i in range(2))
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        product0, product1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ k0,
            product1 & low,
            (product0 >> np.uint64(32)) ^ c3 ^ k1,
            product0 & low,
        )
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def uniforms(seed: int, draw_id: np.ndarray, sample: np.ndarray, count: int) -> np.ndarray:
    """(B, count) float64 in [0, 1): independent of batch, rank and the order of samples.

    draw_id, sample: (B,) integers; see Order.step.
    """
    blocks = -(-count // 4)
    counter = np.empty((len(sample), blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks)
    counter[..., 1] = draw_id[:, None]
    counter[..., 2] = (sample & 0xFFFFFFFF)[:, None]
    counter[..., 3] = (sample >> 32)[:, None]
    key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
    return philox(counter, key).reshape(len(sample), -1)[:, :count] / 2**32


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed. share: of the first picture of each pair.

    box: top, left, height, width in pixels of what is pasted from the second; None: the whole pictures are blended.
    """

    share: float
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Draw:
    """The drawn numbers of B pictures; None where an augmentation is off.

    window: (B, 4) int32 top, left, height, width in pixels of the stored picture. flip: (B,) bool.
    clahe_level: (B,) int32, which of `Clahe.levels`; -1: no CLAHE.
    affine: (B, 2, 3) float32, from a point of the result to one of the picture, pixel centres at .5.
    jitter: (B, 4) float32 factors of brightness, contrast, saturation, and the hue's turn in degrees.
    blur: (B,) float32 sigma in pixels, 0: none. erase: (B, 4) int32 top, left, height, width; no height: none.
    """

    window: np.ndarray
    flip: np.ndarray
    clahe_level: np.ndarray
    affine: np.ndarray | None = None
    jitter: np.ndarray | None = None
    blur: np.ndarray | None = None
    erase: np.ndarray | None = None


def draw_mix(config: AugmentConfig, seed: int, step: int, size: int) -> Mix | None:
    """Draw for the batch of a step by (seed, step) alone; None where mixup and cutmix are off. With both on, each takes half.

    One share and one box a batch, as timm does. size: of the model's pictures, in pixels.
    """
    if config.mixup == 0 and config.cutmix == 0:
        return None
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, 1))))
    cut = config.cutmix > 0 and (config.mixup == 0 or random.random() < 0.5)
    alpha = config.cutmix if cut else config.mixup
    share = float(random.beta(alpha, alpha))
    if not cut:
        return Mix(share, None)
    side = round(size * (1 - share) ** 0.5)
    top, left = random.integers(0, size - side + 1, 2).tolist()
    return Mix(1 - side * side / size**2, (top, left, side, side))


def draw(
    config: AugmentConfig,
    clahe: Clahe | None,
    size: int,
    seed: int,
    draw_id: np.ndarray,
    sample: np.ndarray,
    height: np.ndarray,
    width: np.ndarray,
    spread: np.ndarray | None = None,
) -> Draw:
    """Draw for B pictures. height, width: (B,) pixels of the stored pictures; size: of the model's.

    spread: (B,) how many times as far affine and jitter reach; None: once.
    """
    u = uniforms(seed, draw_id, sample, DRAWS)
    if spread is not None:
        u[:, SPREAD] = 0.5 + spread[:, None] * (u[:, SPREAD] - 0.5)
    whole = np.stack([np.zeros_like(height), np.zeros_like(height), height, width], axis=1)
    window = _crop(config.crop, u[:, CROP], height, width) if config.crop else whole
    level = np.floor(u[:, CLAHE_LEVEL] * len(clahe.levels)) if clahe else np.zeros(len(u))
    return Draw(
        window.astype(np.int32),
        u[:, FLIP] < config.flip,
        np.where(u[:, CLAHE] < (clahe.p if clahe else 0), level, -1).astype(np.int32),
        _affine(config.affine, u[:, AFFINE], size) if config.affine else None,
        _jitter(config.jitter, u[:, JITTER]) if config.jitter else None,
        _blur(config.blur, u[:, BLUR]) if config.blur else None,
        _erase(config.erase, u[:, ERASE], size) if config.erase else None,
    )


def _between(bounds: tuple[float, float], u: np.ndarray) -> np.ndarray:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _affine(config: AffineConfig, u: np.ndarray, size: int) -> np.ndarray:
    """(B, 2, 3): source = R (point - centre - shift) + centre, with R the inverse of the rotation and scaling."""
    angle = np.radians(_between((-config.rotate, config.rotate), u[:, 0]))
    shift = _between((-config.shift, config.shift), u[:, 2:0:-1]) * size  # right, down
    scale = _between(config.scale, u[:, 3])
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    turn = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1)  # (B, 2, 2)
    centre = np.full(2, size / 2)
    offset = centre - np.einsum("bij,bj->bi", turn, centre + shift)
    return np.concatenate([turn, offset[:, :, None]], axis=2).astype(np.float32)


def _jitter(config: JitterConfig, u: np.ndarray) -> np.ndarray:
    spread = np.array([config.brightness, config.contrast, config.saturation, 360 * config.hue])
    return (np.array([1, 1, 1, 0]) + spread * (2 * u - 1)).astype(np.float32)


def _blur(config: BlurConfig, u: np.ndarray) -> np.ndarray:
    return np.where(u[:, 0] < config.p, _between(config.sigma, u[:, 1]), 0).astype(np.float32)


def _erase(config: EraseConfig, u: np.ndarray, size: int) -> np.ndarray:
    area, low_high = _between(config.area, u[:, 1]) * size**2, np.log(config.ratio)
    ratio = np.exp(_between((low_high[0], low_high[1]), u[:, 2]))
    h, w = (np.clip(np.rint(side), 1, size) for side in (np.sqrt(area / ratio), np.sqrt(area * ratio)))
    box = np.stack([np.floor(u[:, 3] * (size - h + 1)), np.floor(u[:, 4] * (size - w + 1)), h, w], axis=1)
    return np.where(u[:, :1] < config.p, box, 0).astype(np.int32)


def _crop(config: CropConfig, u: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """torchvision's RandomResizedCrop: (B, 4) windows; after TRIES misses the largest centred one of an allowed ratio."""
    area = (height * width)[:, None] * (config.scale[0] + (config.scale[1] - config.scale[0]) * u[:, :TRIES])
    low, high = np.log(config.ratio)
    ratio = np.exp(low + (high - low) * u[:, TRIES : 2 * TRIES])
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (w >= 1) & (h >= 1) & (w <= width[:, None]) & (h <= height[:, None])
    chosen, row = fits.argmax(1), np.arange(len(u))
    h, w = h[row, chosen], w[row, chosen]
    top, left = np.floor(u[:, -2] * (height - h + 1)), np.floor(u[:, -1] * (width - w + 1))
    window = np.stack([top, left, h, w], axis=1)

    missed = ~fits.any(1)
    aspect = width / height
    w = np.where(aspect > config.ratio[1], np.rint(height * config.ratio[1]), width)
    h = np.where(aspect < config.ratio[0], np.rint(width / config.ratio[0]), height)
    centred = np.stack([(height - h) // 2, (width - w) // 2, h, w], axis=1)
    return np.where(missed[:, None], centred, window)
