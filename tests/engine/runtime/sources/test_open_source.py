"""Whatever the source, its frames come in order, with its own times; what cannot be read is said."""

import io
import itertools

import av
import cv2
import numpy as np
import pytest

from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Stream
from affect.shards.errors import InputError


def read(what, **options):
    """The shots, and what was said of the source."""
    with Stream(open_source(what, **options)) as stream:
        return list(stream), stream.notes


def test_every_frame_with_its_own_time(moving, write, tmp_path, decoding):
    images, _ = moving(12)
    times = [0.0, 0.04, 0.05, 0.2, 0.21, 0.5, 0.9, 0.91, 1.4, 1.41, 2.0, 7.3]
    shots, notes = read(write(tmp_path / "uneven.mkv", images, times))
    assert [shot.number for shot in shots] == list(range(12)) and not notes
    assert [shot.time_s for shot in shots] == pytest.approx(times, abs=1e-3)
    assert np.abs(shots[5].image.astype(int) - images[5]).mean() < 12


@pytest.mark.parametrize("turned", [0, 90, 180, -90])
def test_a_turned_video_is_upright(turned, moving, write, tmp_path):
    path = write(tmp_path / "phone.mp4", moving(2)[0], turned=turned)
    capture = cv2.VideoCapture(str(path))
    want = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    got = read(path)[0][0].image
    assert got.shape == want.shape and np.abs(got.astype(int) - want).mean() < 3


@pytest.mark.parametrize(("suffix", "cut"), [("mkv", 0.0), ("mkv", 0.4), ("avi", 0.4), ("mp4", 0.4)])
def test_a_video_that_ends_in_garbage_gives_what_can_be_read(suffix, cut, tmp_path, decoding):
    whole = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = tmp_path / f"x.{suffix}"
    with av.open(str(path), "w", options=whole) as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width, video.height = 160, 120
        for image in np.random.default_rng(1).integers(0, 256, (50, 120, 160, 3), np.uint8):  # as much of the file each
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode())
    data = path.read_bytes()
    kept = int(len(data) * (1 - cut)) if cut else len(data) // 2
    garbage = np.random.default_rng(0).bytes(len(data) - kept) if cut else b""
    path.write_bytes(data[:kept] + garbage)
    shots, notes = read(path)
    assert 20 <= len(shots) <= 50 and [shot.number for shot in shots] == list(range(len(shots)))
    assert notes and ("can be read are used" in notes[-1] or "its header says 2.0 s" in notes[0])


def test_frames_that_change_size_keep_theirs(moving, write, tmp_path):
    joined = b""
    for width in (160, 320):
        part = write(io.BytesIO(), moving(10, width=width)[0], codec="libx264", form="mpegts", options={"bf": "0"})
        joined += part.getvalue()
    (tmp_path / "x.ts").write_bytes(joined)
    shots, _ = read(tmp_path / "x.ts")
    assert {shot.image.shape for shot in shots} == {(120, 160, 3), (120, 320, 3)} and len(shots) == 20


def test_without_timestamps_the_rate_is_the_clock(moving, write, tmp_path):
    path = write(tmp_path / "raw.h264", moving(10)[0], codec="libx264", form="h264", options={"bf": "0"})
    shots, notes = read(path)
    assert len(shots) == 10 and [shot.time_s for shot in shots] == pytest.approx([i / 25 for i in range(10)])
    assert "no timestamps" in notes[0] and "25 fps" in notes[0]


def test_folders_sequences_and_gifs(moving, write, tmp_path):
    images, _ = moving(12)
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"f{i}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (tmp_path / "f5.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("left alone")
    for what in (tmp_path, tmp_path / "f%d.png", tmp_path / "f*.png", str(tmp_path / "f%02d.png")):
        shots, notes = read(what, rate_hz=10)
        assert [shot.name for shot in shots] == [f"f{i}.png" for i in range(12) if i != 5]  # 2 before 10
        assert shots[-1].time_s == 1.1 and shots[-1].number == 10 and "f5.png" in notes[0] and "passed over" in notes[0]
        assert np.array_equal(shots[3].image, images[3])
    assert read(tmp_path)[0][0].time_s is None
    write(tmp_path / "a.mp4", images)
    assert len(read(tmp_path)[0]) == 23  # a video in a folder is read, too


def test_a_gif_has_the_times_of_its_frames(videos):
    shots, notes = read(videos / "classroom.gif")
    assert len(shots) == 45 and shots[1].time_s == pytest.approx(0.07) and not notes


@pytest.mark.parametrize("name", ["yes.mkv", "single_face.mp4", "no_face.mp4"])
def test_real_videos_are_read_without_a_word(name, videos):
    shots, notes = read(videos / name)
    assert len(shots) > 60 and not notes
    assert all(a.time_s < b.time_s for a, b in itertools.pairwise(shots))


def test_arrays_and_iterators(moving):
    images, _ = moving(3)
    assert len(read(np.stack(images))[0]) == 3 and len(read(images[0])[0]) == 1
    gray = read(np.stack(images)[..., 0], rate_hz=2)[0]
    assert [shot.time_s for shot in gray] == [0.0, 0.5, 1.0] and gray[0].image.shape == images[0].shape
    assert [shot.time_s for shot in read((i * 0.3, image) for i, image in enumerate(images))[0]] == [0.0, 0.3, 0.6]
    with pytest.raises(InputError, match=r"frame 1: found \(120, 160, 3\) float64"):
        read([images[0], images[0] / 255])
    with pytest.raises(InputError, match="frame 0: found str"):
        read(["a"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.mp4", "no such file or folder"),
        ("zero.mp4", "not readable as a video"),
        ("text.avi", "not readable as a video"),
        ("sound.mp4", "has no video, only sound"),
        ("none.avi", "has no frames that can be read"),
        ("text.jpg", "not a picture"),
        ("empty", "holds no picture"),
        ("broken", "none of 2 files can be read"),
        ("frame%03d.png", "no such file"),
    ],
)
def test_bad_sources_say_what_is_wrong(name, message, tmp_path, moving, write, decoding):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for i in range(2):
        (tmp_path / "broken" / f"{i}.jpg").write_bytes(b"x")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.avi").write_text("just text, no video" * 50)
    (tmp_path / "text.jpg").write_text("just text")
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        audio = out.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        out.mux(audio.encode(frame))
        out.mux(audio.encode())
    whole = write(io.BytesIO(), moving(3)[0], form="avi").getvalue()
    (tmp_path / "none.avi").write_bytes(whole[: whole.index(b"movi") + 4])
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)
