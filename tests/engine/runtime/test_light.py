"""The runtime starts without what only training needs, and without what a single face does not."""

import subprocess
import sys
from pathlib import Path

import pytest

import affect.engine

ROOT = Path(affect.engine.__file__).parent / "runtime"
NAMES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("[!_]*.py") if path.stem != "torch"]
CODE = """
import importlib, sys
for name in {names!r}:
    importlib.import_module("affect.engine.runtime." + name)
print(*[name for name in ("torch", "timm", "nvidia.dali", "scipy.optimize", "pandas") if name in sys.modules])
"""


@pytest.mark.slow
def test_the_runtime_imports_nothing_of_the_training():
    done = subprocess.run([sys.executable, "-c", CODE.format(names=NAMES)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr
