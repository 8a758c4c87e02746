"""A process that is kept on some cores stays there, with all its threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from affect.engine.system.cpu_affinity import parse_cores, pin
from affect.shards.errors import InputError

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot")


@pytest.mark.parametrize(("text", "want"), [("0", {0}), ("0-3", {0, 1, 2, 3}), ("1, 4-5", {1, 4, 5}), ([2, 0], {0, 2})])
def test_cores_as_text_and_numbers(text, want):
    assert parse_cores(text) == want


@pytest.mark.parametrize(
    ("cores", "message"),
    [
        ("a", "cores: found 'a'; expected numbers and ranges of cores, such as 0-3"),
        ("3-0", "cores: found '3-0'"),
        ("", "cores: found ''"),
        ("0,", "cores: found '0,'"),
        ("-1", "cores: found '-1'"),
        ("99998-99999", "cores: 99998, 99999 not there; this process may use "),
        ("0-99999", "not there; this process may use "),
        ([], "cores: none named"),
    ],
)
def test_cores_that_are_none_are_one_message(cores, message):
    before = os.sched_getaffinity(0)
    with pytest.raises(InputError, match=message):
        pin(cores)
    assert os.sched_getaffinity(0) == before


PINNED = """
import os, sys
import numpy as np
from pathlib import Path
from affect.engine import Engine
core = min(os.sched_getaffinity(0))
with Engine.load(sys.argv[1], backend=sys.argv[2], device="cpu", cores=[core]) as engine:
    engine.predict(np.zeros((60, 60, 3), np.uint8))
    allowed = {frozenset(os.sched_getaffinity(int(thread.name))) for thread in Path("/proc/self/task").iterdir()}
    sys.exit(0 if allowed == {frozenset({core})} and engine.threads == 1 else f"{allowed} {engine.threads}")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_thread_is_kept_there(backend, package):
    if backend == "openvino":
        pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", PINNED, package, backend], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
