"""Any YOLO-style detector in an ONNX file."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from affect.engine.runtime.vision.boxes import Box
from affect.engine.system.onnxruntime import session
from affect.shards.errors import InputError

SIDE = 640  # pixels, where the graph takes any size
GRAY = 114  # around the picture, as in training
POINT_VALUES = 15  # five points of x, y, visibility


class Yolo:
    """A graph: images (1, 3, S, S) float32 RGB 0..1 -> (1, 4 + classes [+ points], N), centre x, y, w, h in its pixels.

    The layout of YOLOv8 and later, exported without NMS. Values past the scores are read as five points (x, y,
    visibility) where there are fifteen of them, else left alone. How many classes there are is read from the metadata
    `names`; without it there is one.
    """

    def __init__(self, path: Path, score: float = 0.4, overlap: float = 0.5) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected a YOLO-style detector: onnx:FILE")
        self.path, self.score, self.overlap = path, score, overlap
        self.session = session(path, ["CPUExecutionProvider"])
        (image, *more), shape = self.session.get_inputs(), self.session.get_inputs()[0].shape
        if more or image.type != "tensor(float)" or len(shape) != 4 or shape[1] == 1:
            raise InputError(f"{path}: found an input {shape} {image.type}; expected one of (1, 3, S, S) float32")
        self.input = image.name
        self.height, self.width = (size if isinstance(size, int) else SIDE for size in shape[2:])
        self.classes = max(1, len(_names(self.session.get_modelmeta().custom_metadata_map)))
        self.detect(np.zeros((32, 32, 3), np.uint8))  # so that a wrong graph is an error now

    def detect(self, image: np.ndarray, number: int = 0) -> list[Box]:
        letter, scale, left, top = letterbox(image, self.width, self.height)
        tensor = np.ascontiguousarray(letter.transpose(2, 0, 1)[None], np.float32) / 255
        output: Any = self.session.run(None, {self.input: tensor})[0]
        if output.ndim != 3 or output.shape[0] != 1 or output.shape[1] < 4 + self.classes:
            raise InputError(
                f"{self.path}: found an output {output.shape}; expected (1, {4 + self.classes} or more, N): export it without NMS"
            )
        return self._boxes(output[0].T, scale, np.array([left, top], np.float32))

    def _boxes(self, rows: np.ndarray, scale: float, offset: np.ndarray) -> list[Box]:
        """Turn rows (N, 4 + classes + points) in the graph's pixels into boxes in the picture's."""
        scores = rows[:, 4 : 4 + self.classes].max(1)
        rows, scores = rows[scores >= self.score], scores[scores >= self.score]
        corners = np.concatenate([(rows[:, :2] - rows[:, 2:4] / 2 - offset) / scale, rows[:, 2:4] / scale], 1)
        chosen = cv2.dnn.NMSBoxes(corners.tolist(), scores.tolist(), self.score, self.overlap) if len(rows) else ()
        boxes = []
        for i in np.asarray(chosen, int).ravel():
            tail = rows[i, 4 + self.classes :]
            points = (tail.reshape(5, 3)[:, :2] - offset) / scale if len(tail) == POINT_VALUES else None
            boxes.append(Box.at(corners[i], float(scores[i]), points))
        return boxes


def letterbox(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, float, int, int]:
    """Return the whole picture in (height, width, 3) with gray around it, its scale, and its left and top edge."""
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    out = np.full((height, width, 3), GRAY, np.uint8)
    out[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
    return out, scale, left, top


def _names(metadata: dict[str, str]) -> Any:
    try:
        return ast.literal_eval(metadata.get("names", "()"))
    except (ValueError, SyntaxError):
        return ()
