"""The latency bench times only providers that agree, and names what each is compared with."""

import json
import shutil

import av
import numpy as np
import pytest

from affect.bench import latency, record, streaming
from affect.bench.latency import OURS, Provider, Ready, bench_graph, ready
from affect.bench.streaming import bench_clips, bench_memory, bench_overhead, bench_video
from affect.bench.timing import Timing
from affect.engine.cli.main import main
from affect.engine.runtime.backends import auto as choose
from affect.engine.runtime.clip_stream import Window
from affect.shards.errors import InputError

pytestmark = pytest.mark.slow

SHORT = Timing(seconds=0.005, rounds=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choose, "SECONDS", 0.01)
    monkeypatch.setattr(latency, "MATRIX", {"cpu": 64})


@pytest.fixture(scope="module")
def run(package):
    return package.parent


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "x.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for i in range(8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * i, np.uint8), format="rgb24")))
        out.mux(stream.encode())
    return path


def count(advanced):
    return lambda number: advanced.append(number)


def test_a_call_is_timed_beside_the_libraries(run):
    built, advanced = ready(run, "cpu", compile=False), []
    lines = bench_graph(run, "cpu", 2, SHORT, count(advanced), built)
    assert {"ONNX Runtime", "torch eager", OURS} <= set(built.providers) and len(advanced) == 3 * len(lines)
    assert any(of["ratio_to_best_peer"] == 1 for of in lines if built.providers[of["provider"]].peer)
    for of in lines:
        assert of["op"] == "latency.graph" and of["ms"]["p20"] <= of["ms"]["p50"] <= of["ms_p95"] <= of["ms_p99"]
        assert of["gflop_per_s"] > 0 and of["settings"]["batch"] == 2 and {"torch", "onnxruntime"} <= set(of["versions"])


def test_a_provider_that_disagrees_is_not_timed():
    def constant(value, precision="float32"):
        return lambda: Provider(lambda images: np.full((len(images), 2), value), precision, peer=True)

    like = np.zeros((2, 4, 4, 3), np.uint8)
    built = latency._agreeing({"ONNX Runtime": constant(0.5), "b": constant(0.55, "bf16")}, like)
    assert built.off["b"] == pytest.approx(0.05)
    with pytest.raises(InputError, match="b predicts something else: 0.050 off"):
        latency._agreeing({"ONNX Runtime": constant(0.5), "b": constant(0.55)}, like)

    def fails():
        raise ImportError("no such library")

    built = latency._agreeing({"ONNX Runtime": constant(0.5), "c": fails}, like)
    assert built.skipped == {"c": "ImportError: no such library"} and isinstance(built, Ready)


def test_a_new_frame_is_compared_with_the_least_and_with_the_window(monkeypatch, tmp_path):
    monkeypatch.setattr(streaming, "SIZE", 32)
    lines = bench_clips(4, "small_cnn", SHORT, tmp_path, lambda number: None)
    assert [of["provider"] for of in lines] == ["Engine", "one encoding and the head", "the window anew"]
    assert lines[1]["ratio_to_best_peer"] == 1 and all(of["settings"]["frames"] == 4 for of in lines)


def test_a_stream_that_disagrees_is_not_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(streaming, "SIZE", 32)
    right = streaming.ClipStream._window

    def wrong(self):
        window = right(self)
        return window and Window(window.start_s, window.end_s, {name: of + 0.01 for name, of in window.values.items()})

    monkeypatch.setattr(streaming.ClipStream, "_window", wrong)
    with pytest.raises(InputError, match="a stream predicts something else"):
        bench_clips(4, "small_cnn", SHORT, tmp_path, lambda number: None)


def test_a_video_end_to_end(run, video, tmp_path):
    lines = bench_video(run, video, "full", SHORT, tmp_path, lambda number: None)
    assert len(lines) == 3 and all(of["frames_per_s"]["p50"] > 0 for of in lines) and lines[-1]["ratio_to_best_peer"] == 1
    (line,) = bench_overhead(run, video, "full", SHORT, lambda number: None)
    assert 0 < line["ms"]["p50"] < 100 and {"detect", "crop", "infer", "smooth"} <= set(line["stages_p50_ms"])
    with pytest.raises(InputError, match="no face found by human_face"):
        bench_video(run, video, "human_face", SHORT, tmp_path, lambda number: None)


def test_memory_over_a_long_source(run, monkeypatch, tmp_path):
    monkeypatch.setattr(streaming, "WARM", 20)
    monkeypatch.setattr(streaming, "EVERY", 10)
    (line,) = bench_memory(run, 60, tmp_path, lambda number: None)
    assert line["mb"]["p50"] > 50 and line["growth_mb"] <= line["spread_mb"]


def test_the_command(run, monkeypatch, capsys, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    options = ["--seconds", "0.005", "--rounds", "1", "--no-compile", "--device", "cpu", "--part", "graph", "--json"]
    monkeypatch.setattr(
        "sys.argv", ["affect", "bench", "latency", "--package", str(tmp_path / "run"), "--results", str(tmp_path), *options]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "latency.graph: ms" in out
    lines = json.loads(out.splitlines()[-1])["measurements"]
    stored = (tmp_path / f"{record.machine_name()}.jsonl").read_text()
    assert len(stored.splitlines()) == len(lines) and str(tmp_path) not in stored
