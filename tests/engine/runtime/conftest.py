"""Small videos made in the test, and what tells whether a thread is left over."""

import io
import threading
from fractions import Fraction

import av
import numpy as np
import pytest


@pytest.fixture
def moving():
    """moving(count, width, height) -> frames in which a textured square wanders, and its box in each."""

    def make(count=20, width=160, height=120, side=40, step=2):
        random = np.random.default_rng(0)
        patch = random.integers(0, 256, (side // 4, side // 4, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        images, boxes = [], []
        for i in range(count):
            image = np.full((height, width, 3), 90, np.uint8)
            x, y = 10 + step * i % (width - side - 20), 20 + i % 10
            image[y : y + side, x : x + side] = patch
            images.append(image)
            boxes.append((x, y, side, side))
        return images, boxes

    return make


@pytest.fixture
def write():
    """write(path, images, times_s=None, sound=None, ...) writes a video; sound: a codec of one second's tone a second."""

    def make(path, images, times_s=None, codec="mpeg4", rate=25, sound=None, turned=None, form=None, options=None):
        target = path if isinstance(path, io.BytesIO) else str(path)
        with av.open(target, "w", format=form) as out:
            video = out.add_stream(codec, rate=rate, options=options or {})
            video.height, video.width = images[0].shape[:2]
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            if turned is not None:
                video.set_display_rotation(turned)
            audio = out.add_stream(sound, rate=16_000) if sound else None
            for i, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = round(1000 * (times_s[i] if times_s else i / rate)), Fraction(1, 1000)
                out.mux(video.encode(frame))
            out.mux(video.encode())
            if audio is not None:
                _tone(out, audio, len(images) / rate)
        return path

    return make


def _tone(out, audio, seconds):
    samples = (8000 * np.sin(np.arange(int(16_000 * seconds)) / 16_000 * 2 * np.pi * 440)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
    out.mux(audio.encode(frame))
    out.mux(audio.encode())


@pytest.fixture
def decoding():
    """The threads that decode; none may be left after a test."""

    def threads():
        return [thread for thread in threading.enumerate() if thread.name.startswith("decode ")]

    yield threads
    assert not threads()


@pytest.fixture(scope="session")
def yunet(real):
    """A factory: a detector serves one thread."""
    from affect.engine.runtime.vision.subject import subject_of

    return lambda: subject_of(f"yunet:{real}/weights/yunet_n_320_320.onnx")


LEVELS = ("dark", "middle", "bright")


class Brightness:
    """A backend that reads how bright a view is: .8 for one of three levels. calls: how many rows each call had."""

    name, description = "brightness", "brightness of pixels"

    def __init__(self):
        self.calls = []
        self.closed = False

    def run(self, images):
        self.calls.append(len(images))
        level = np.minimum(images.reshape(len(images), -1).mean(1) * 3 // 256, 2).astype(int)
        probs = np.full((len(images), 3), 0.1, np.float32)
        probs[np.arange(len(images)), level] = 0.8
        return {"emotion.logits": np.log(probs), "emotion.probs": probs}

    def close(self):
        self.closed = True


@pytest.fixture
def backends(monkeypatch):
    """Those that engines open from now on: each is a Brightness."""
    opened = []

    def open_backend(package, backend, device, threads):
        opened.append(Brightness())
        return opened[-1]

    monkeypatch.setattr("affect.engine.runtime.session.open_backend", open_backend)
    return opened


@pytest.fixture
def bright(backends):
    """bright(name, ...) -> an engine of 16 px that answers by brightness."""
    from affect.engine.config.preprocess import Preprocess
    from affect.engine.package.manifest import Manifest
    from affect.engine.package.model_package import ModelPackage
    from affect.engine.runtime.clip_engine import ClipEngine
    from affect.engine.runtime.engine import Engine
    from affect.shards.schema import Output, TargetLayout

    def make(
        name="bright", task="emotion_student", clip=None, calibration=None, face_px=None, subject="full", crop=None, **options
    ):
        layout = TargetLayout((Output("emotion", "classes", LEVELS),))
        frames = [clip["view"]["frames"]] if clip else []
        manifest = Manifest(
            name,
            task,
            layout,
            Preprocess(16, **crop or {}),
            subject,
            calibration or {},
            {},
            [],
            "",
            {"shape": ["N", *frames, 16, 16, 3]},
            clip=clip,
            face_px=face_px,
        )
        return (ClipEngine if clip else Engine)(ModelPackage(manifest, None), "cpu", **options)

    return make
