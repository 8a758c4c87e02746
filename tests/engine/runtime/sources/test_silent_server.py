"""A server that falls silent is given up, with one message, whatever the protocol."""

import io
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from affect.engine.runtime import input_warnings
from affect.engine.runtime.sources import container, live
from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Stream
from affect.shards.errors import InputError

LIMIT_S, WAIT_S = 0.5, 10.0  # the time limit of these tests; by when a source that has none would hang


@pytest.fixture
def server(monkeypatch):
    """Accepts, sends `first`, and then says nothing."""
    monkeypatch.setattr(container, "SILENT_S", LIMIT_S)
    monkeypatch.setattr(live, "TIMEOUT_S", LIMIT_S)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving, open_ones = SimpleNamespace(first=b"", at=f"127.0.0.1:{listening.getsockname()[1]}"), []

        def accept():
            try:
                while True:
                    open_ones.append(listening.accept()[0])
                    open_ones[-1].sendall(serving.first)
            except OSError:  # closed
                pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield serving
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in open_ones:
            connection.close()


def read(url):
    """Return the frames and notes of a source, in a thread of its own, so that one that hangs fails."""
    results = []

    def run():
        try:
            with Stream(open_source(url)) as stream:
                results.extend((list(stream), stream.notes))
        except InputError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert results, f"{url} hangs"
    return results


@pytest.mark.parametrize(
    "form", ["http://{}/a.mp4", "http://{}/a.mkv?x=1", "http://{}/live", "tcp://{}", "udp://{}", "rtmp://{}/a"]
)
def test_a_server_that_says_nothing_is_given_up(form, server):
    (error,) = read(form.format(server.at))
    assert "the server was silent for 0.5 s" in str(error) and str(error).startswith(form.format(server.at))


@pytest.mark.parametrize("form", ["https://{}/a.mp4", "https://{}/live", "rtsp://{}/a"])
def test_a_handshake_without_an_answer_is_given_up(form, server):
    (error,) = read(form.format(server.at))  # FFmpeg has other words for it
    assert str(error).startswith(form.format(server.at))


def test_a_server_that_stops_in_the_middle_gives_what_it_sent(server, moving, write):
    data = write(io.BytesIO(), moving(60)[0], codec="libx264", form="mpegts", options={"bf": "0"}).getvalue()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nContent-Length: {len(data)}\r\n\r\n"
    server.first = head.encode() + data[: len(data) // 2]
    frames, notes = read(f"http://{server.at}/a.ts")
    assert 10 < len(frames) < 60 and "the server was silent for 0.5 s" in notes[-1] and "are used" in notes[-1]


def test_the_rate_of_a_silent_server_is_unknown(server):
    began = time.monotonic()
    assert input_warnings._rate_hz(f"http://{server.at}/a.mp4") is None
    assert time.monotonic() - began < WAIT_S
