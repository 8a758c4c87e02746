"""Draws results into frames, and makes faces unrecognisable."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from affect.engine.runtime.vision.boxes import Box

COLOURS = ((255, 99, 71), (60, 179, 255), (90, 220, 120), (255, 205, 60), (200, 130, 255), (255, 150, 200), (80, 230, 220))
UNSURE = (190, 190, 190)
INK, PAPER = (255, 255, 255), (20, 20, 20)
FONT = cv2.FONT_HERSHEY_SIMPLEX
BLOCKS = 3  # of a blurred face, each way
HIDDEN_MARGIN = 0.25  # around a blurred box, as a share of its sides
FEWEST_BARS, MOST_BARS = 3, 8  # as many as the box is high
LEAST_LINE = 11  # pixels of a bar


@dataclass(frozen=True)
class Mark:
    """One face to draw. probs: name -> 0..1, the bars beside the box; prob: of the label."""

    box: Box
    track: int | None = None
    label: str | None = None
    prob: float | None = None
    sure: bool = True
    probs: Mapping[str, float] = field(default_factory=dict)


def annotated(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Return a copy of an (H, W, 3) uint8 RGB picture with boxes, track numbers, labels and bars; an unsure face is gray."""
    out = np.array(image, order="C")
    size = max(0.35, min(out.shape[:2]) / 900)
    colours = [colour_of(mark.track) if mark.sure else UNSURE for mark in marks]
    for mark, colour in zip(marks, colours, strict=True):  # below all boxes and titles
        _bars(out, mark, size, colour)
    for mark, colour in zip(marks, colours, strict=True):
        left, top, right, bottom = corners(mark.box, out.shape)
        cv2.rectangle(out, (left, top), (right, bottom), colour, max(1, round(2 * size)))
        _title(out, _words(mark), left, top, bottom, size, colour)
    return out


def anonymised(image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Return a copy in which each box, and some room around it, is BLOCKS x BLOCKS colours blended into each other."""
    out = np.array(image, order="C")
    for box in boxes:
        room_x, room_y = HIDDEN_MARGIN * box.w, HIDDEN_MARGIN * box.h
        wide = Box(box.x - room_x, box.y - room_y, box.w + 2 * room_x, box.h + 2 * room_y)
        left, top, right, bottom = corners(wide, out.shape)
        part = out[top : bottom + 1, left : right + 1]
        blocks = cv2.resize(part, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
        out[top : bottom + 1, left : right + 1] = cv2.resize(blocks, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return out


def colour_of(track: int | None) -> tuple[int, int, int]:
    """Return the colour of a track, the same in all frames."""
    return COLOURS[0 if track is None else zlib.crc32(str(track).encode()) % len(COLOURS)]


def corners(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom: whole pixels within the picture, the last ones included."""
    height, width = shape[:2]
    xs = np.clip(np.rint([box.x, box.x + box.w]), 0, width - 1).astype(int).tolist()
    ys = np.clip(np.rint([box.y, box.y + box.h]), 0, height - 1).astype(int).tolist()
    return xs[0], ys[0], xs[1], ys[1]


def _words(mark: Mark) -> str:
    """Return the title of a face, in letters that OpenCV can draw."""
    prob = "" if mark.prob is None else f" {mark.prob:.2f}"
    parts = ["" if mark.track is None else f"#{mark.track}", f"{mark.label or ''}{prob}", "" if mark.sure else "?"]
    return " ".join(filter(None, parts)).encode("ascii", "replace").decode()


def _title(out: np.ndarray, words: str, left: int, top: int, bottom: int, size: float, colour: tuple[int, int, int]) -> None:
    """Above the box, or below it where there is no room."""
    if not words:
        return
    (width, height), base = cv2.getTextSize(words, FONT, size, 1)
    low = top - base if top > height + 2 * base else min(bottom + height + base, out.shape[0] - base)
    left = max(0, min(left, out.shape[1] - width))
    cv2.rectangle(out, (left, low - height - base // 2), (left + width, low + base), colour, cv2.FILLED)
    cv2.putText(out, words, (left, low), FONT, size, PAPER, 1, cv2.LINE_AA)


def _bars(out: np.ndarray, mark: Mark, size: float, colour: tuple[int, int, int]) -> None:
    """The largest probabilities, in the package's order, to the right of the box or to its left."""
    left, top, right, bottom = corners(mark.box, out.shape)
    line, width = max(LEAST_LINE, round(22 * size)), round(170 * size)
    count = min(max((bottom - top) // line, FEWEST_BARS), MOST_BARS)
    largest = sorted(mark.probs, key=lambda name: -mark.probs[name])[:count]
    start = right + 4 if right + 4 + width <= out.shape[1] else max(0, left - 4 - width)
    for row, name in enumerate(name for name in mark.probs if name in largest):
        y = top + row * line
        if y + line > out.shape[0]:
            return
        strip = out[y : y + line - 1, start : start + width]
        strip[:] = strip // 3
        strip[:, : round(width * min(max(mark.probs[name], 0.0), 1.0))] = np.array(colour) * 2 // 3
        words = name.encode("ascii", "replace").decode()
        cv2.putText(out, words, (start + 2, y + line - 3), FONT, 0.7 * size, INK, 1, cv2.LINE_AA)
