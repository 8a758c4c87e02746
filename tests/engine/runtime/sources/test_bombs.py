"""A small file that would unpack to gigabytes is refused before it is decoded, and what waits ahead is bounded in bytes."""

import io
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from affect.engine.runtime.picture_input import read_picture
from affect.engine.runtime.sources import stream as stream_module
from affect.engine.runtime.sources.stream import Source, Stream, VideoFrame
from affect.shards.errors import InputError
from affect.shards.sources import frame_limits

MOST_MB = 400  # of a subprocess that refuses a bomb; it imports NumPy, OpenCV and FFmpeg
READS = r"""
    import re, sys
    from pathlib import Path
    from affect.engine.runtime.picture_input import read_picture
    from affect.engine.runtime.sources.open_source import open_source
    from affect.engine.runtime.sources.stream import Stream
    from affect.shards.errors import InputError
    try:
        read_picture(sys.argv[2], 0) if sys.argv[1] == "picture" else list(Stream(open_source(sys.argv[2])))
    except InputError as error:
        print(error)
    print(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
"""


linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")


def read(how, path):
    """Return the message and the most MB that a process of its own held while it read."""
    command = [sys.executable, "-c", textwrap.dedent(READS), how, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *message, kilobytes = done.stdout.splitlines()
    return " ".join([*message, done.stderr]), int(kilobytes) / 1e3


def png_of(width, height):
    """A whole PNG of one bit a pixel, all black."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed, row = zlib.compressobj(1), bytes(1 + (width + 7) // 8)
    data = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def video_of(path, codec, pixels, width, height, frames=1):
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"preset": "ultrafast"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for number in range(frames):
            frame = av.VideoFrame(width, height, pixels)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@linux
@pytest.mark.parametrize("how", ["picture", "stream", "folder"])
def test_a_small_picture_of_gigabytes_is_refused(how, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(30_000, 30_000))  # OpenCV would read it: 2.7 GB
    assert path.stat().st_size < 1_000_000
    message, megabytes = read(how, tmp_path if how == "folder" else path)
    assert "bomb.png: 30000x30000 is 900 megapixels, more than 100: reduce it" in message
    assert megabytes < MOST_MB


def test_a_picture_whose_size_is_hidden_is_refused(tmp_path):
    image = np.zeros((24, 32, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    at = jpeg.index(b"\xff\xc0")
    hidden = jpeg[:at] + b"garbage" + jpeg[at : at + 5] + struct.pack(">HH", 40_000, 40_000) + jpeg[at + 9 :]
    (tmp_path / "a.jpg").write_bytes(hidden)
    with pytest.raises(InputError, match=r"a\.jpg: 40000x40000 is 1,600 megapixels"):
        read_picture(tmp_path / "a.jpg", 0)
    (tmp_path / "b.png").write_bytes(cv2.imencode(".pam", image)[1].tobytes())
    with pytest.raises(InputError, match=r"b\.png: not a picture.*expected JPEG, PNG"):
        read_picture(tmp_path / "b.png", 0)


@linux
@pytest.mark.parametrize(
    ("name", "codec", "pixels", "message"),
    [
        ("named.mkv", "libx264", "gray", "its frames are too large: 16000x8000 is 128 megapixels, more than 100"),
        ("hidden.avi", "png", "gray", "frames of more than 100 megapixels"),  # its size stands in its packets alone
    ],
)
def test_a_small_video_of_huge_frames_is_refused(name, codec, pixels, message, tmp_path):
    path = video_of(tmp_path / name, codec, pixels, 16_000, 8_000)
    assert path.stat().st_size < 1_000_000
    error, megabytes = read("stream", path)
    assert message in error and name in error
    assert megabytes < MOST_MB


def test_large_frames_are_decoded_by_few_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_limits, "DECODER_BYTES", 2 * 1.5 * 320 * 240)
    monkeypatch.setattr(frame_limits.os, "cpu_count", lambda: 8)
    for width, threads in ((320, 2), (1280, 1), (32, None)):
        data = io.BytesIO(video_of(tmp_path / "a.mp4", "libx264", "yuv420p", width, 240).read_bytes())
        with av.open(data) as container:
            before = container.streams.video[0].codec_context.thread_count
            frame_limits.limit(container.streams.video[0])
            assert container.streams.video[0].codec_context.thread_count == (threads or before)


@pytest.mark.parametrize(("share", "ahead"), [(0.3, 3), (0.5, 2), (2, 1), (0.01, 8)])
def test_what_waits_ahead_is_bounded_in_bytes(share, ahead, monkeypatch, decoding):
    image, made = np.zeros((20, 20, 3), np.uint8), []
    monkeypatch.setattr(stream_module, "AHEAD_BYTES", image.nbytes / share)

    def frames(channel):
        for number in range(30):
            made.append(number)
            yield VideoFrame("made", number, None, image)

    with Stream(Source("made", frames)) as stream:
        time.sleep(0.2)
        assert len(made) == ahead + 1  # one more is ready to be put
        assert [frame.number for frame in stream] == list(range(30))


def test_pictures_seen_together_are_bounded_in_bytes(bright, monkeypatch):
    engine, rows = bright(), []
    run = engine.run_graph
    monkeypatch.setattr(engine, "run_graph", lambda images, side=None: rows.append(len(images)) or run(images, side))
    pictures = [np.zeros((20, 20, 3), np.uint8)] * 7
    monkeypatch.setattr(stream_module, "AHEAD_BYTES", 2.5 * pictures[0].nbytes)
    assert len(engine.predict(pictures)) == 7 and rows == [3, 3, 1]
