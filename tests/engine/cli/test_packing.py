"""affect pack: a source declares its command in its own file, and the common options come with it."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from affect.engine.cli import packing
from affect.shards.dataset import Dataset
from affect.shards.sources import pack_command

COMMON = {"out", "on_leak", "max_rejects", "calib", "max_side", "quality", "workers", "as_json"}
CROP, PARTS = {"crop", "crop_margin"}, {"sharpest", "background", "box"}
TINTED = '''"""Pictures of one colour each."""

from collections import Counter
from typing import Annotated

import numpy as np

from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.sources.pack_command import Option, pack_command

TINT = Output("tint", "classes", ("dark", "bright"))


class TintedSource:
    layout, label_protocol, meta, filtered = TargetLayout((TINT,)), "hard", {}, Counter()

    def __init__(self, count):
        self.count = count

    def samples(self):
        for i in range(self.count):
            image = np.full((8, 8, 3), i + 128 * (i % 2), np.uint8)
            yield Sample(image, f"{i}", "val" if i < 4 else "train", TINT.one_hot(TINT.names[i % 2]), "tinted")

    def fingerprint(self):
        return {"tinted": str(self.count)}


@pack_command("tinted")
def tinted_source(count: Annotated[int, Option("how many", min=4)] = 6):
    """Tinted squares."""
    return TintedSource(count)
'''


def options(name):
    return {parameter.name: parameter for parameter in packing.typer_command(name).params}


@pytest.mark.parametrize(
    ("name", "has", "quality"),
    [
        ("folder", COMMON, 0),
        ("manifest", COMMON, 0),
        ("ferplus", COMMON, 0),
        ("rafce", COMMON, 0),
        ("synthetic", COMMON - {"on_leak", "max_rejects"}, 0),
        ("clips", COMMON | CROP | PARTS, 95),
        ("pain", COMMON | CROP, 95),
        ("mouse", COMMON | PARTS, 95),
    ],
)
def test_a_command_has_its_own_options_and_the_common_ones(name, has, quality):
    found = options(name)
    assert found.keys() & (COMMON | CROP | PARTS) == has
    assert found["quality"].default == quality and found["out"].required


def test_every_declared_command_is_listed():
    names = list(packing.Commands())
    assert names == sorted(names) == ["clips", "ferplus", "folder", "manifest", "mouse", "pain", "rafce", "synthetic"]


def test_a_new_file_is_a_new_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "affect_tinted.py").write_text(TINTED)
    monkeypatch.setattr(pack_command, "command_modules", lambda: {"tinted": "affect_tinted"})
    assert options("tinted").keys() >= COMMON | {"count"} and options("tinted")["count"].default == 6
    command = packing.typer_command("tinted")
    assert "Tinted squares." in command.help
    command(["--out", str(tmp_path / "out"), "--count", "8"], standalone_mode=False)
    assert Dataset(tmp_path / "out").info.counts == {"train": 4, "val": 4}
    monkeypatch.delitem(pack_command.COMMANDS, "tinted")


@pytest.fixture
def pictures(tmp_path):
    for i, name in enumerate(["calm", "tense"] * 8):
        path = tmp_path / "raw" / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    return tmp_path / "raw"


def outputs(folder):
    return [(output.name, output.kind, output.names) for output in Dataset(folder).info.layout.outputs]


def test_a_folder_packs_under_its_own_output_name(affect, pictures, tmp_path):
    code, out, _ = affect("pack", "folder", pictures, "--output", "posture", "--out", tmp_path / "out")
    assert code == 0 and "posture (classes): calm, tense" in out
    assert outputs(tmp_path / "out") == [("posture", "classes", ("calm", "tense"))]
    assert affect("pack", "folder", pictures, "--out", tmp_path / "default")[0] == 0
    assert outputs(tmp_path / "default")[0][0] == "emotion"


@pytest.mark.slow
def test_a_manifest_packs_under_its_own_output_name(affect, pictures, tmp_path):
    rows = [f"{path.relative_to(pictures)},{path.parent.name}" for path in sorted(pictures.rglob("*.png"))]
    (tmp_path / "faces.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    common = ("pack", "manifest", tmp_path / "faces.csv", "--root", pictures)
    assert affect(*common, "--output", "posture", "--out", tmp_path / "out")[0] == 0
    assert outputs(tmp_path / "out") == [("posture", "classes", ("calm", "tense"))]
    assert affect(*common, "--out", tmp_path / "default")[0] == 0
    assert outputs(tmp_path / "default")[0][0] == "emotion"


def test_an_output_name_that_no_column_can_have_is_refused(affect, pictures, tmp_path):
    code, _, err = affect("pack", "folder", pictures, "--output", "a.b", "--out", tmp_path / "out")
    assert code == 1 and "--output a.b: expected letters, digits, - and _" in err and not (tmp_path / "out").exists()


LAZY = """
import sys
from affect.engine.cli import packing
commands = packing.Commands()
assert len(list(commands)) == 8 and not {"numpy", "pyarrow", "cv2"} & sys.modules.keys(), "listing must not import the sources"
for name in commands:
    commands[name]
assert not {"torch", "pandas"} & sys.modules.keys(), "help must not import them"
"""


@pytest.mark.slow
def test_help_of_all_commands_imports_no_torch():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


TERMINATED = """
import signal, sys
from affect.engine.cli.main import main
from affect.shards.resume import Journal
def add(journal, result, add=Journal.add, added=[]):
    add(journal, result)
    added.append(result)
    if len(added) == 50:
        signal.raise_signal(signal.SIGTERM)
Journal.add = add
main()
"""


@pytest.mark.slow
def test_sigterm_keeps_what_is_packed_as_ctrl_c_does(affect, tmp_path):
    arguments = ["pack", "synthetic", "--out", str(tmp_path / "data"), "--num-images", "80", "--size", "48", "--subjects", "8"]
    process = subprocess.run([sys.executable, "-c", TERMINATED, *arguments], capture_output=True, text=True)
    assert process.returncode == 130 and "the same command goes on from here" in process.stderr, process.stderr
    assert process.stderr.endswith("interrupted; everything finished so far is kept\n")
    code, _, err = affect(*arguments)
    assert code == 0 and "continued; 50 samples are there" in err and Dataset(tmp_path / "data").info.counts
