"""Frames of recordings: the right ones, by their own times; what is none is rejected with its reason."""

import struct
import wave
from collections import Counter
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from affect.shards.clip import encode
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.schema import ClipFacts
from affect.shards.sources.frames import FrameFolder, chosen, pick
from affect.shards.sources.video import VideoFile

ALL = ClipFacts("all")


def level(t):
    return (20 + 25 * t) % 256


def write_video(path, num_frames=8, codec="libx264", times_ms=None, size=(64, 48), pix_fmt="yuv420p", options=None, form=None):
    """Frame t is of one gray level, 20 + 25 t, with a black left upper corner; 10 frames a second, or at `times_ms`."""
    width, height = size
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if times_ms:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        container.start_encoding()
        for t in range(num_frames):
            picture = np.full((height, width, 3), level(t), np.uint8)
            picture[:16, :16] = 0
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[t], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_frames(folder, names):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((20, 30), level(i), np.uint8))
    return folder


def shown(clip):
    """The number of each frame, by its gray level."""
    return [round((int(decode(data)[-4, -4, 0]) - 20) / 25) for data in clip.data]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mp4", "libx264", {"bf": "3"}), ("a.mkv", "libx264", {"bf": "3"}), ("a.avi", "mpeg4", {}), ("a.webm", "libvpx-vp9", {})],
)
def test_all_frames_of_each_container_in_the_order_of_presentation(name, codec, options, tmp_path):
    clip = encode(VideoFile(write_video(tmp_path / name, codec=codec, options=options), ALL))
    assert shown(clip) == list(range(8))
    assert np.allclose(clip.times_s, np.arange(8) / 10, atol=0.002)
    assert clip.meta == {"repeated": 0, "gaps": 0, "time_from": "timestamps"}


@pytest.mark.parametrize(
    ("facts", "expected", "repeated"),
    [
        (chosen(4), [0, 2, 5, 7], 0),
        (chosen(1), [3], 0),
        (chosen(11), [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7], 3),
        (chosen(rate_hz=5), [0, 2, 4, 6], 0),
        (chosen(rate_hz=4), [0, 2, 5], 0),  # at 0, .25 and .5 s; of two equally near ones the earlier
        (chosen(rate_hz=20, end_s=0.2), [0, 0, 1, 1], 2),
        (chosen(all_frames=True, start_s=0.2, end_s=0.5), [2, 3, 4], 0),
        (chosen(3, start_s=0.2, end_s=0.7), [2, 4, 6], 0),
    ],
)
def test_the_choice_of_frames(facts, expected, repeated, tmp_path):
    clip = encode(VideoFile(write_video(tmp_path / "a.mp4"), facts))
    assert (shown(clip), clip.meta["repeated"]) == (expected, repeated)
    assert np.allclose(clip.times_s, np.array(expected) / 10, atol=1e-6)


def test_a_variable_frame_rate_is_read_by_its_times(tmp_path):
    """Two fast seconds, then a long pause: by number, every second frame would be taken; by time, those on the grid."""
    times = [0, 40, 80, 120, 1000, 1040, 2000, 2960]
    path = write_video(tmp_path / "a.mkv", times_ms=times)
    clip = encode(VideoFile(path, chosen(rate_hz=1)))
    assert shown(clip) == [0, 4, 6, 7][:3] and np.allclose(clip.times_s, [0, 1, 2])
    assert np.allclose(encode(VideoFile(path, ALL)).times_s, np.array(times) / 1000)
    assert shown(encode(VideoFile(path, chosen(rate_hz=4, start_s=1, end_s=1.6)))) == [4, 5, 5]  # shown until the next


def test_gray_without_loss_stays_gray(tmp_path):
    path = write_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="gray")
    clip = encode(VideoFile(path, ALL))
    assert [int(decode(data)[-1, -1, 0]) for data in clip.data] == [level(t) for t in range(8)]
    assert cv2.imdecode(np.frombuffer(clip.data[0], np.uint8), cv2.IMREAD_UNCHANGED).ndim == 2


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_a_rotation_in_the_metadata_is_applied(degrees, corner, tmp_path):
    """The black corner, left above as stored, goes clockwise with the display matrix."""
    path = write_video(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix stands behind forty bytes
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    clip = encode(VideoFile(path, chosen(1)))
    assert (clip.width, clip.height) == ((64, 48) if degrees == 180 else (48, 64))
    rgb = decode(clip.data[0])
    assert rgb[corner][0] < 20 and rgb[len(rgb) // 2, rgb.shape[1] // 2, 0] > 60


def test_without_timestamps_the_frame_rate_counts_and_the_row_says_so(tmp_path):
    clip = encode(VideoFile(write_video(tmp_path / "a.h264", form="h264", options={"bf": "2"}), ALL))
    assert shown(clip) == list(range(8)) and clip.meta["time_from"] == "rate" and clip.times_s[0] == 0


def test_frames_that_the_packets_do_not_tell_are_found_by_decoding(tmp_path, monkeypatch):
    """Hidden frames and the like: the plan by packets is one too long."""
    from affect.shards.sources import video

    packets = video._of_packets

    def planned(path):
        stamps = packets(path)
        return video.Stamps([*stamps.pts, stamps.pts[-1] + 1], stamps.unit, stamps.rate)

    monkeypatch.setattr(video, "_of_packets", planned)
    clip = encode(VideoFile(write_video(tmp_path / "a.mp4"), chosen(4)))
    assert shown(clip) == [0, 2, 5, 7]


def broken(path):
    """(file, reason) of the worst inputs."""
    write_video(path / "whole.mp4")
    whole = (path / "whole.mp4").read_bytes()
    (path / "empty.mp4").touch()
    (path / "text.mp4").write_text("not a video")
    (path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_video(path / "none.mp4", 0)
    with wave.open(str(path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    return {
        "missing.mp4": "missing file", "empty.mp4": "not readable as a video", "text.mp4": "not readable as a video",
        "cut.mp4": "not readable as a video", "none.mp4": "has no video",
        "sound.wav": "has no video, only sound",
    }  # fmt: skip


def test_what_is_no_video_is_rejected_with_its_reason(tmp_path):
    for name, reason in broken(tmp_path).items():
        with pytest.raises(BadImage, match=reason):
            encode(VideoFile(tmp_path / name, ALL))


def test_a_video_that_ends_early_is_cut_short(tmp_path):
    """Its header in front, as in streams: every frame is listed, half of them are there."""
    path = write_video(tmp_path / "a.mp4", 60, options={"g": "1", "crf": "0"})
    data = path.read_bytes()
    moov = data.index(b"moov") - 4
    with av.open(str(path)) as old, av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    data = (tmp_path / "front.mp4").read_bytes()
    assert data.index(b"moov") - 4 < moov
    (tmp_path / "half.mp4").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(BadImage, match="cut short|damaged|not readable"):
        encode(VideoFile(tmp_path / "half.mp4", ALL))


def test_a_window_without_frames_and_too_many_frames_are_rejected(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(BadImage, match=r"no frames from 3 s to 5 s; it lasts 0\.7 s"):
        encode(VideoFile(path, chosen(4, start_s=3, end_s=5)))
    with pytest.raises(BadImage, match=r"no frames from 3 s on; it lasts 0\.7 s"):
        encode(VideoFile(path, chosen(4, start_s=3)))
    with pytest.raises(BadImage, match=r"more than 10,000 a clip"):
        encode(VideoFile(path, chosen(rate_hz=1e6)))
    with pytest.raises(BadImage, match=r"20,000 frames, more than 10,000"):
        pick(np.arange(20_000) / 30, ALL)


@pytest.mark.parametrize("arguments", [{}, {"num_frames": 3, "rate_hz": 2}, {"num_frames": 3, "start_s": 2, "end_s": 2}])
def test_a_choice_that_is_none_is_one_message(arguments):
    with pytest.raises(InputError):
        chosen(**arguments)


def test_frames_of_a_folder_go_by_their_numbers(tmp_path):
    folder = write_frames(tmp_path / "a", ["frame1.png", "frame2.png", "frame10.png", "frame11.png"])
    (folder / "notes.txt").write_text("no picture")
    clip = encode(FrameFolder(folder, ALL))
    assert shown(clip) == [0, 1, 2, 3] and clip.times_s == (0, 1, 9, 10)
    assert clip.meta == {"repeated": 0, "gaps": 7, "time_from": "numbers"}
    timed = encode(FrameFolder(folder, chosen(rate_hz=2), fps=2))
    assert timed.times_s == (0, 0.5, 0.5, 0.5, 0.5, 0.5, 4.5, 4.5, 4.5, 4.5, 5)
    assert timed.meta == {"repeated": 7, "gaps": 7, "time_from": "fps"}


def test_every_fifth_frame_has_no_gaps(tmp_path):
    clip = encode(FrameFolder(write_frames(tmp_path / "a", ["7_f0005.png", "7_f0010.png", "7_f0015.png"]), ALL, fps=4))
    assert clip.times_s == (0, 0.25, 0.5) and clip.meta["gaps"] == 0


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["f1.png", "f01.png"], r"frame number 1 stands twice: f01\.png and f1\.png"),
        (["f1.png", "cover.png"], r"cover\.png has no frame number"),
        ([], "no pictures in the folder"),
    ],
)
def test_what_is_no_folder_of_frames_is_rejected_with_its_reason(names, reason, tmp_path):
    with pytest.raises(BadImage, match=reason):
        encode(FrameFolder(write_frames(tmp_path / "a", names), ALL))
    with pytest.raises(BadImage, match="missing folder"):
        encode(FrameFolder(tmp_path / "b", ALL))
    with pytest.raises(BadImage, match="--fps"):
        encode(FrameFolder(write_frames(tmp_path / "c", ["f1.png"]), chosen(rate_hz=2)))


@pytest.mark.slow
def test_real_videos(real):
    """Every frame once, in order, with times that rise; the frames are those that decoding from front to back gives."""
    for path in sorted((real / "videos").glob("*.m*")):
        clip = encode(VideoFile(path, chosen(5)))
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        numbers = pick(np.array([float(f.time - frames[0].time) for f in frames]), chosen(5))[0]
        assert [bytes(decode(data)) for data in clip.data] == [bytes(frames[n].to_ndarray(format="rgb24")) for n in numbers]
        assert Counter(np.sign(np.diff(clip.times_s))) == {1: 4}
