"""CONTRIBUTING.md's worked examples: each file is added to a copy of the tree as it stands there, and its test passes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("engine", "kernels", "shards", "bench", "configs")
BLOCK = re.compile(r'^```python title="(?P<path>[^"]+)"\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL)
EXAMPLES = {section: dict(BLOCK.findall(text)) for section, text in re.findall(
    r"^## (An? .+?)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL
)}  # fmt: skip


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """test file -> what pytest says of it, with all examples in one copy of the tree."""
    place = tmp_path_factory.mktemp("contributing")
    for top in TOPS:
        shutil.copytree(ROOT / top, place / "affect" / top, ignore=shutil.ignore_patterns("__pycache__", "results"))
    tests = []
    for files in EXAMPLES.values():
        for path, code in files.items():
            target = place / path if path.startswith("tests/") else place / "affect" / path
            assert not target.exists(), f"{path}: is there already"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(code)
            tests += [path] if path.startswith("tests/") else []
    shutil.copy(ROOT / "tests/conftest.py", place / "tests/conftest.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-rA", *tests]
    environment = os.environ | {"PYTHONPATH": str(place), "KERNELS": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment)
    return done.stdout + done.stderr


@pytest.mark.parametrize("section", EXAMPLES)
def test_an_example_is_one_file_and_its_test_and_passes(section, results):
    files = EXAMPLES[section]
    tests = [path for path in files if path.startswith("tests/")]
    places = {Path(path).parent if "kernel" in section else Path(path) for path in files if path not in tests}
    assert len(tests) == 1 and len(places) == 1
    assert f"PASSED {tests[0]}::" in results and f"FAILED {tests[0]}" not in results and f"ERROR {tests[0]}" not in results, (
        results
    )


def test_all_four_are_there():
    assert list(EXAMPLES) == ["A dataset", "A loss with settings", "A task", "A kernel"]
