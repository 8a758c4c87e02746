"""Pictures in a CSV or an npz get the figures that the same pictures get when they are packed, or one clear message."""

import csv
import json
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from affect.engine.evaluation.evaluate import evaluate
from affect.engine.evaluation.output_folder import default_out
from affect.engine.evaluation.unpacked import evaluate_csv, evaluate_npz
from affect.shards.class_maps import ClassMap
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.pack import pack
from affect.shards.sample import Sample
from affect.shards.schema import TargetLayout
from affect.shards.sources.ferplus import EMOTION
from affect.shards.sources.npz import IMAGES
from affect.shards.sources.table import LABELS, NAMES, PATHS

FERPLUS = ClassMap.load("ferplus")
SAID = ("8way", "present_only", "nll", "per_class", "confusion", "rows", "calibration")  # the same however a set is read


def said(metrics):
    return {key: metrics[key] for key in SAID}


@pytest.fixture(scope="module")
def val(synthetic, tmp_path_factory):
    """The folder of the validation rows as files; their pictures, names of the files and labels."""
    folder = tmp_path_factory.mktemp("val")
    dataset = Dataset(synthetic)
    rows = dataset.rows("val")
    images = np.stack([decode(dataset.image(row)) for row in rows])
    (folder / "faces").mkdir()
    files = [f"faces/{i}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        cv2.imwrite(str(folder / file), image[..., ::-1])
    names = np.array(dataset.info.layout.output("emotion").names)[dataset.targets("emotion")[rows].argmax(1)]
    return folder, images, files, names


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """They take most of the time; one test has them."""
    if request.node.name != "test_a_set_without_some_classes":
        monkeypatch.setattr("affect.engine.evaluation.class_figures.confusion_plot", lambda *arguments: None)


@pytest.fixture(scope="module")
def want(trained, synthetic, tmp_path_factory):
    return evaluate(trained, synthetic, "val", tmp_path_factory.mktemp("want"))


@pytest.fixture
def table(val):
    """table(path="image_path", label="label", ids=False, change=None) -> a CSV beside the pictures; change: line -> cells."""
    folder, _, files, names = val

    def write(path="image_path", label="label", *, ids=False, change=None, extra=()):
        lines = [[file, FERPLUS.ids[name] if ids else name] for file, name in zip(files, names, strict=True)]
        for i, cells in (change or {}).items():
            lines[i] = cells
        out = folder / "faces.csv"
        with out.open("w", newline="") as stream:
            csv.writer(stream).writerows([(path, label), *lines, *extra])
        return out

    return write


@pytest.mark.parametrize("path", PATHS)
def test_every_name_of_the_path_column_gives_the_packed_figures(path, trained, table, want, tmp_path):
    assert said(evaluate_csv(trained, table(path), tmp_path)) == said(want)


@pytest.mark.parametrize("label", NAMES + LABELS)
def test_every_name_of_the_label_column_gives_the_packed_figures(label, trained, table, want, tmp_path):
    ids = label not in NAMES
    found = evaluate_csv(trained, table(label=label, ids=ids), tmp_path, class_map=FERPLUS if ids else None)
    assert said(found) == said(want)


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("label", ["votes", "labels", "y", "hard"])
def test_every_name_in_an_npz_gives_the_packed_figures(images, label, trained, val, want, tmp_path, capsys):
    ids = np.array([FERPLUS.ids[name] for name in val[3]])
    np.savez(tmp_path / "faces.npz", **{images: val[1], label: np.eye(10, dtype=np.uint8)[ids] if label == "votes" else ids})
    assert said(evaluate_npz(trained, tmp_path / "faces.npz", tmp_path / "out")) == said(want)
    assert ("ids are read in FER+'s order, 0 neutral" in capsys.readouterr().err) == (label != "votes")


def test_the_same_of_a_run_its_checkpoint_its_package_and_its_graph(trained, package, table, want, tmp_path):
    path = table()
    shutil.copy(package / "model.onnx", tmp_path / "alone.onnx")
    for model in (trained / "best.pt", trained / "checkpoint_last.pt", package, tmp_path / "alone.onnx"):
        found = evaluate_csv(model, path, tmp_path / "out")
        assert found["rows"] == want["rows"]
        if model.name != "checkpoint_last.pt":
            assert found["confusion"] == want["confusion"] and found["nll"] == pytest.approx(want["nll"], abs=1e-5)


@pytest.mark.slow
def test_a_set_without_some_classes(trained, table, val, tmp_path):
    """Present-only takes the largest logit among the classes that occur; sources get rows of their own."""
    few = {i: [] for i, name in enumerate(val[3]) if name in ("contempt", "fear")}
    found = evaluate_csv(trained, table(change=few), tmp_path)
    present = found["present_only"]
    assert found["rows"] == len(val[3]) - len(few) and next(iter(found)) == "8way" and present["masked"] is True
    assert present["present_names"] == ["neutral", "happiness", "surprise", "sadness", "anger", "disgust"]
    assert present["acc"] >= found["8way"]["acc"] and np.array(present["confusion"]).shape == (6, 6)
    source = found["sources"]["faces"]
    assert (source["rows"], source["accuracy"], source["macro_f1_classes"]) == (found["rows"], found["8way"]["acc"], 6)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {key: v for key, v in found.items() if key != "out"}
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("confmat.png", "confmat_present.png"))


def test_a_class_map_leaves_classes_out_wherever_the_rows_are(trained, synthetic, table, val, tmp_path):
    keep = ClassMap("kept", FERPLUS.names[:7], {name: i for i, name in enumerate(FERPLUS.names[:7])})
    ids = np.array([FERPLUS.ids[name] for name in val[3]])
    np.savez(tmp_path / "faces.npz", x=val[1], y=ids)
    of_data = evaluate(trained, synthetic, "val", tmp_path / "a", class_map=keep)
    of_csv = evaluate_csv(trained, table(ids=True), tmp_path / "b", class_map=keep)
    of_npz = evaluate_npz(trained, tmp_path / "faces.npz", tmp_path / "c", class_map=keep)
    assert said(of_data) == said(of_csv) == said(of_npz) and of_data["rows"] == (ids != 7).sum()
    assert sum(of_data["left_out"].values()) == sum(of_csv["left_out"].values()) == (ids == 7).sum()
    assert of_npz["left_out"] == {"label not in the class map": (ids == 7).sum()}


def test_rows_that_fitted_the_temperature_are_said_apart(trained, val, tmp_path):
    _, images, _, names = val
    np.savez(tmp_path / "faces.npz", images=images, labels=names)
    pack(InMemory(images, names), tmp_path / "packed", calib=0.3)
    other = evaluate(trained, tmp_path / "packed", "val", tmp_path / "a")
    found = evaluate_npz(trained, tmp_path / "faces.npz", tmp_path / "b", calib=0.3)
    assert 0 < other["rows"] == found["apart"]["rows"] < found["rows"] == len(images)
    assert found["apart"]["nll"] == pytest.approx(other["nll"], abs=1e-6) and found["apart"]["ece"] == pytest.approx(other["ece"])
    with pytest.raises(InputError, match="--calib 1: every row of .*faces.npz falls into calib"):
        evaluate_npz(trained, tmp_path / "faces.npz", tmp_path / "c", calib=1.0)


class InMemory:
    """Pictures in memory as validation rows."""

    def __init__(self, images, names):
        self.layout, self.label_protocol, self.meta, self.filtered = TargetLayout((EMOTION,)), "hard", {}, Counter()
        self.images, self.names = images, names

    def samples(self):
        for i, (image, name) in enumerate(zip(self.images, self.names, strict=True)):
            yield Sample(image, str(i), "val", EMOTION.one_hot(name), source="memory")

    def fingerprint(self):
        return {}


def test_unreadable_pictures_are_listed_and_counted(trained, table, val, tmp_path):
    bad = {3: ["faces/none.png", "anger"], 5: ["faces.csv", "anger"]}
    found = evaluate_csv(trained, table(change=bad), tmp_path, max_rejects=0.1)
    assert found["rejected"] == 2 and found["rows"] == len(val[3]) - 2
    listed = (tmp_path / "rejected.csv").read_text().splitlines()
    reason = "not a picture, or cut short; expected JPEG, PNG, WebP, TIFF, BMP, GIF, PGM or PPM"
    assert listed == ["path,reason", "faces/none.png,missing file", f'faces.csv,"{reason}"']


def test_a_split_of_a_csv(trained, table, val, tmp_path):
    half = {i: [f, n, "val" if i % 2 else "test"] for i, (f, n) in enumerate(zip(val[2], val[3], strict=True))}
    path = table(change=half)
    path.write_text(path.read_text().replace("image_path,label", "image_path,label,split"))
    assert evaluate_csv(trained, path, tmp_path / "a")["rows"] == len(half)
    assert evaluate_csv(trained, path, tmp_path / "b", split="val")["rows"] == len(half) // 2


@pytest.fixture
def run(trained, synthetic, tmp_path, want):
    """A copy of the run with the figures of its validation."""
    copy = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("package", "evaluated"))
    shutil.copy(want["out"] + "/metrics.json", copy / "metrics.json")
    return copy


def test_validation_stands_beside_other_sets(run, table, val, want, tmp_path):
    before = (run / "metrics.json").read_bytes()
    turned = {i: [val[2][i], val[3][i - 1]] for i in range(20)}  # wrong labels
    found = evaluate_csv(run, table(change=turned))
    own, drop = found["beside_validation"], found["beside_validation"]["drop_points"]
    assert (own["rows"], own["accuracy"]) == (want["rows"], want["present_only"]["acc"])
    assert drop["accuracy"] == pytest.approx(100 * (want["present_only"]["acc"] - found["present_only"]["acc"]))
    assert drop["macro_f1"] == pytest.approx(100 * (want["present_only"]["macro_f1"] - found["present_only"]["macro_f1"]))
    assert found["out"] == str(run / "evaluated" / "faces") and (run / "metrics.json").read_bytes() == before
    assert evaluate_csv(run / "best.pt", table(), tmp_path / "b")["beside_validation"]["drop_points"]["accuracy"] == 0
    assert "beside_validation" not in evaluate_csv(run / "checkpoint_last.pt", table(), tmp_path / "c")


def test_figures_of_other_rows_are_no_validation(run, table, tmp_path, capsys):
    value = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(value | {"dataset": "elsewhere"}))
    assert evaluate_csv(run, table(), tmp_path / "out")["beside_validation"] is None
    assert "is of elsewhere, val; write them: affect calibrate" in capsys.readouterr().err


def test_nothing_is_written_over(run, synthetic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_out(run, {"dataset": str(synthetic), "split": "val"}) == run
    assert default_out(run, {"dataset": str(synthetic), "split": "train"}).name == "synthetic-train"
    a, b = {"dataset": "a/faces.csv", "split": None}, {"dataset": "b/faces.csv", "split": None}
    for what, name in ((a, "faces"), (b, "faces-2"), (a, "faces"), (b, "faces-2")):
        out = default_out(run, what)
        assert out == run / "evaluated" / name
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").write_text(json.dumps(what))
    assert str(default_out(tmp_path / "x.onnx", a)) == "evaluation"


def test_the_command_prints_the_drop(affect, run, table):
    code, out, _ = affect("evaluate", run, "--csv", table(label="y", ids=True), "--class-map", "ferplus", "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["beside_validation"]["drop_points"]["accuracy"] == 0
    assert "drop, points" in out and "validation" in out and str(run / "evaluated" / "faces" / "metrics.json") in out


BAD_ROWS = [  # what of the CSV is changed, the options, the message
    ({"path": "photo"}, [], "no column with the path of the picture"),
    ({"label": "emotion"}, [], "no column with the label"),
    ({"ids": True}, [], "what ids mean says --class-map"),
    ({"change": {0: ["faces/0.png", "bored"]}}, [], "classes that the model does not know:\n  'bored': 1 row\nIt knows: neutral"),
    ({"change": {0: ["faces/0.png", "bored"]}}, ["--class-map", "nowhere"], "nowhere: no such file or class map"),
    ({"change": {0: ["faces/none.png", "anger"]}}, [], "faces/none.png: missing file\nMend or remove these"),
    ({}, ["--split", "val"], "has no column 'split'"),
    ({}, ["--root", "nowhere"], "nowhere: not a folder"),
    ({}, ["--delimiter", ";"], "found ',' between the columns, expected ';'"),
    ({}, ["--class-map", "rafce"], "no row is left to evaluate"),
]


@pytest.mark.parametrize(("changed", "options", "message"), BAD_ROWS)
def test_a_bad_csv_is_one_message(changed, options, message, affect, package, table, tmp_path):
    code, _, err = affect("evaluate", package, "--csv", table(**changed), "--out", tmp_path / "out", *options)
    assert code == 1 and message in err and not (tmp_path / "out").exists()


def test_no_file_found_lists_the_first_and_offers_the_nearest(affect, package, val, tmp_path):
    _, _, files, names = val
    (tmp_path / "faces.csv").write_text("\n".join(["img,y", *(f"{f},{n}" for f, n in zip(files, names, strict=True))]))
    (tmp_path / "face").mkdir()
    code, _, err = affect("evaluate", package, "--csv", tmp_path / "faces.csv")
    assert code == 1 and f"none of the first 20 pictures is there:\n  {tmp_path}/faces/0.png" in err
    assert f"nearest: {tmp_path}/face" in err and "--root FOLDER" in err
    (tmp_path / "empty.csv").write_text("img,y\n")
    code, _, err = affect("evaluate", package, "--csv", tmp_path / "empty.csv")
    assert code == 1 and "found a header and no rows" in err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--data", "a", "--csv", "b"],
        ["--npz", "a", "--split", "val"],
        ["--npz", "a", "--root", "b"],
        ["--csv", "a", "--label-protocol", "votes"],
        ["--npz", "a", "--label-protocol", "most"],
    ],
)
def test_bad_usage_is_exit_code_2(affect, options):
    assert affect("evaluate", "run", *options)[0] == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "no package"),
        ("nowhere.pt", "no such checkpoint"),
        ("text.pt", "no config.yaml beside it"),
        ("text.onnx", "cannot load"),
    ],
)
def test_a_bad_model_is_one_message(affect, model, message, tmp_path, table):
    if model.startswith("text"):
        (tmp_path / model).write_text("text")
    code, _, err = affect("evaluate", tmp_path / model, "--csv", table(), "--out", tmp_path / "out")
    assert code == 1 and message in err and not (tmp_path / "out").exists()
