"""The kernel bench times losses that compute the same, counts their bytes, and says what it could not measure."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from affect.bench import kernels, losses
from affect.bench.kernel_tables import tables
from affect.bench.kernels import COMPILED, EAGER, NO_GPU, TRITON, bench_kernels, ready
from affect.bench.losses import CASES, OPS, Case, cases
from affect.bench.timing import Timing, empty_kernel
from affect.shards.errors import InputError

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = {
    "arcface_head": {"B": 4, "C": 3, "D": 8}, "arcface_ce": {"B": 4, "C": 3}, "dkd": {"B": 4, "C": 3},
    "proto_kd": {"B": 4, "D": 8, "K": 3},
}  # fmt: skip
TIMING = Timing(seconds=0.001, rounds=2)
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the bench itself compares there")


def no_advance(count):
    """Nothing is shown."""


@pytest.fixture(autouse=True)
def small_copy(monkeypatch):
    monkeypatch.setattr("affect.bench.timing.COPIED", {"cpu": 2**12})


@pytest.fixture
def uncompiled(monkeypatch):
    """As with torch.compile, without the minute that it takes."""
    monkeypatch.setattr(torch, "compile", lambda fn, **settings: fn)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_eager_and_triton_compute_the_same(op, dtype, monkeypatch):
    if dtype == torch.bfloat16:
        monkeypatch.setitem(losses.ROUNDING, dtype, 2**-7)  # the interpreter cuts off instead of rounding
    case = Case(op, TINY[op], dtype)
    built = ready(case, [EAGER, TRITON], case.operands(CPU), CPU)
    assert list(built.steps) == [(EAGER, "eager"), (TRITON, "eager")]
    assert all(0 <= off < 1e-2 for off in built.off.values())


@pytest.mark.parametrize(
    ("factor", "part"), [(1.001, "its loss is 1.0e-03 of the largest value off"), (float("nan"), "its loss is nan")]
)
def test_nothing_is_timed_where_a_loss_differs(factor, part, monkeypatch, uncompiled):
    right = losses.kernels.arcface_ce
    monkeypatch.setattr(
        losses.kernels, "arcface_ce",
        lambda cos, target, **options: right(cos, target, **options) * (1 if cos.dtype == torch.float64 else factor),
    )  # fmt: skip
    monkeypatch.setattr(kernels, "rounds", None)
    wrong, good = Case("arcface_ce", TINY["arcface_ce"], torch.float32), Case("dkd", {"B": 2, "C": 2}, torch.float32)
    report = bench_kernels([wrong], CPU, TIMING, no_advance)
    assert [line["op"] for line in report.lines] == ["kernels.copy"]
    with pytest.raises(InputError) as error:
        report.check()
    assert f"arcface_ce B 4 C 3 float32: eager computes something else: {part}" in str(error.value)
    monkeypatch.undo()
    report = bench_kernels([wrong, good], CPU, TIMING, no_advance, compile=False)
    assert not report.wrong and len(report.lines) == 3


def test_nothing_is_timed_where_a_gradient_differs():
    case = Case("arcface_head", TINY["arcface_head"], torch.bfloat16)
    loss, dx, dweight = [value.double() for value in case.step(case.operands(CPU))()]
    assert losses.compare(case, "triton", [loss, dx, dweight * (1 + 2**-9)], [loss, dx, dweight]) == pytest.approx(2**-9)
    with pytest.raises(InputError, match="B 4 C 3 D 8 bfloat16: triton computes something else: its dweight is 1.0e-01 of the"):
        losses.compare(case, "triton", [loss, dx, 1.1 * dweight], [loss, dx, dweight])


def test_a_replay_is_compared_too(monkeypatch):
    """One that leaves a result as it was is found."""
    monkeypatch.setattr(kernels, "peak_mib", lambda step: 1.0)

    def captured(step, writes):
        results = list(step())

        def replay():
            for value, new in zip(results[:writes], step(), strict=False):
                value.copy_(new)
            return results

        return replay, results

    case = Case("arcface_ce", TINY["arcface_ce"], torch.float32)
    monkeypatch.setattr(kernels, "captured", lambda step: captured(step, 2))
    built = ready(case, [EAGER], case.operands(CPU), GPU)
    assert list(built.steps) == [(EAGER, "eager"), (EAGER, "graph")] and built.peak_mib == {EAGER: 1.0}
    monkeypatch.setattr(kernels, "captured", lambda step: captured(step, 1))
    with pytest.raises(InputError, match="eager, graph computes something else: its dcos is nan"):
        ready(case, [EAGER], case.operands(CPU), GPU)

    def refused(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(kernels, "captured", refused)
    built = ready(case, [EAGER], case.operands(CPU), GPU)
    name = "arcface_ce B 4 C 3 float32: eager, graph"
    assert built.skipped == {name: "RuntimeError: operation not permitted when stream is capturing"}


@pytest.mark.slow
@interpreted
def test_a_run_with_all_that_a_gpu_adds(monkeypatch):
    """Triton in its interpreter; a replay is the step itself."""
    monkeypatch.setattr(kernels, "peak_mib", lambda step: 1.5)
    monkeypatch.setattr(kernels, "captured", lambda step: (step, list(step())))
    monkeypatch.setattr(kernels, "providers", lambda device, compile: ([EAGER, TRITON], {}))
    monkeypatch.setattr(kernels, "ready", lambda case, chosen, operands, device: ready(case, chosen, operands, GPU))
    report = bench_kernels([Case("dkd", TINY["dkd"], torch.float32)], CPU, TIMING, no_advance)
    report.check()
    both = ["eager", "graph"]
    assert [(line["op"], line["provider"], line["settings"]["mode"]) for line in report.lines] == [
        ("kernels.copy", "torch", "eager"),
        *(("kernels.empty_kernel", "triton", mode) for mode in both),
        *(("kernels.dkd", provider, mode) for provider in ("eager", "triton") for mode in both),
    ]
    assert [line.get("peak_mib") for line in report.lines] == [None] * 3 + [1.5] * 4
    (_, _, floors), (_, headers, rows) = tables(report.lines)
    assert [row[0] for row in floors] == ["copy", "empty_kernel", "empty_kernel, graph"]
    names = ["4x3 fp32", "  eager", "  eager, graph", "  triton", "  triton, graph"]
    assert [row[0] for row in rows] == names and all(len(row) == len(headers) == 8 for row in rows)


@pytest.mark.parametrize(
    ("case", "num_bytes"),
    [
        (Case("arcface_ce", {"B": 5, "C": 3}, torch.float32), 5 * 3 * 4 + 5 * 8 + 4 + 5 * 3 * 4),  # cos, target, margin, dcos
        (Case("dkd", {"B": 5, "C": 3}, torch.bfloat16), 3 * (5 * 3 * 2) + 5 * 8),  # student, teacher, dstudent; target
        (Case("arcface_head", {"B": 5, "C": 3, "D": 7}, torch.bfloat16), 2 * (5 + 3) * 7 * 2 + 5 * 8 + 4),
        (Case("proto_kd", {"B": 5, "D": 7, "K": 3}, torch.float32), 3 * (5 * 7 * 4) + 3 * 7 * 4),
    ],
    ids=lambda value: value.op if isinstance(value, Case) else "",
)
def test_bytes_are_those_that_have_to_move(case, num_bytes):
    assert case.traffic(case.operands(CPU)) == num_bytes
    assert kernels.gb_per_s(2 * 10**9, [1000.0, 500.0, 250.0]) == 4.0


@pytest.mark.slow
def test_a_line_says_what_was_measured_on_what(uncompiled, tmp_path):
    chosen = [Case(op, sizes, torch.float32) for op, sizes in TINY.items()]
    report = bench_kernels(chosen, CPU, TIMING, no_advance, folder=tmp_path)
    report.check()
    assert [json.loads(text) for text in next(tmp_path.glob("*.jsonl")).read_text().splitlines()] == report.lines
    assert report.not_measured == {"triton": NO_GPU}
    copied, *lines = report.lines
    assert copied["op"] == "kernels.copy" and copied["gb_per_s"] > 0
    assert [(line["op"], line["provider"]) for line in lines] == [
        (f"kernels.{op}", p) for op in OPS for p in ("eager", "compiled")
    ]
    for line, case in zip(lines[::2], chosen, strict=True):
        assert line["settings"] == {"mode": "eager", "dtype": "float32", "shape": case.sizes, "seconds": 0.001, "rounds": 2}
    for line in lines:
        assert line.keys() >= {
            "gb_per_s",
            "share_of_copy",
            "ratio_to_best_peer",
            "ratio_to_eager",
            "off",
            "commit",
            "date",
            "cpu",
        }
        assert 0 < line["ms"]["p20"] <= line["ms"]["p50"] <= line["ms"]["p80"]
        assert line["versions"].keys() == {"torch", "triton"}
    assert all(1.0 in [line["ratio_to_best_peer"] for line in lines if line["op"] == f"kernels.{op}"] for op in OPS)
    assert all(line["ratio_to_eager"] == 1 for line in lines if line["provider"] == "eager")
    for _, headers, rows in tables(report.lines):
        assert len(rows) and all(len(row) == len(headers) for row in rows)


def test_the_cases_are_those_of_the_issue():
    sizes = {op: {tuple(case.sizes.values()) for case in CASES if case.op == op} for op in OPS}
    assert sizes["arcface_head"] == {(B, C, 512) for B in (64, 256, 1024, 4096) for C in (7, 14)}
    assert sizes["arcface_ce"] == {(B, C) for B in (256, 65_536) for C in (8, 1000)}
    assert sizes["dkd"] == {(256, 7), (65_536, 1000)} and sizes["proto_kd"] == {(256, 512, 25), (4096, 512, 25)}
    assert cases(OPS, GPU) == CASES and {case.sizes["B"] for case in cases(OPS, CPU)} == {64, 256}


def test_what_cannot_be_measured_has_its_reason(monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("no C++ compiler found\nset CXX")

    monkeypatch.setattr(torch, "compile", lambda fn, **settings: broken)
    case = Case("arcface_ce", TINY["arcface_ce"], torch.float32)
    report = bench_kernels([case], CPU, TIMING, no_advance)
    reason = "RuntimeError: no C++ compiler found"
    assert report.not_measured == {"triton": NO_GPU, "arcface_ce B 4 C 3 float32: compiled": reason}
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert kernels.providers(GPU)[0] == [EAGER, COMPILED]
    monkeypatch.delenv("TRITON_INTERPRET")
    assert kernels.providers(GPU)[0] == [EAGER, COMPILED, TRITON]


def test_the_choice_of_kernels_is_put_back(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    with EAGER.chosen():
        assert os.environ["KERNELS"] == "reference"
    assert os.environ["KERNELS"] == "triton"
    monkeypatch.delenv("KERNELS")
    with EAGER.chosen():
        pass
    assert "KERNELS" not in os.environ


@interpreted
def test_a_kernel_that_does_nothing_can_be_launched():
    assert empty_kernel(CPU)() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GPU-a, 580.1, 700.00\n", {"driver": "580.1", "power_limit_w": 700.0}),
        ("GPU-a, 580.1, 700.00\nGPU-b, 580.1, 350.00\n", {"driver": "580.1", "power_limit_w": 350.0}),
        ("GPU-b, 580.1, [N/A]\n", {"driver": "580.1"}),
        ("GPU-a, 580.1, 700.00\nGPU-c, 580.1, 350.00\n", {}),
        ("", {}),
    ],
)
def test_a_line_names_the_driver_and_the_power_limit(text, found):
    assert kernels.record.driver_of(text, "b") == found


BARE = """
import sys
missing = {"pydantic", "nvidia", "webdataset", "av", "typer", "rich", "yaml", "pyarrow", "pandas", "cv2", "timm"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from affect.bench import kernels, losses, timing
timing.COPIED["cpu"] = 2**12
losses.CASES[:] = [losses.Case("arcface_ce", {"B": 4, "C": 3}, losses.FLOAT)]
kernels.main(["--op", "arcface_ce", "--no-compile", "--seconds", "0.001", "--rounds", "1", "--json"])
"""


@pytest.mark.slow
def test_it_runs_where_only_torch_is_installed():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", BARE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert [line["provider"] for line in said["measurements"]] == ["torch", "eager"]
    assert f"triton: not measured: {NO_GPU}" in done.stdout and "  eager" in done.stdout


@pytest.mark.slow
def test_the_command_measures_and_prints(tmp_path, monkeypatch):
    """Compiled, but for the C++ that takes most of the time."""
    from typer.testing import CliRunner

    from affect.engine.cli.main import app

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(losses, "CASES", [Case("arcface_ce", TINY["arcface_ce"], torch.float32)])
    done = CliRunner().invoke(
        app, ["bench", "kernels", "--seconds", "0.01", "--rounds", "1", "--results", str(tmp_path), "--json"]
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["measurements"] == [json.loads(text) for text in next(tmp_path.glob("*.jsonl")).read_text().splitlines()]
    assert [line["provider"] for line in said["measurements"]] == ["torch", "eager", "compiled"]
    assert "arcface_ce, forward and backward" in done.stdout


SCRIPT = Path(__file__).parents[2] / "bench/gpu.sh"
PYTHON = """#!/usr/bin/env bash
case "$*" in
*get_device_name*) echo "$GPU" ;;
*machine_name*) echo a-machine ;;
*test_first*) echo 2 passed ;;
*test_second*) echo "ModuleNotFoundError: No module named 'pydantic'"; exit 2 ;;
*"--op dkd"*) echo "error: dkd computes something else"; exit 1 ;;
*"--op"*) echo measured "$4" >>bench/results/a-machine.jsonl ;;
*"bench train"*) exit 0 ;;
esac
"""


@pytest.fixture
def gpu_sh(tmp_path, monkeypatch):
    """gpu_sh("dkd", gpu="H200") -> (exit code, what it said), on a checkout whose Python only says what it would have run."""
    for folder in ("bench", "tests/kernels", "out"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bench/gpu.sh").write_text(SCRIPT.read_text())
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    for name in ("test_first.py", "test_second.py"):
        (tmp_path / "tests/kernels" / name).touch()
    monkeypatch.setenv("PYTHON", str(tmp_path / "python"))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))

    def call(*sections, gpu="H200"):
        monkeypatch.setenv("GPU", gpu)
        done = subprocess.run(["bash", str(tmp_path / "bench/gpu.sh"), *sections], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return call


def test_the_script_goes_on_where_it_stopped(gpu_sh, tmp_path):
    code, said = gpu_sh()
    assert code == 1 and said.endswith("left out, for want of packages: test_second\nfailed: dkd\n")
    assert "== dkd: failed (1)" in said and "== test_second: left out: No module named 'pydantic'" in said
    notes = ["test_first", "arcface_head", "arcface_ce", "proto_kd", "train", "latency"]
    assert (tmp_path / "bench/results/.gpu-done").read_text().split() == notes
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gpu-done", "gpu.log", "a-machine.jsonl"}
    assert len((tmp_path / "out/a-machine.jsonl").read_text().splitlines()) == 3
    code, said = gpu_sh()
    assert code == 1 and said.count("done before") == len(notes)
    code, said = gpu_sh("proto_kd")
    assert code == 0 and "== proto_kd: done in" in said and "dkd: failed" not in said


def test_without_a_gpu_the_script_says_so(gpu_sh):
    assert gpu_sh(gpu="") == (1, "bench/gpu.sh: no GPU: torch finds no CUDA device; everything here needs one. Without a GPU: "
                              "pytest tests/kernels\n")  # fmt: skip
    code, said = gpu_sh("dkdd")
    assert code == 2 and said.startswith("bench/gpu.sh: dkdd: no such section; there are: test_first test_second arcface_head ")
