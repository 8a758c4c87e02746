"""A clip model over a stream: a frame is encoded once, a window equals the whole clip, and none spans two scenes."""

import numpy as np
import pandas as pd
import pytest

from affect.engine import Search, open_source
from affect.engine.runtime import clip_reader
from affect.engine.runtime.clip_stream import ClipStream
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.writers.clip_table import run_clips
from affect.shards.errors import InputError

FRAMES, RATE_HZ = 4, 10.0
CLIP = {"view": {"frames": FRAMES, "choice": "window"}, "rate_hz": RATE_HZ, "window_s": 0.3, "stored": None}


class Encoder:
    """Features of a frame: its mean, and a one. calls: rows of each call."""

    def __init__(self):
        self.calls, self.closed = [], False

    def run(self, images):
        self.calls.append(len(images))
        return {"features": np.stack([images.reshape(len(images), -1).mean(1), np.ones(len(images))], 1).astype(np.float32)}

    def close(self):
        self.closed = True


class Last(Encoder):
    """A head that sees order: the change from the first frame to the last says the class; the mean is kept as it is."""

    def run(self, features):
        self.calls.append(len(features))
        change = features[:, -1, 0] - features[:, 0, 0]
        probs = np.stack([change < -5, np.abs(change) <= 5, change > 5], 1).astype(np.float32)
        return {"emotion.logits": features.mean(1), "emotion.probs": probs}


@pytest.fixture
def parts(monkeypatch):
    """The parts that are opened from now on."""
    opened = []

    def open_parts(*_):
        opened.append((Encoder(), Last()))
        return opened[-1]

    monkeypatch.setattr(clip_reader, "open_parts", open_parts)
    return opened


def gray(level, size=40):
    return np.full((size, size, 3), level, np.uint8)


def windows(times, images=None, hop=1, **options):
    """Of a stream of frames; and its encoder."""
    encoder = Encoder()
    stream = ClipStream(encoder, Last(), FRAMES, RATE_HZ, hop)
    results = [
        stream.push(t, lambda i=i: gray(i) if images is None else images[i], cut=i in options.get("cuts", ()))
        for i, t in enumerate(times)
    ]
    return [window for window in results if window], encoder, stream


def test_a_frame_is_encoded_once_whatever_the_window():
    results, encoder, _ = windows(np.arange(20) / RATE_HZ)
    assert len(results) == 20 - FRAMES + 1 and encoder.calls == [1] * 20
    assert [window.values["emotion.logits"][0] for window in results] == pytest.approx(np.arange(17) + 1.5)


@pytest.mark.parametrize("hop", [1, 2, FRAMES])
def test_windows_come_every_hop(hop):
    results, _, _ = windows(np.arange(20) / RATE_HZ, hop=hop)
    assert [window.start_s for window in results] == pytest.approx(np.arange(0, 17, hop) / RATE_HZ)
    assert all(window.end_s - window.start_s == pytest.approx(0.3) for window in results)


@pytest.mark.parametrize("fps", [10, 25, 29.97, 60])
def test_frames_are_taken_at_the_rate_of_training(fps):
    times = np.arange(round(3 * fps)) / fps
    results, encoder, _ = windows(times, hop=FRAMES)
    assert len(encoder.calls) == 30 and len(results) == 7
    assert np.abs(np.array([window.start_s for window in results]) - np.arange(7) * 0.4).max() < 1 / fps


def test_no_window_spans_a_cut_or_a_gap():
    times = np.arange(12) / RATE_HZ
    results, _, stream = windows(times, cuts=(6,))
    assert [round(window.start_s, 1) for window in results] == [0, 0.1, 0.2, 0.6, 0.7, 0.8] and stream.resets == 1
    late = np.where(np.arange(12) >= 6, times + 1, times)
    results, _, stream = windows(late)
    assert [round(window.start_s, 1) for window in results] == [0, 0.1, 0.2, 1.6, 1.7, 1.8] and stream.resets == 1


@pytest.mark.parametrize(
    ("times", "message"), [([0, 0.1, 0.05], "0.05 s after one at 0.1 s; expected ascending"), ([0, np.nan], "expected seconds")]
)
def test_bad_times_are_named(times, message):
    with pytest.raises(InputError, match=message):
        windows(times)


@pytest.mark.parametrize("settings", [(0, 10.0, 1), (4, 0.0, 1), (4, float("inf"), 1), (4, 10.0, 0)])
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match="clip stream: frames"):
        ClipStream(Encoder(), Last(), *settings)


def test_each_subject_has_its_windows(bright, parts):
    def scene(i):
        image = gray(128, 120)
        image[10:40, 10:40], image[60:90, 60:90] = 60 + 5 * i, 200 - 5 * i
        return image

    boxes = Listed({i: [Box(10, 10, 30, 30), *([Box(60, 60, 30, 30)] if i >= 3 else [])] for i in range(12)})
    engine = bright("cow", "pain_clip", clip=CLIP, search=Search(boxes, margin=0.0))
    clips = list(engine.stream((scene(i) for i in range(12)), rate_hz=RATE_HZ))
    assert [clip.track for clip in clips].count(0) == 9 and [clip.track for clip in clips].count(1) == 6
    labels = {clip.track: clip.outputs["cow"]["emotion"].labels[0] for clip in clips}
    assert labels == {0: "bright", 1: "dark"} and parts[0][0].calls == [1] * 21
    assert parts[0][0].closed and parts[0][1].closed


def test_a_lost_track_begins_anew(bright, parts):
    boxes = Listed({i: [Box(10, 10, 30, 30)] for i in range(24) if not 8 <= i < 15})
    engine = bright("cow", "pain_clip", clip=CLIP, search=Search(boxes))
    clips = list(engine.stream((gray(100, 120) for _ in range(24)), rate_hz=RATE_HZ))
    assert [(clip.track, round(clip.start_s, 1)) for clip in clips] == [
        *((0, i / 10) for i in range(5)),
        *((1, 1.5 + i / 10) for i in range(6)),
    ]


def test_a_cut_begins_anew(bright, parts):
    engine = bright("cow", "pain_clip", clip=CLIP)
    clips = list(engine.stream((gray(10 if i < 6 else 200) for i in range(12)), rate_hz=RATE_HZ))
    assert [round(clip.start_s, 1) for clip in clips] == [0, 0.1, 0.2, 0.6, 0.7, 0.8]
    assert {clip.outputs["cow"]["emotion"].labels[0] for clip in clips} == {"middle"}


def test_several_packages_share_a_stream(bright, parts, write, tmp_path):
    engines = [bright(name, "pain_clip", clip=CLIP) for name in ("a", "b")]
    path = write(tmp_path / "cow.mp4", [gray(60 + 10 * i) for i in range(10)], rate=10)
    assert run_clips(engines, open_source(path), tmp_path / "out", hop=2) == 8
    table = pd.read_csv(tmp_path / "out/clips.csv")
    assert table["package"].tolist() == ["a", "b"] * 4 and set(table["label"]) == {"bright"} and set(table["track"]) == {0}
    assert table["start_s"].tolist()[::2] == pytest.approx([0, 0.2, 0.4, 0.6]) and len(parts) == 2


def test_a_source_without_a_clip_is_an_error(bright, parts, tmp_path):
    engine = bright("cow", "pain_clip", clip=CLIP)
    timeless = bright("calf", "pain_clip", clip=CLIP | {"rate_hz": None})
    few = [gray(i) for i in range(3)]
    for of, source, message in [
        (engine, open_source(few, 10), "too short for a clip of cow"),
        (engine, open_source(few), "its frames have no times; say how many come in a second"),
        (timeless, open_source(few, 10), "calf: its training clips have no times"),
        (bright(), open_source(few, 10), "bright: sees frames, not clips"),
    ]:
        with pytest.raises(InputError, match=message):
            run_clips([of], source, tmp_path / "out", hop=1)
    assert not (tmp_path / "out").exists()


def test_a_package_without_its_parts_is_an_error(bright, package):
    from dataclasses import replace

    engine = bright("cow", "pain_clip", clip=CLIP)
    engine.package = replace(engine.package, model=package / "model.onnx")
    with pytest.raises(InputError, match=r"cow: no encoder\.onnx and temporal\.onnx beside it"):
        next(engine.stream([gray(0)], rate_hz=10))
