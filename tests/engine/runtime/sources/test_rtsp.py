"""RTSP, against a server of forty lines: an MPEG-TS in RTP packets (payload type 33), interleaved over TCP."""

import io
import socketserver
import struct
import threading

import pytest

from affect.engine.runtime.sources.live import Retry, network
from affect.engine.runtime.sources.stream import Stream

RTP_BYTES = 7 * 188
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"


class Camera(socketserver.StreamRequestHandler):
    """Plays what it has once to each client, and then hangs up."""

    def handle(self):
        while line := self.rfile.readline().decode().split():
            headers = {}
            while (header := self.rfile.readline().decode().strip()) != "":
                key, _, value = header.partition(": ")
                headers[key.lower()] = value
            self.answer(line[0], headers)
            if line[0] == "PLAY":
                self.play()
                return

    def answer(self, method, headers):
        more, body = "", SDP if method == "DESCRIBE" else ""
        if method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif body:
            more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{more}\r\n{body}".encode())

    def play(self):
        self.server.plays += 1
        data = self.server.data
        for number, start in enumerate(range(0, len(data), RTP_BYTES)):
            packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, number * 3600, 1) + data[start : start + RTP_BYTES]
            self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


@pytest.fixture
def rtsp(moving, write):
    images = moving(60)[0]
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Camera) as server:
        server.data = write(io.BytesIO(), images, codec="libx264", form="mpegts", options={"bf": "0"}).getvalue()
        server.plays, server.daemon_threads = 0, True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server, f"rtsp://127.0.0.1:{server.server_address[1]}/x"
        server.shutdown()
        thread.join()


def test_rtsp_plays_and_comes_back(rtsp, decoding):
    server, url = rtsp
    with Stream(network(url, Retry(0.02, 0.1, 1.0))) as stream:
        shots = []
        for shot in stream:
            shots.append(shot)
            if server.plays >= 2 and len(shots) > 2:
                break
    times = [shot.time_s for shot in shots]
    assert shots[0].image.shape == (120, 160, 3) and times == sorted(times)
    assert "lost (" in stream.notes[0] and "trying again" in stream.notes[0]
