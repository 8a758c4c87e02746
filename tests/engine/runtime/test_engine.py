"""An engine predicts pictures and streams: the faces in them, their labels, and since when."""

import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from affect.engine import OFF, Engine, Reader, Search, Smoothing, open_source
from affect.engine.config.preprocess import Preprocess
from affect.engine.runtime.session import WARM
from affect.engine.runtime.sources.stream import VideoFrame
from affect.engine.runtime.stage_timer import Stages
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.vision.prepare import Preparer
from affect.engine.runtime.writers.prediction_table import FIXED
from affect.shards.errors import InputError

LEVEL = {"dark": 30, "middle": 128, "bright": 220}
FACE = Box(20, 20, 30, 30, 0.9)


def scene(*levels, size=(180, 240)):
    """Frames of a gray wall with a face of each level at FACE."""
    frames = []
    for level in levels:
        image = np.full((*size, 3), 128, np.uint8)
        image[14:56, 14:56] = LEVEL[level]
        frames.append(image)
    return frames


def at(count, *boxes):
    return Listed({i: list(boxes) for i in range(count)})


class Counting:
    """FACE in every frame."""

    seen = 0

    def detect(self, image, number=0):
        self.seen += 1
        return [FACE]


def test_pictures_are_read_one_by_one(bright):
    engine = bright()
    frames = engine.predict(scene("dark", "bright", "dark"))
    assert [frame.faces[0].track for frame in frames] == [None] * 3
    engine = bright(search=Search(at(3, FACE)))
    assert [frame.faces[0].label for frame in engine.predict(scene("dark", "bright", "dark"))] == ["dark", "bright", "dark"]


def test_a_picture_without_a_face_has_no_faces(bright, tmp_path):
    engine = bright(search=Search("human_face"))
    frames = engine.predict([np.zeros((90, 120, 3), np.uint8), np.zeros((90, 120), np.uint8)])
    assert [frame.faces for frame in frames] == [[], []] and frames[1].number == 1
    table = frames.to_pandas()
    assert list(table) == list(FIXED) and table["frame"].tolist() == [0, 1] and table["label"].isna().all()
    table = bright().predict(scene("dark", "bright")).to_pandas()
    assert list(table)[len(FIXED) :] == ["emotion.dark", "emotion.middle", "emotion.bright"]
    assert table["face"].tolist() == [0, 0] and table["face_px"].tolist() == [180, 180] and table["track"].isna().all()


def test_labels_are_unsure_below_the_threshold(bright):
    assert bright(sure=0.8).predict(scene("dark"))[0].faces[0].sure
    assert not bright(sure=0.9).predict(scene("dark"))[0].faces[0].sure


def test_a_stream_keeps_tracks_and_smooths(bright):
    levels = ["dark"] * 25 + ["bright"] + ["dark"] * 24
    for smoothing, want in ((OFF, 1), (Smoothing(), 0)):
        engine = bright(search=Search(at(50, FACE)), smoothing=smoothing)
        frames = list(engine.stream(scene(*levels), rate_hz=25))
        assert {face.track for frame in frames for face in frame.faces} == {0}
        assert [frame.faces[0].label for frame in frames].count("bright") == want
    assert frames[25].faces[0].probs["bright"] < 0.4 and frames[1].time_s == 0.04


def test_packages_share_decoding_detection_and_views(bright, backends):
    detector, engines = Counting(), [bright("a", warm=True), bright("b", warm=True)]
    with Reader(engines, open_source(scene(*["dark"] * 10), 25), Search(detector)) as reader:
        results = list(reader)
    assert detector.seen == 10 and [sum(backend.calls) for backend in backends] == [WARM + 10] * 2
    outputs = results[3].frame.faces[0].outputs
    assert list(outputs) == ["a", "b"] and outputs["a"]["emotion"].labels == outputs["b"]["emotion"].labels == ("dark",)
    assert {"decode", "detect", "crop", "infer", "smooth"} <= set(reader.stages.to_json())


def test_each_package_sees_faces_cropped_as_it_was_trained(bright):
    image = np.zeros((120, 160, 3), np.uint8)
    image[40:60, 40:60] = 255
    engines = [bright("tight", crop={"margin": 0.0}), bright("wide", crop={"margin": 2.0})]
    for margin, want in ((None, ["bright", "dark"]), (0.0, ["bright", "bright"]), (2.0, ["dark", "dark"])):
        search = Search(at(1, Box(40, 40, 20, 20)), margin=margin)
        with Reader(engines, open_source(image), search) as reader:
            (face,) = next(reader).frame.faces
        assert [face.outputs[name]["emotion"].labels[0] for name in ("tight", "wide")] == want


def test_a_package_may_be_trained_on_upright_faces(picture):
    lying = Box(40, 40, 40, 40, 1.0, np.float32([[70, 50], [70, 70], [60, 60], [50, 52], [50, 68]]))
    as_trained = [Preprocess(16, align=True), Preprocess(16)]
    preparer = Preparer(Search(at(1, lying)), as_trained, Stages())
    views = preparer(VideoFrame("x", 0, None, picture(120, 160))).views
    asked = Preparer(Search(at(1, lying), align=True), as_trained, Stages())(VideoFrame("x", 0, None, picture(120, 160))).views
    upright, plain = (views[preprocess] for preprocess in as_trained)
    assert (upright != plain).any() and all((view == upright).all() for view in asked.values())


def test_detection_every_fifth_frame(bright, write, tmp_path):
    detector = Counting()
    path = write(tmp_path / "x.mp4", scene(*["dark"] * 20))
    frames = list(bright(search=Search(detector, detect_every=5)).stream(path))
    assert detector.seen == 4 and [len(frame.faces) for frame in frames] == [1] * 20


def test_a_file_is_read_some_frames_at_once_and_arrays_as_they_come(bright, backends, write, tmp_path, decoding):
    path = write(tmp_path / "x.mp4", scene(*["dark"] * 10))
    assert len(list(bright(search=Search(at(10, FACE))).stream(path))) == 10
    assert backends[-1].calls == [4, 4, 2]
    stream = bright(search=Search(at(10, FACE))).stream(scene(*["dark"] * 10), rate_hz=25)
    next(stream)
    assert backends[-1].calls == [1]
    stream = bright().stream(path)
    next(stream)
    assert decoding()
    stream.close()


def test_frames_before_an_error_are_read(bright):
    frames = [*scene("dark", "dark", "dark"), np.zeros((4, 4, 3), np.float32)]
    with Reader([bright()], open_source(iter(frames), 25), together=8) as reader:
        assert [next(reader).frame.number for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InputError, match="frame 3: found"):
            next(reader)
        assert next(reader, None) is None


@pytest.mark.parametrize(
    ("boxes", "sizes"),
    [
        ([], [(120, 160)]),
        ([Box(4 * i, 3 * i, 9, 9, i / 40) for i in range(40)], [(120, 160)]),
        ([Box(-20, -20, 30, 30), Box(150, 110, 30, 30), Box(0, 0, 500, 500)], [(120, 160)]),
        ([FACE], [(120, 160), (90, 60), (480, 640), (60, 1000)]),
        ([Box(5, 5, 0.2, 0.2)], [(61, 83), (1, 1)]),
    ],
    ids=["nobody", "forty", "border", "sizes", "tiny"],
)
def test_any_faces_in_any_frames(boxes, sizes, bright):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes * 2]
    engine = bright(search=Search(at(len(images), *boxes)))
    frames = list(engine.stream(images, rate_hz=25))
    assert [len(frame.faces) for frame in frames] == [len(boxes)] * len(images)
    scores = [face.score for face in frames[0].faces]
    assert scores == sorted(scores, reverse=True) and len(engine.predict(images)) == len(images)


def test_warm_engines_have_run_before_the_first_call(bright, backends):
    lazy = bright()
    assert not backends
    lazy.predict(scene("dark"))
    assert backends[0].calls == [1]
    bright(warm=True)
    assert backends[1].calls == [1] * WARM


def test_a_closed_engine_says_so(bright, backends):
    with bright(warm=True) as engine:
        engine.predict(scene("dark"))
    engine.close()
    assert backends[0].closed
    with pytest.raises(InputError, match="the engine is closed"):
        engine.predict(scene("dark"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda bright: bright(sure=1.5), "sure: found 1.5"),
        (lambda bright: bright(threads=-1), "threads: found -1"),
        (lambda bright: Search(detect_every=0), "detect_every: found 0"),
        (lambda bright: Search(margin=-1), "margin: found -1"),
        (lambda bright: bright(search=Search("human_fase")).predict(scene("dark")), "did you mean 'human_face'"),
        (lambda bright: bright("mice", "mouse_set", search=Search("human_face")).predict(scene("dark")), "mice reads mouse"),
        (lambda bright: Reader([bright(), bright()], open_source(scene("dark"))), "two packages are called 'bright'"),
        (lambda bright: bright().predict(scene("dark"), times_s=[1, 2]), "2 times for 1 pictures"),
    ],
)
def test_bad_options_are_one_message(make, message, bright):
    with pytest.raises(InputError, match=message):
        make(bright)


def test_species_come_from_the_task_unless_named(bright):
    from affect.engine.package.manifest import Manifest

    species = {name: bright("x", name).manifest.species for name in ("emotion_au", "pain_clip", "mouse_clip", "score_clip")}
    assert species == {"emotion_au": "human", "pain_clip": "cattle", "mouse_clip": "mouse", "score_clip": ""}
    value = bright().manifest.to_json()
    assert Manifest.from_json(value | {"species": "sheep"}, "x").species == "sheep"
    del value["species"]
    assert Manifest.from_json(value, "x").species == "human"


def test_threads_share_an_engine(package, picture):
    engine = Engine.load(package, backend="onnxruntime", device="cpu", subject="human_face")
    images = [picture(60, 60, seed) for seed in range(4)]
    whole = Engine.load(package, backend="onnxruntime", device="cpu")
    want, got = [whole.predict(image)[0].faces[0].probs for image in images], {}

    def ask(i):
        engine.predict(images[i])
        got[i] = [whole.predict(images[i])[0].faces[0].probs for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(got[i] == [want[i]] * 20 for i in range(4))


FORK = """
import os, sys
import numpy as np
from affect.engine import Engine
from affect.shards.errors import InputError
path, backend, warm = sys.argv[1:]
image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
engine = Engine.load(path, device="cpu", backend=backend, warm=warm == "warm")
want = engine.predict(image)[0].faces[0].probs if warm == "warm" else None
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
try:
    probs = engine.predict(image)[0].faces[0].probs
    engine.close()
    os._exit(0 if want is None or max(abs(probs[name] - want[name]) for name in want) < 1e-4 else 1)
except InputError as error:
    print(error, flush=True)
    os._exit(2)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
@pytest.mark.parametrize(
    ("backend", "warm", "code"), [("onnxruntime", "warm", 0), ("auto", "warm", 0), ("openvino", "warm", 2), ("auto", "lazy", 0)]
)
def test_a_fork_opens_its_own_or_is_refused(backend, warm, code, package):
    if backend == "openvino":
        pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", FORK, package, backend, warm], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert code == 0 or "does not survive a fork; load the engine in the child" in done.stdout


def test_tables_of_a_stream_and_of_frames_are_alike(bright):
    from affect.engine import Frames

    frames = Frames(bright(search=Search(at(2, FACE))).stream(scene("dark", "dark", "dark"), rate_hz=25))
    table = frames.to_pandas()
    assert table["label"].tolist()[:2] == ["dark", "dark"] and pd.isna(table["label"][2]) and table["track"][0] == 0
