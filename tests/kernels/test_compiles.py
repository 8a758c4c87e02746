"""All kernels compile to machine code, on a machine without a GPU too."""

import os
import subprocess
import sys

import pytest

COMPILES = """
import sys, affect.kernels
assert "affect.kernels.arcface_ce.fused" not in sys.modules, "importing the ops must not import Triton's kernels"
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from affect.kernels.arcface_ce import fused
from affect.kernels import gradient, reduce

def compiled(fn, types, constants, arch):
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32" if name.endswith("_ptr") else "i32")
                 for name in fn.arg_names}
    source = ASTSource(fn=fn, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32)).asm["ptx"]

flags = ("CLASS_WEIGHT", "SAMPLE_WEIGHT", "MARGIN_TENSOR", "GRAD")
numbers = dict(margin_rad="fp32", scale="fp32", smoothing="fp32")
for arch, cos, hard, on, rows, cols in ((80, "*bf16", True, True, 128, 8), (90, "*fp32", False, False, 1, 1024)):
    constants = dict.fromkeys(flags, on) | dict(HARD=hard, IGNORE=-1, EPS=1e-7, ROWS=rows, COLS=cols)
    ptx = compiled(fused._rows, numbers | dict(cos_ptr=cos, target_ptr="*i64" if hard else "*fp32"), constants, arch)
    assert "atom" not in ptx and "sin.approx" not in ptx, "not deterministic, or not exact"
from affect.kernels.arcface_head import fused as head
constants = dict.fromkeys(flags, True) | dict(HARD=True, IGNORE=-1, EPS=1e-7, TINY=1e-12, ROWS=16, COLS=16, FEATURES=64)
compiled(head._head, numbers | dict(x_ptr="*bf16", target_ptr="*i64"), constants, 90)
compiled(head._weight_parts, dict(x_ptr="*bf16"), dict(PART=256, ROWS=64, COLS=16, FEATURES=64), 90)
ptx = compiled(head._weight_gradient, dict(w_ptr="*bf16"), dict(TINY=1e-12, BLOCK=64, COLS=16, FEATURES=64), 90)
assert "atom" not in ptx, "not deterministic"
from affect.kernels.proto_kd import fused as proto
for on, cols in ((True, 64), (False, 16)):
    constants = dict(TEACHER=on, SAMPLE_WEIGHT=on, GRAD=True, TINY=1e-12, ROWS=16, COLS=cols, FEATURES=64)
    ptx = compiled(proto._proto, dict(x_ptr="*bf16", temperature="fp32", teacher_temperature="fp32"), constants, 90)
    assert "atom" not in ptx and "tf32" not in ptx, "not deterministic, or not exact"
from affect.kernels.dkd import fused as dkd
flags = ("HARD", "TABLE", "SAMPLE_WEIGHT", "WEIGHT_TENSOR", "PLAIN", "WARM")
numbers = dict.fromkeys(("weight_number", "temperature", "alpha", "beta", "ce"), "fp32")
for grad, on, rows, C, cols in ((True, True, 128, 7, 8), (True, False, 1, 1000, 1024), (False, True, 1, 1000, 1024)):
    types = dict(student_ptr="*bf16", teacher_ptr="*fp16", rows_ptr="*i64", target_ptr="*i64" if on else "*fp32")
    constants = dict.fromkeys(flags, on) | dict(GRAD=grad, DENSE=on, IGNORE=-1, ROWS=rows, C=C, COLS=cols)
    ptx = compiled(dkd._rows, numbers | types | dict(out_ptr="*bf16" if grad else "*fp32"), constants, 90)
    assert "atom" not in ptx, "not deterministic"
compiled(reduce.finish, {}, dict(MEAN=True, COUNT=False, HITS=True, BLOCK=64), 90)
compiled(gradient._scale, dict(out_ptr="*bf16"), dict(BLOCK=1024), 90)
"""


@pytest.mark.slow
def test_the_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILES], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
