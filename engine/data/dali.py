"""The DALI pipeline: decodes, resizes and augments; on the CPU it makes what `opencv.py` makes, to a level of rounding.

exec_dynamic stays on: without it a batch handed over without a copy is overwritten two runs later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types

from affect.engine.config.augmentation import AugmentConfig
from affect.engine.config.preprocess import Preprocess
from affect.engine.data.augment import ERASED
from affect.engine.data.batch_plan import Plan, Planner
from affect.engine.data.opencv import MID_GRAY, MOST_AHEAD

AHEAD = 2  # batches
PART = 256  # pictures
Fed = dict[str, Any]  # name -> an array a batch, or a list of arrays


def pictures(planner: Planner, workers: int, step: int, device: torch.device) -> Iterator[tuple[Plan, torch.Tensor]]:
    """(plan, (B, size, size, 3) uint8 on `device`, of clips (B, T, size, size, 3)) from `step` on, without end.

    The frames of clips are made in parts of at most PART, so that no more of them are between two operators.
    """
    preprocess, total = planner.preprocess, planner.pictures
    part = min(total, PART) if planner.clip else total
    count = -(-total // part)
    planned: deque[Plan] = deque()
    parts: deque[tuple[Any, ...]] = deque()
    names = _names(preprocess, planner.augment)

    def feed() -> tuple[Any, ...]:
        nonlocal step
        if not parts:
            plan = planner.plan(step)
            step += 1
            planned.append(plan)
            parts.extend(_parts(plan, preprocess.size, names, part))
        return parts.popleft()

    ahead = max(AHEAD, min(AHEAD * count, MOST_AHEAD // (part * preprocess.size**2 * 3)))
    pipeline = build(feed, names, preprocess, workers, device, part, ahead)
    joined = Joined(total, count)
    while True:
        if count == 1:
            inputs = torch.from_dlpack(pipeline.run()[0].as_tensor())
        else:
            inputs = joined(torch.from_dlpack(pipeline.run()[0].as_tensor()) for _ in range(count))
        plan = planned.popleft()
        yield plan, plan.shaped(inputs)


class Joined:
    """Parts copied into one tensor of `total` pictures. A part's memory is DALI's: on a GPU it stays until it has been read."""

    def __init__(self, total: int, count: int) -> None:
        self.total, self.count = total, count
        self._read: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    def __call__(self, parts: Iterator[torch.Tensor]) -> torch.Tensor:
        whole, done = torch.empty(0), 0
        for part in parts:
            if not done:
                whole = part.new_empty((self.total, *part.shape[1:]))
            whole[done : done + len(part)] = part
            done += len(part)
            if part.is_cuda:
                self._read.append((torch.cuda.Event(), part))
                self._read[-1][0].record()
        while self._read and (len(self._read) > 2 * self.count or self._read[0][0].query()):
            self._read.popleft()[0].synchronize()
        return whole


def _parts(plan: Plan, size: int, names: list[str], part: int) -> list[tuple[Any, ...]]:
    """The arrays of each call of `feed`; the frames of a clip have its numbers."""
    values = _values(plan, size)
    if plan.start is not None:
        values |= {name: np.repeat(values[name], plan.frames, axis=0) for name in names if name != "data"}
    return [tuple(values[name][i : i + part] for name in names) for i in range(0, len(plan.data), part)]


def _names(preprocess: Preprocess, augment: AugmentConfig | None) -> list[str]:
    """The names of the arrays that the pipeline is fed: only those that it uses."""
    names = ["data", "anchor", "shape", "start", "end"]
    if preprocess.clahe:
        names.append("clahe_level")
    if augment and augment.affine:
        names.append("affine")
    if augment and augment.jitter:
        names += ["brightness", "contrast", *(["saturation", "hue"] if preprocess.color == "rgb" else [])]
    if augment and augment.blur:
        names += ["blurs", "sigma"]
    if augment and augment.erase:
        names += ["erase_anchor", "erase_shape"]
    return names


def _values(plan: Plan, size: int) -> Fed:
    draw = plan.draw
    values: Fed = {"data": plan.data, "clahe_level": draw.clahe_level, "affine": draw.affine}
    values["anchor"], values["shape"] = _halves(draw.window)
    values["start"], values["end"] = _square(plan, size)
    if draw.jitter is not None:
        columns = np.ascontiguousarray(draw.jitter.T)
        values |= dict(zip(("brightness", "contrast", "saturation", "hue"), columns, strict=True))
    if draw.blur is not None:
        values["blurs"], values["sigma"] = draw.blur > 0, draw.blur
    if draw.erase is not None:
        values["erase_anchor"], values["erase_shape"] = (half.astype(np.float32) for half in _halves(draw.erase))
    return values


def _square(plan: Plan, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return start and end of the model's square in the window, (B, 2) float32 pixels each; a flipped one runs from the right."""
    scale = plan.draw.window[:, 2:] / plan.size
    start, end = plan.corner * scale, (plan.corner + size) * scale
    flip = plan.draw.flip
    start[flip, 1], end[flip, 1] = end[flip, 1], start[flip, 1]
    return start.astype(np.float32), end.astype(np.float32)


def _halves(boxes: np.ndarray) -> list[np.ndarray]:
    """(B, 4) as top, left (B, 2) and height, width (B, 2), each contiguous."""
    return [np.ascontiguousarray(half) for half in np.split(boxes, 2, axis=1)]


def build(
    feed: Callable[[], tuple[Any, ...]],
    names: list[str],
    preprocess: Preprocess,
    workers: int,
    device: torch.device,
    batch: int,
    ahead: int = AHEAD,
) -> Pipeline:
    """A pipeline of `preprocess` whose numbers come from `feed`, a batch a call, in the order of `names`; `ahead` in batches."""
    on_gpu = device.type == "cuda"
    size, clahe, gray = preprocess.size, preprocess.clahe, preprocess.color == "gray"

    @pipeline_def(
        batch_size=batch,
        num_threads=workers,
        device_id=(device.index or 0) if on_gpu else None,
        exec_dynamic=True,
        enable_conditionals=True,
        prefetch_queue_depth=ahead,
    )
    def faces() -> Any:
        sources = fn.external_source(source=feed, num_outputs=len(names), batch=True)
        fed = {name: sources[i] for i, name in enumerate(names)}
        place = "mixed" if on_gpu else "cpu"
        image = fn.decoders.image_slice(
            fed["data"], fed["anchor"], fed["shape"], axes=(0, 1), device=place, output_type=types.RGB
        )
        if gray:
            image = fn.color_space_conversion(image, image_type=types.RGB, output_type=types.GRAY)
        image = fn.resize(  # the model's square only, mirrored on the way: resizing is the dearest step on a CPU
            image, size=[size, size], roi_start=fed["start"], roi_end=fed["end"], interp_type=types.INTERP_LINEAR, antialias=False
        )
        if "affine" in names:
            image = fn.warp_affine(image, matrix=fed["affine"], interp_type=types.INTERP_LINEAR, inverse_map=True)
        if "hue" in names:
            factors = {name: fed[name] for name in ("brightness", "contrast", "saturation", "hue")}
            image = fn.color_twist(image, **factors)
        elif "brightness" in names:
            factors = {name: fed[name] for name in ("brightness", "contrast")}
            image = fn.brightness_contrast(image, contrast_center=MID_GRAY, **factors)
        if "blurs" in names:
            blurs = fed["blurs"]
            if blurs:  # each picture its own branch
                image = fn.gaussian_blur(image, sigma=fed["sigma"])
        if clahe:
            for level, limit in enumerate(clahe.levels):
                if fed["clahe_level"] == level:  # the limit is not an argument that may differ in a batch
                    image = fn.clahe(image, tiles_x=clahe.tiles, tiles_y=clahe.tiles, clip_limit=limit)
        if gray:
            image = fn.cat(image, image, image, axis=2)
        if "erase_anchor" in names:
            image = fn.erase(image, anchor=fed["erase_anchor"], shape=fed["erase_shape"], axes=(0, 1), fill_value=ERASED)
        return image

    return faces()
