"""Features on disk, prototypes on a grid, and where classes lie on it."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from affect.engine.cli.main import main
from affect.engine.data.build import eval_loader
from affect.engine.distill.extract import column_or_nan, extract
from affect.engine.distill.features import Features, feature_table, read_features
from affect.engine.distill.prototypes import cell_means, centers_of, make_prototypes
from affect.engine.losses.circumplex import ANCHORS, grid_targets, positions, read_anchors
from affect.engine.losses.prototype_file import read_prototypes
from affect.engine.runs.trained import trained_model
from affect.kernels import proto_kd
from affect.shards.class_maps import ClassMap
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

NAN = float("nan")


@pytest.fixture(scope="module")
def extracted(trained, synthetic, tmp_path_factory):
    """The features of the training rows by the session's run."""
    out = tmp_path_factory.mktemp("features") / "features.npz"
    extract(trained, [synthetic], "train", out)
    return out


@pytest.fixture
def rows(tmp_path):
    """rows(valence=[...]) -> the path of a file of four rows of two classes, changed in what is given."""

    def write(**changed):
        stored = Features(
            features=np.array([[3, 4, 0], [0, 2, 0], [0, 0, 9], [1, 0, 0]], np.float32), sample=np.arange(4),
            y=np.array([0, 0, 1, -1]), target=np.array([[1, 0], [0.75, 0.25], [0, 1], [NAN, NAN]], np.float32),
            class_names=("neutral", "happy"), valence=np.full(4, NAN, np.float32), arousal=np.full(4, NAN, np.float32),
            dataset_sha256="d", checkpoint_sha256="c", fingerprint="{}", split="train",
        )  # fmt: skip
        path = tmp_path / f"rows{len(list(tmp_path.iterdir()))}.npz"
        replace(stored, **changed).write(path)
        return path

    return write


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["affect", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def test_features_are_those_of_the_model(extracted, trained, synthetic):
    stored, dataset = read_features(extracted), Dataset(synthetic)
    config, model, _ = trained_model(trained)
    batch = next(eval_loader(dataset, stored.sample[:37], config.preprocess, ("emotion",), torch.device("cpu")).from_step(0))
    with torch.inference_mode():
        want = model(batch.inputs)[0].numpy()
    np.testing.assert_allclose(stored.features[:37], want, atol=1e-5)
    assert stored.features.dtype == np.float32
    assert (stored.sample == dataset.rows("train")).all()
    assert (stored.target == dataset.targets("emotion")[stored.sample]).all() and (stored.y == stored.target.argmax(1)).all()
    assert stored.class_names == dataset.info.layout.output("emotion").names
    assert np.isnan(stored.valence).all() and stored.dataset_sha256 == dataset.index_sha256
    assert json.loads(stored.fingerprint)["index"] == dataset.index_sha256


def test_all_rows_and_a_table_by_sample(extracted, trained, synthetic, tmp_path):
    dataset = Dataset(synthetic)
    everything = extract(trained, [synthetic], "all", tmp_path / "all.npz")
    assert (everything.sample == np.arange(400)).all()
    whole, part = feature_table(tmp_path / "all.npz", dataset), feature_table(extracted, dataset)
    train = dataset.rows("train")
    assert not np.isnan(whole).any() and np.isnan(np.delete(part, train, 0)).all()
    np.testing.assert_allclose(part[train], whole[train], atol=1e-5)
    with pytest.raises(InputError, match="features of another dataset"):
        feature_table(extracted, SimpleNamespace(folder="other", index_sha256="0" * 64))


def test_the_command_from_run_to_prototypes(trained, synthetic, tmp_path, monkeypatch, capsys):
    f, p, q = tmp_path / "f.npz", tmp_path / "p.npz", tmp_path / "q.npz"
    code, out, _ = call(monkeypatch, capsys, "features", trained, "--data", synthetic, "--out", f, "--split", "val")
    assert code == 0 and "96 rows of val" in out
    code, out, _ = call(monkeypatch, capsys, "prototypes", f, "--out", p)
    assert code == 0 and "8 of 25 cells filled from 96 rows, placed by anchors of classes (default)" in out
    assert call(monkeypatch, capsys, "prototypes", f, "--out", q)[0] == 0
    assert read_prototypes(p).sha256 == read_prototypes(q).sha256 and read_prototypes(p).sha256 in out
    again = [["features", trained, "--data", synthetic, "--out", f], ["prototypes", f, "--out", p]]
    for arguments in again:
        code, _, err = call(monkeypatch, capsys, *arguments)
        assert code == 1 and "is there already" in err
    assert not list(tmp_path.glob(".*"))


def test_two_extractions_are_the_same_file(extracted, trained, synthetic, tmp_path):
    extract(trained, [synthetic], "train", tmp_path / "again.npz")
    assert read_features(tmp_path / "again.npz").sha256 == read_features(extracted).sha256


def test_cells_of_a_grid():
    centers = centers_of(5)
    assert centers.shape == (25, 2) and centers.dtype == np.float32
    assert sorted(set(centers[:, 0].round(6).tolist())) == pytest.approx([-0.8, -0.4, 0, 0.4, 0.8])
    assert centers[1] == pytest.approx([-0.8, -0.4]) and centers[5] == pytest.approx([-0.4, -0.8])


def test_prototypes_of_a_worked_example():
    """Unit rows (.6, .8), (0, 1) in the cell (0, 0), their mean (.3, .9); (1, 0) in (.8, .4); the last row has no place."""
    features = np.array([[3, 4], [0, 7], [2, 0], [5, 5]], np.float32)
    point = np.array([[0.1, -0.1], [0.0, 0.2], [1.0, 0.5], [NAN, 0.0]])  # .2 is an edge: it belongs to the lower cell
    vectors, counts, taken_from = cell_means(features, point, 5)
    assert vectors.dtype == np.float32 and np.flatnonzero(counts).tolist() == [12, 23]
    assert counts[12] == 2 and counts[23] == 1
    assert vectors[12] == pytest.approx([0.3, 0.9]) and vectors[23] == pytest.approx([1, 0])
    assert vectors[24] == pytest.approx([1, 0]) and taken_from[24] == 23  # (.8, .8) is next to (.8, .4)
    assert taken_from[0] == 12 and set(taken_from.tolist()) == {12, 23}


def test_of_equally_near_cells_the_first_is_taken():
    """Filled (-.4, 0) and (.4, 0): the empty (0, 0) lies between them."""
    taken_from = cell_means(np.eye(2, dtype=np.float32), np.array([[0.4, 0.0], [-0.4, 0.0]]), 5)[2]
    assert taken_from[12] == 7
    # the edges -.6, -.2, .2, .6 all belong to the lower cell, although their distances differ in the last bit
    edges = np.array([[e, e] for e in (-0.6, -0.2, 0.2, 0.6)])
    assert np.flatnonzero(cell_means(np.ones((4, 2)), edges, 5)[1]).tolist() == [0, 6, 12, 18]


def test_votes_lie_between_the_anchors(rows, tmp_path):
    """.75 neutral (0, 0) and .25 happy (.8, .4) is (.2, .1): the cell (0, 0), by its edge."""
    prototypes, placed = make_prototypes(rows(), tmp_path / "p.npz")
    np.testing.assert_allclose(placed.point, [[0, 0], [0.2, 0.1], [0.8, 0.4], [NAN, NAN]], atol=1e-7)
    assert prototypes.counts[12] == 2 and prototypes.counts[23] == 1 and prototypes.counts.sum() == 3
    assert prototypes.vectors[12] == pytest.approx([0.3, 0.9, 0]) and prototypes.vectors[23] == pytest.approx([0, 0, 1])
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert json.loads(str(arrays["anchors"]))["happiness"] == [0.8, 0.4]
        assert str(arrays["features_sha256"]) == read_features(tmp_path / "rows0.npz").sha256


def test_labels_of_rows_come_before_anchors(rows, tmp_path):
    labelled = rows(valence=np.array([0.8, -2, NAN, -0.8], np.float32), arousal=np.array([0, -2, 0.5, 0], np.float32))
    prototypes, placed = make_prototypes(labelled, tmp_path / "p.npz")
    assert placed.by == "the rows' labels" and np.flatnonzero(prototypes.counts).tolist() == [2, 22]
    prototypes, placed = make_prototypes(labelled, tmp_path / "q.npz", "default")
    assert prototypes.counts[12] == 2 and "default" in placed.by


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_names": ("neutral", "sleepy")}, "class 'sleepy' has no place in valence and arousal; placed are: neutral"),
        ({"target": np.full((4, 2), NAN, np.float32)}, "no row is labelled"),
        ({"valence": np.full(4, 7.0, np.float32), "arousal": np.ones(4, np.float32)}, "outside -1 to 1, first 7, 1 of sample 0"),
        ({"features": np.full((4, 3), NAN, np.float32)}, "4 rows are not finite, first sample 0"),
    ],
)
def test_features_that_make_no_prototypes(rows, tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        make_prototypes(rows(**changed), tmp_path / "p.npz")
    assert not (tmp_path / "p.npz").exists()


def test_a_column_of_text_is_refused():
    with pytest.raises(InputError, match="meta.valence holds text"):
        column_or_nan(SimpleNamespace(folder="d", has=lambda name: True, is_text=lambda name: True), "meta.valence")


VECTORS = np.arange(1, 13, dtype=np.float64).reshape(4, 3)
CENTERS = np.zeros((4, 2), np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"prototypes": VECTORS, "centers": CENTERS, "counts": np.arange(4)},
        {"prototypes": VECTORS.astype(np.float32), "other": np.ones((7, 7))},
        {"P": VECTORS.astype(np.float16), "centers": CENTERS, "counts": np.arange(4.0)},
        {"teacher": VECTORS, "note": np.array({"made": "by"}, object), "ids": np.ones((4, 4), int)},
    ],
    ids=["ours", "named, with another table", "another name", "beside a pickle"],
)
def test_forms_that_are_read(arrays, tmp_path):
    np.savez(tmp_path / "p.npz", **arrays)
    stored = read_prototypes(tmp_path / "p.npz")
    assert (stored.vectors == VECTORS).all() and stored.vectors.dtype == np.float32 and len(stored.sha256) == 64
    assert (stored.centers is None) == ("centers" not in arrays) and (stored.counts is None) == ("counts" not in arrays)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"counts": np.arange(3)}, "no 2-D float array; expected prototypes .* found counts int64"),
        ({"centers": CENTERS}, "no 2-D float array"),
        ({"a": VECTORS, "b": VECTORS}, "several 2-D float arrays"),
        ({"prototypes": np.arange(3.0), "b": VECTORS}, "no 2-D float array"),
        ({"prototypes": np.array([None]), "b": np.arange(2)}, "no 2-D float array"),
        ({"prototypes": np.where(VECTORS == 5, NAN, VECTORS)}, "row 1 is not finite"),
        ({"prototypes": np.where(VECTORS > 11, np.inf, VECTORS)}, "row 3 is not finite"),
        ({"prototypes": VECTORS * np.array([[1], [1], [0], [1]])}, "row 2 is zero"),
        ({"prototypes": np.empty((0, 3))}, r"found \(0, 3\), expected \(K, D\)"),
        ({"prototypes": VECTORS, "centers": CENTERS[:3]}, r"centers: found \(3, 2\), expected \(4, 2\)"),
        ({"prototypes": VECTORS, "counts": np.arange(3)}, r"counts: found \(3,\), expected \(4,\)"),
    ],
)
def test_files_that_hold_no_prototypes(arrays, message, tmp_path):
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_prototypes(tmp_path / "p.npz")


def test_what_is_no_npz(tmp_path):
    (tmp_path / "text.npz").write_text("just text")
    np.save(tmp_path / "one.npy", VECTORS)
    np.savez(tmp_path / "whole.npz", prototypes=VECTORS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:150])
    for name in ("text.npz", "one.npy", "cut.npz"):
        with pytest.raises(InputError, match=f"{name}: not readable as an npz"):
            read_prototypes(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_prototypes(tmp_path / "nowhere.npz")
    with pytest.raises(InputError, match="expected the output of: affect features"):
        read_features(tmp_path / "whole.npz")


def test_every_class_of_the_default_has_its_own_cell():
    names = [*ClassMap.load("ferplus").names, *ClassMap.load("affectnet").names]
    assert set(names) == set(ANCHORS)
    near = [np.linalg.norm(centers_of(5) - place, axis=1).argmin() for place in positions(tuple(ANCHORS), ANCHORS)]
    assert len(set(near)) == len(ANCHORS)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", "Happy: [1, 0.5]\nsad: [-1, -0.5]\n"), ("a.json", '{"joy": [1, 0.5], "sad": [-1, -0.5]}')],
)
def test_anchors_from_a_file(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert read_anchors(str(tmp_path / name)) == {"happiness": (1, 0.5), "sadness": (-1, -0.5)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("happy: [0.8]", r"found:\n  happy: \[0.8\]"),
        ("happy: [0.8, 1.2]", "found:"),
        ("happy: [.nan, 0]", "found:"),
        ("happy: [yes, 0]", "found:"),
        ("1: [0, 0]", "found:"),
        ("- happy", "expected {happiness"),
        ("", "expected {happiness"),
        ("a: [", "not readable as YAML or JSON"),
        ("happy: [0, 0]\njoy: [1, 1]", "2 names for 1 classes, happiness"),
    ],
)
def test_files_that_hold_no_anchors(text, message, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_anchors(str(tmp_path / "a.yaml"))
    with pytest.raises(InputError, match="not readable: No such file"):
        read_anchors(str(tmp_path / "nowhere.yaml"))


def test_grid_targets_of_a_worked_example():
    """One class at the first of two centres, .8 from the other; sigma .4, softness 5: logits 0 and -.64 / .32 / 5 = -.4."""
    target = grid_targets(["Happy"], np.array([[0.8, 0.4], [0.0, 0.4]]), {"happiness": (0.8, 0.4)})
    assert target[0] == pytest.approx([1 / (1 + np.exp(-0.4)), 1 / (1 + np.exp(0.4))], rel=1e-6)


def test_grid_targets_are_distributions_about_their_anchors():
    target = grid_targets(tuple(ANCHORS), centers_of(5), ANCHORS)
    assert target.shape == (8, 25) and target.dtype == np.float32
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)
    near = [np.linalg.norm(centers_of(5) - place, axis=1).argmin() for place in ANCHORS.values()]
    assert target.argmax(1).tolist() == near
    sharp = grid_targets(tuple(ANCHORS), centers_of(5), ANCHORS, sigma=0.1, softness=1.0)
    assert (sharp.max(1) > 2 * target.max(1)).all()
    with pytest.raises(InputError, match="class 'sleepy' has no place"):
        grid_targets(["sleepy"], centers_of(5), ANCHORS)


def test_the_loss_takes_them(rows, tmp_path):
    prototypes = make_prototypes(rows(), tmp_path / "p.npz")[0]
    target = torch.from_numpy(grid_targets(["neutral", "happy"], prototypes.centers, ANCHORS))
    loss = proto_kd(torch.eye(3)[:2], torch.from_numpy(prototypes.vectors), target)
    assert torch.isfinite(loss) and loss > 0
