"""A file loses no frame, a live source keeps the newest; whatever ends the reading ends the thread."""

import gc
import io
import itertools
import socketserver
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from affect.engine.runtime.sources.live import Retry, camera, network
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Source, Stream, VideoFrame
from affect.shards.errors import InputError

QUICK = Retry(first_s=0.02, most_s=0.1, patience_s=0.3)
IMAGE = np.zeros((12, 16, 3), np.uint8)


def counting(made, live=False, most=None, error=None):
    """A source of numbered frames that writes down how far it came."""

    def shots(channel):
        for number in itertools.count() if most is None else range(most):
            made.append(number)
            yield VideoFrame("count", number, number / 25, IMAGE)
            if live:
                time.sleep(0.002)
        if error is not None:
            raise error

    return Source("count", shots, live=live)


def test_a_file_loses_nothing_and_waits_for_its_reader(decoding):
    made = []
    with Stream(counting(made, most=100), ahead=4) as stream:
        for i, shot in enumerate(stream):
            time.sleep(0.001)
            assert shot.number == i and len(made) <= i + 6
    assert i == 99 and stream.dropped == 0


def test_a_live_source_keeps_the_newest_and_counts_the_rest(decoding):
    made = []
    with Stream(counting(made, live=True)) as stream:
        next(stream)
        time.sleep(0.1)
        second = next(stream).number
        behind = len(made) - second
        third = next(stream).number
    assert second > 5 and behind <= 3 and stream.dropped >= second - 2 and third > second


def test_an_error_comes_after_the_frames_before_it(decoding):
    stream = Stream(counting([], most=3, error=InputError("gone")))
    assert [next(stream).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="gone"):
        next(stream)
    assert next(stream, None) is None


def frames(path):
    with Stream(open_source(path)) as stream:
        yield from stream


@pytest.mark.parametrize("way", ["close", "block", "error", "interrupt", "generator", "forgotten", "twice"])
def test_the_thread_ends_however_the_reading_does(way, decoding, moving, write, tmp_path):
    path = write(tmp_path / "x.mp4", moving(60)[0])
    if way == "generator":
        reading = frames(path)
        next(reading)
        assert decoding()
        reading.close()
        return
    stream = Stream(open_source(path))
    next(stream)
    assert decoding()
    if way in ("close", "twice"):
        stream.close()
        if way == "twice":
            stream.close()
        assert next(stream, None) is None
    elif way == "block":
        with stream:
            next(stream)
    elif way == "forgotten":
        del stream
        gc.collect()
    else:
        kind = ValueError if way == "error" else KeyboardInterrupt
        with pytest.raises(kind), stream:
            raise kind


CTRL_C = """
import signal, threading
from affect.engine.runtime.sources.stream import Source, Stream
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
silent = Source("silent", lambda channel: iter(lambda: channel.wait(60), True), live=True)
main = threading.main_thread().ident
threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
try:
    with Stream(silent) as stream:
        next(stream)
except KeyboardInterrupt:
    raise SystemExit(any(thread.name.startswith("decode ") for thread in threading.enumerate()))
raise SystemExit("not interrupted")
"""


def test_ctrl_c_interrupts_a_reader_that_waits():
    """In a process of its own: what else this one has loaded may have its own mind about signals."""
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


class Capture:
    """A camera of a few frames; `plugs`: frames of each time that it is opened, 0: cannot be opened."""

    def __init__(self, plugs):
        self.left = plugs.pop(0) if plugs else 0
        self.opened = self.left > 0

    def isOpened(self):
        return self.opened

    def set(self, *_):
        return True

    def read(self):
        self.left -= 1
        time.sleep(0.002)
        return (True, np.full((12, 16, 3), (255, 0, 0), np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        self.opened = False


def test_an_unplugged_camera_is_looked_for_and_then_given_up(decoding):
    plugs = [5, 0, 3]
    with Stream(camera(0, QUICK, lambda number: Capture(plugs))) as stream:
        shots = list(stream)
    assert stream.dropped + len(shots) == 8 and shots[-1].number == 7
    assert shots[-1].image[0, 0].tolist() == [0, 0, 255]  # RGB
    times = [shot.time_s for shot in shots]
    assert times == sorted(times) and times[-1] > 0.06  # two waits, the second twice as long
    assert "lost (unplugged" in stream.notes[0] and "trying again in 0.02 s" in stream.notes[0]
    assert "trying again in 0.04 s" in stream.notes[1] and "gone for good" in stream.notes[-1]


def test_a_camera_that_is_not_there_is_an_error_at_once(decoding):
    with pytest.raises(InputError, match="camera 7: gives no frames"), Stream(camera(7, QUICK, lambda _: Capture([]))) as stream:
        next(stream)


@pytest.fixture
def served(moving, write):
    """The address of a server that sends a short MPEG-TS, and then hangs up; `connections` counts."""
    data = write(io.BytesIO(), moving(30)[0], codec="libx264", form="mpegts", options={"bf": "0"}).getvalue()

    class Send(socketserver.BaseRequestHandler):
        def handle(self):
            self.server.connections += 1
            self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Send) as server:
        server.connections = 0
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server, f"tcp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_network_stream_comes_back_after_it_was_lost(served, decoding):
    server, url = served
    with Stream(network(url, QUICK)) as stream:
        shots = []
        for shot in stream:
            shots.append(shot)
            if server.connections >= 3:
                break
    numbers, times = [shot.number for shot in shots], [shot.time_s for shot in shots]
    assert numbers == sorted(numbers) and numbers[-1] >= 40 and times == sorted(times)
    assert "lost (it ended)" in stream.notes[0]


def test_a_network_stream_that_is_gone_is_given_up(served, decoding):
    server, url = served
    with Stream(network(url, QUICK)) as stream:
        next(stream)
        server.shutdown()
        server.server_close()
        assert all(shot.image.shape == (120, 160, 3) for shot in stream)
    assert "gone for good" in stream.notes[-1]


def test_an_address_where_nothing_is_is_an_error(decoding):
    with (
        pytest.raises(InputError, match=r"rtsp://127.0.0.1:9/x: gives no frames"),
        Stream(open_source("rtsp://127.0.0.1:9/x")) as s,
    ):
        next(s)
