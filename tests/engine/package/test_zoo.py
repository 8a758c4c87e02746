"""The built-in model: there by its name, small, as its card says, and the default where no model is named."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pandas as pd
import pytest

from affect.engine import Engine
from affect.engine.package.builtin import DEFAULT_MODEL, ZOO, builtin_names, model_path
from affect.engine.package.model_package import ModelPackage
from affect.shards.errors import InputError

FOLDER = ZOO / DEFAULT_MODEL


@pytest.fixture(scope="module")
def card():
    return json.loads((FOLDER / "card.json").read_text())


@pytest.fixture(scope="module")
def engine():
    with Engine.load(DEFAULT_MODEL, backend="onnxruntime") as engine:
        yield engine


@pytest.mark.slow
def test_it_is_small_and_answers_without_torch():
    assert builtin_names() == [DEFAULT_MODEL]
    assert sum(file.stat().st_size for file in ZOO.rglob("*") if file.suffix != ".pyc") <= 6_000_000
    weights = onnx.load(FOLDER / "model.onnx").graph.initializer
    assert sum(int(np.prod(weight.dims)) for weight in weights) <= 2_000_000
    code = (
        "import sys, numpy as np; from affect.engine import Engine\n"
        "face = Engine.load('emotion', backend='onnxruntime', subject='full').predict(np.zeros((48, 48), np.uint8))[0].faces[0]\n"
        "assert abs(sum(face.probs.values()) - 1) < 1e-5 and len(face.probs) == 8\n"
        "print({'torch', 'timm', 'nvidia.dali', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_card_is_of_these_files(card):
    package = ModelPackage.open(DEFAULT_MODEL)
    assert card["files"] == package.manifest.files and card["fingerprint"] == package.manifest.fingerprint
    assert card["preprocess"] == package.preprocess.to_json() and package.manifest.subject == "human_face"
    assert card["recipe"]["task"] == package.manifest.task and "model.int8.onnx" in card["files"]
    text = (FOLDER / "CARD.md").read_text()
    for of in card["measured"].values():
        assert f"{of['acc']:.4f}" in text and f"{of['macro_f1']:.4f}" in text and f"{of['apart']['ece']:.4f}" in text
    for word in ("not a diagnosis", "lie detector", "AI Act", "skin tone", "How to train it again"):
        assert word.lower() in text.lower()
    assert "Apache" in (ZOO / "LICENSE-weights").read_text()


@pytest.mark.slow
def test_its_figures_can_be_had_again(card, real, tmp_path):
    from affect.engine.evaluation.unpacked import evaluate_npz

    for name, want in card["measured"].items():
        npz = real / "ferplus/ferplus_valid.npz"
        found = evaluate_npz(ZOO / DEFAULT_MODEL, npz, tmp_path / name, protocol=name, calib=want["apart"]["calib"])
        assert found["8way"]["acc"] == pytest.approx(want["acc"], abs=1e-3) and found["rows"] == want["rows"]
        assert found["nll"] == pytest.approx(want["nll"], abs=1e-3)
        assert found["apart"]["ece"] == pytest.approx(want["apart"]["ece"], abs=2e-3)


@pytest.mark.slow
def test_he_begins_to_smile(engine, videos):
    """single_face.mp4: neutral at first, then a smile."""
    labels = [frame.faces[0].label for frame in engine.stream(videos / "single_face.mp4")]
    assert labels[0] == "neutral" and labels[-1] == "happiness"


@pytest.mark.slow
def test_it_is_the_default(affect, picture, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(64, 64))
    code, _, err = affect("run", tmp_path / "a.png", "--subject", "full", "--out", tmp_path / "out")
    assert code == 0 and "package emotion, which is built in" in err
    assert pd.read_csv(tmp_path / "out/predictions.csv")["label"].notna().all()


@pytest.mark.slow
def test_the_demo_of_ones_own_picture(affect, picture, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(64, 64))
    code, out, err = affect("demo", "--source", tmp_path / "a.png", "--out", tmp_path / "demo")
    assert code == 0 and "1 without a face" in out and "no face" in err
    assert (tmp_path / "demo/annotated/a.png").is_file()
    code, _, err = affect("demo", "--source", tmp_path / "demo/annotated/a.png", "--out", tmp_path / "demo")
    assert code == 1 and "lies in" in err and (tmp_path / "demo/annotated/a.png").is_file()
    code, _, err = affect("demo", "--source", tmp_path / "none.mp4", "--out", tmp_path / "demo")
    assert code == 1 and "none.mp4: no such file" in err and (tmp_path / "demo/annotated/a.png").is_file()


def test_a_package_of_ones_own_goes_before_the_name(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_path("emotion") == FOLDER
    (tmp_path / "emotion").mkdir()
    assert model_path("emotion") == FOLDER  # a folder of something else
    shutil.copytree(package, tmp_path / "emotion", dirs_exist_ok=True)
    assert ModelPackage.open("emotion").manifest.name != DEFAULT_MODEL
    with pytest.raises(InputError, match="emotoin: no package: .* or a built-in model: emotion"):
        ModelPackage.open("emotoin")
