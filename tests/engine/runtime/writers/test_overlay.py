"""The annotated video shows what was found, keeps its sound and its length, and leaves no half of itself."""

import resource
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Stream
from affect.engine.runtime.vision.boxes import Box
from affect.engine.runtime.writers.mp4 import Mp4
from affect.engine.runtime.writers.overlay import Mark, annotated, anonymised, colour_of
from affect.engine.runtime.writers.timeline import MOST_POINTS, MOST_TRACKS, Timeline
from affect.shards.errors import InputError

PROBS = {"sad": 0.1, "happy": 0.7, "fear": 0.2}


def heard(path):
    """The sound: seconds, codec, and whether it is louder than silence."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        frames = list(container.decode(stream))
        loud = max(float(np.abs(frame.to_ndarray().astype(float)).max()) for frame in frames)
        return sum(frame.samples for frame in frames) / stream.rate, stream.codec_context.name, loud > 0


def seen(path):
    with Stream(open_source(path)) as stream:
        return [(shot.time_s, shot.image) for shot in stream], stream.notes


@pytest.mark.parametrize(
    ("suffix", "sound"), [("mp4", "aac"), ("ts", "aac"), ("avi", "mp3"), ("avi", "pcm_s16le"), ("mkv", "mp2")]
)
def test_the_sound_is_kept_and_the_length_the_same(suffix, sound, moving, write, tmp_path, decoding):
    source = write(tmp_path / f"x.{suffix}", moving(60)[0], sound=sound)
    with Stream(open_source(source)) as stream, Mp4(tmp_path / "out.mp4", sound=stream.source.sound) as video:
        for shot in stream:
            video.write(annotated(shot.image, [Mark(Box(10, 10, 40, 40), 1, "happy", 0.7, probs=PROBS)]), shot.time_s)
    shots, notes = seen(tmp_path / "out.mp4")
    assert len(shots) == 60 and not notes
    assert [time for time, _ in shots] == pytest.approx([i / 25 for i in range(60)], abs=0.08)
    seconds, name, loud = heard(tmp_path / "out.mp4")
    assert seconds == pytest.approx(2.4, abs=0.15) and name == ("mp3float" if sound == "mp3" else "aac") and loud


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single_face.mp4", "no_face.mp4"])
def test_real_sound_is_copied(name, videos, tmp_path):
    with Stream(open_source(videos / name)) as stream, Mp4(tmp_path / "out.mp4", sound=videos / name) as video:
        shots = [(shot.time_s, video.write(shot.image, shot.time_s)) for shot in stream]
    written, notes = seen(tmp_path / "out.mp4")
    assert len(written) == len(shots) and not notes
    assert [time for time, _ in written] == pytest.approx([time for time, _ in shots], abs=0.06)
    with av.open(str(videos / name)) as a, av.open(str(tmp_path / "out.mp4")) as b:
        assert a.streams.audio[0].codec_context.name == b.streams.audio[0].codec_context.name
    before, after = heard(videos / name), heard(tmp_path / "out.mp4")
    assert after[0] == pytest.approx(min(before[0], shots[-1][0]), abs=0.3) and after[2]


def test_times_sizes_and_odd_edges(tmp_path):
    with Mp4(tmp_path / "out.mp4") as video:
        for i, (height, width) in enumerate([(61, 81), (61, 81), (200, 40), (1, 1), (62, 82)]):
            video.write(np.full((height, width, 3), 200, np.uint8), [100.0, 100.1, 100.1, 100.05, 107.0][i])
    shots, _ = seen(tmp_path / "out.mp4")
    assert {image.shape for _, image in shots} == {(62, 82, 3)} and len(shots) == 5
    times = [time for time, _ in shots]
    assert times == sorted(set(times)) and times[0] == 0 and times[-1] == pytest.approx(7.0, abs=0.01)
    assert shots[2][1][31, 41].mean() > 150 > 50 > shots[2][1][31, 5].mean()  # fitted, black beside


def test_photos_without_a_clock_are_a_video_too(tmp_path):
    with Mp4(tmp_path / "out.mp4") as video:
        for _ in range(5):
            video.write(np.zeros((40, 40, 3), np.uint8), None)
    assert len(seen(tmp_path / "out.mp4")[0]) == 5
    with Mp4(tmp_path / "none.mp4"):
        pass
    assert not (tmp_path / "none.mp4").exists()


def _write_and_stop(video):
    for i in range(10):
        video.write(np.full((40, 40, 3), 20 * i, np.uint8), i / 25)
    raise KeyboardInterrupt


def test_an_interrupted_video_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt), Mp4(tmp_path / "out.mp4") as video:
        _write_and_stop(video)
    assert len(seen(tmp_path / "out.mp4")[0]) == 10


FULL = """
import numpy as np, signal, resource, sys
from pathlib import Path
from affect.engine.runtime.writers.mp4 import Mp4
from affect.shards.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
random = np.random.default_rng(0)
try:
    with Mp4(Path(sys.argv[1])) as video:
        for i in range(400):
            video.write(random.integers(0, 256, (120, 160, 3), np.uint8), i / 25)
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of file size here")
def test_a_full_disk_is_said_and_no_part_is_left(tmp_path):
    path = tmp_path / "out.mp4"
    ended = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert ended.returncode == 1 and "out.mp4: cannot be written: the disk is full after" in ended.stderr
    assert "the tables stay" in ended.stderr and "Traceback" not in ended.stderr and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), Mp4(tmp_path / "file" / "out.mp4") as video:
        video.write(np.zeros((4, 4, 3), np.uint8), 0.0)


@pytest.mark.parametrize("place", [(10, 10, 40, 40), (-30, -30, 40, 40), (150, 100, 40, 40), (-500, 0, 10, 10), (0, 0, 160, 120)])
def test_marks_are_drawn_anywhere_and_the_frame_is_left_alone(place):
    image = np.full((120, 160, 3), 128, np.uint8)
    marks = [Mark(Box(*place), 3, "très triste", 0.5, False, {f"class {i}": 0.1 * i for i in range(12)}), Mark(Box(*place))]
    out = annotated(image, marks)
    assert out.shape == image.shape and (image == 128).all() and (out != image).any()
    assert annotated(np.zeros((1, 1, 3), np.uint8), marks).shape == (1, 1, 3)


def test_a_track_keeps_its_colour():
    image = np.zeros((120, 160, 3), np.uint8)
    for track in (0, 1, 5):
        assert annotated(image, [Mark(Box(40, 40, 60, 60), track)])[70, 40].tolist() == list(colour_of(track))
    assert len({colour_of(track) for track in range(20)}) > 4


def test_a_blurred_face_is_not_found_again(videos, yunet):
    image = cv2.cvtColor(cv2.imread(str(videos / "multi_face.jpg")), cv2.COLOR_BGR2RGB)
    faces = yunet().detect(image)
    hidden = anonymised(image, faces)
    assert len(faces) == 5 and yunet().detect(hidden) == []
    untouched = np.ones(image.shape[:2], bool)
    for box in faces:
        top, left = max(0, int(box.y - box.h)), max(0, int(box.x - box.w))
        untouched[top : int(box.y + 2 * box.h), left : int(box.x + 2 * box.w)] = False
    assert (hidden[untouched] == image[untouched]).all()
    assert anonymised(image, [Box(-500, -500, 10, 10), Box(0, 0, 0.1, 0.1), Box(0, 0, 1e5, 1e5)]).shape == image.shape


@pytest.mark.slow
def test_a_timeline_is_of_constant_size(tmp_path):
    timeline = Timeline(list(PROBS))
    for track in range(50):
        for i in range(3 * MOST_POINTS if track == 7 else 20 + track):
            timeline.add(track, i / 25 + (100 if i > 10 else 0), np.array([0.1, 0.7, 0.2]))
    assert len(timeline._lines) <= 2 * MOST_TRACKS and 7 in timeline._lines
    assert len(timeline._lines[7].times_s) < MOST_POINTS
    timeline.add(7, 400.0, np.array([0.1, 0.7, 0.2]), label=0)
    timeline.plot(tmp_path / "a.png", "x.mp4")
    Timeline(["sad"]).plot(tmp_path / "b.png", "nobody.mp4")
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] > cv2.imread(str(tmp_path / "b.png")).shape[0] > 100
