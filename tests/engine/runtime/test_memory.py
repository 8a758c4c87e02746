"""However long the source, the memory is the same."""

import os
from pathlib import Path

import numpy as np
import pytest

from affect.engine.runtime.result_row import Row
from affect.engine.runtime.smoothing import Events, Smoother
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Stream
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.vision.crop import crop, sharpness
from affect.engine.runtime.vision.track import Tracker
from affect.engine.runtime.writers.mp4 import Mp4
from affect.engine.runtime.writers.overlay import Mark, annotated
from affect.engine.runtime.writers.prediction_table import EventTable, Predictions
from affect.engine.runtime.writers.timeline import Timeline

FRAMES, WARM = 5_000, 1_000
NAMES = ("sad", "happy", "fear")


def resident():
    """MB that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads Linux's /proc")
def test_memory_is_flat_over_5000_frames(tmp_path, moving):
    images, boxes = moving(40)
    listed = Listed({i: [Box(*map(float, boxes[i % 40]))] for i in range(FRAMES) if i % 500 > 40})
    random = np.random.default_rng(0)
    tracker, events, timeline = Tracker(listed, every=5), Events(), Timeline(NAMES)
    smoothers, held = {}, []
    endless = (images[i % 40] for i in range(FRAMES))
    with (
        Stream(open_source(endless, rate_hz=25)) as stream,
        Predictions(tmp_path, [f"emotion.{name}" for name in NAMES]) as table,
        EventTable(tmp_path) as ended,
        Mp4(tmp_path / "out.mp4") as video,
    ):
        for shot in stream:
            marks, rows = [], []
            for i, found in enumerate(found for found in tracker.step(shot) if found.seen):
                probs, (best,) = smoothers.setdefault(found.track, Smoother("classes")).step(
                    random.dirichlet([1, 1, 1]), shot.time_s
                )
                values = dict(zip(NAMES, probs.tolist(), strict=True))
                ended.write("x", events.step(found.track, [NAMES[best]], shot.time_s))
                timeline.add(found.track, shot.time_s, probs)
                marks.append(Mark(found.box, found.track, NAMES[best], float(probs[best]), probs=values))
                named = {f"emotion.{name}": value for name, value in values.items()}
                blur = sharpness(crop(shot.image, found.box))
                rows.append(
                    Row("x", shot.number, shot.time_s, shot.name, i, found.track, found.box.tuple, 1.0, blur, values=named)
                )
            ended.write("x", events.end(tracker.ended))
            for track in tracker.ended:
                smoothers.pop(track, None)
            table.write(rows or [Row("x", shot.number, shot.time_s, shot.name)])
            if shot.number % 10 == 0:
                video.write(annotated(shot.image, marks), shot.time_s)
            if shot.number >= WARM and shot.number % 200 == 0:
                held.append(resident())
        ended.write("x", events.end())
    assert table.rows == FRAMES and len(smoothers) <= 1
    assert max(held) - held[0] < 20, held
