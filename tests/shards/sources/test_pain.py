"""Cattle sequences: scores in the scale's order, animals held out as the split file says, nothing odd in silence."""

import json
import shutil

import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.pack import pack
from affect.shards.selection import Fold, Selection
from affect.shards.sources.frames import chosen
from affect.shards.sources.pain import FEATURES, NRS, TOTAL, PainSource
from affect.shards.synthetic.cattle import LABELS, SPLITS, TRUTH, write_cattle
from affect.shards.verify import verify


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """25 clips of 5 animals, 48 px, 6 frames."""
    folder = tmp_path_factory.mktemp("cattle") / "raw"
    write_cattle(folder, animals=5, clips=25, size=48, frames=6, seed=3)
    return folder


@pytest.fixture
def raw(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "raw")


def source(folder, **options):
    return PainSource(folder / LABELS, folder, folder / SPLITS, chosen(4), **options)


def changed(folder, name, change):
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def test_scores_states_and_folds_are_those_of_the_files(drawn, tmp_path):
    info = pack(source(drawn, fps=25), tmp_path / "out")
    dataset = verify(tmp_path / "out")
    assert info.layout.columns[:8] == (*(f"pain.{name}" for name in FEATURES), "pain.total")
    assert info.layout.columns[8:] == ("state.no_pain", "state.acute", "state.residual")
    assert info.counts == {"train": 20, "test": 5} and set(dataset.column("num_frames")) == {4}
    entries = {entry["sequence_path"]: entry for entry in json.loads((drawn / LABELS).read_text())["sequences"]}
    splits = json.loads((drawn / SPLITS).read_text())
    fold_of = {animal: fold["fold"] for fold in splits["cv_folds"] for animal in fold["val_animals"]}
    scores, states = dataset.targets("pain"), dataset.targets("state").argmax(1)
    for row, path in enumerate(dataset.column("path")):
        entry = entries[path]
        assert scores[row].tolist() == [*(entry[name] for name in FEATURES), entry[TOTAL]]
        assert states[row] == {"M0": 0, "M1": 0, "M2": 1, "M3": 2, "M4": 2}[entry["moment"]]
        assert dataset.column("group")[row] == entry["animal"] and dataset.column("meta.nrs")[row] == entry[NRS]
        fold = dataset.column("meta.fold")[row]
        assert np.isnan(fold) if entry["animal"] in splits["test_animals"] else fold == fold_of[entry["animal"]]


def test_a_fold_selects_its_animals_and_never_the_test_animals(drawn, tmp_path):
    pack(source(drawn), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    val_rows, train_rows = (
        dataset.rows(Selection(split, fold=Fold(1, held_out, ("train", "val"))))
        for split, held_out in (("val", True), ("train", False))
    )
    assert set(dataset.column("group")[val_rows]) == {"cow01"} and len(val_rows) == 5
    assert set(dataset.column("group")[train_rows]) == {"cow00", "cow02", "cow03"} and len(train_rows) == 15


def test_what_is_missing_is_not_labelled_and_odd_totals_are_said(raw, tmp_path):
    def change(value):
        first, second, third = value["sequences"][:3]
        first[FEATURES[2]], second[TOTAL], third[TOTAL] = None, float("nan"), 14
        third["num_frames"] = 9

    changed(raw, LABELS, change)
    odd = source(raw)
    assert ["1 of 25 totals" in odd.notes[0], "2 of 25 sequences lack" in odd.notes[1]] == [True, True]
    assert "6 pictures, num_frames 9" in odd.notes[2] and len(odd.notes) == 3
    pack(odd, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    first = json.loads((raw / LABELS).read_text())["sequences"][0]["sequence_path"]
    row = dataset.column("path").tolist().index(first)
    assert np.flatnonzero(np.isnan(dataset.targets("pain")[row])).tolist() == [2]


@pytest.mark.parametrize("before", ["C:\\data\\raw\\", "/content/drive/raw/", "raw/", ""])
def test_paths_of_another_computer_are_found_by_their_end(before, raw, tmp_path):
    def change(value):
        for entry in value["sequences"]:
            path = before + entry["sequence_path"]
            entry["sequence_path"] = path.replace("/", "\\") if "\\" in before else path

    changed(raw, LABELS, change)
    assert pack(source(raw), tmp_path / "out").num_samples == 25


def test_a_missing_clip_is_rejected_with_its_reason_and_none_is_an_error(raw, tmp_path):
    shutil.rmtree(raw / "cow02" / "M2")
    with pytest.raises(InputError, match=r"1 of 25 samples are unreadable.*\n.*cow02/M2/.*: missing file"):
        pack(source(raw), tmp_path / "out")
    assert pack(source(raw), tmp_path / "out", max_rejects=0.1).dropped["rejected"] == 1
    with pytest.raises(InputError, match="none of the first 20 sequences is there"):
        PainSource(raw / LABELS, tmp_path, raw / SPLITS, chosen(4))


def entry(number, **values):
    return lambda value: value["sequences"][number].update(values)


def without(number, key):
    return lambda value: value["sequences"][number].pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry(3, Cheek_tightening=3), "sequence 3: Cheek_tightening: found 3, expected a number from 0 to 2, or null"),
        (entry(3, Cheek_tightening="two"), 'found "two", expected a number'),
        (entry(3, Cheek_tightening=True), "found true, expected a number"),
        (entry(3, **{TOTAL: 15}), r"Total\.Facial\.scale: found 15, expected a number from 0 to 14"),
        (entry(3, moment="M7"), "moment: found 'M7', expected one of M0, M1, M2, M3, M4"),
        (entry(3, animal="cow99"), "1 animals of .* are in no list of it:\n  cow99"),
        (without(4, "Ears_frontal"), "sequence 4: no 'Ears_frontal'"),
        (lambda value: value["sequences"].append(value["sequences"][0]), "stands in sequence 0, too"),
        (lambda value: value["sequences"].clear(), "found no sequences"),
        (lambda value: value.update(sequence=value.pop("sequences")), "no list 'sequences'; did you mean 'sequence'"),
    ],
)
def test_wrong_sequences_are_one_message(change, message, raw):
    changed(raw, LABELS, change)
    with pytest.raises(InputError, match=message):
        source(raw)


def fold(number, **values):
    return lambda value: value["cv_folds"][number].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fold(1, val_animals=["cow00"], train_animals=[]), "cow00 is in val_animals of folds 0 and 1"),
        (fold(1, train_animals=["cow01", "cow02"]), "fold 1: cow01 is in val_animals and in train_animals"),
        (fold(1, train_animals=["cow04"]), "fold 1: cow04 is one of test_animals, too"),
        (fold(1, fold=0), "found fold 0 at 1, expected whole numbers, each once"),
        (fold(1, val_animals=[]), "fold 1: no val_animals"),
        (lambda value: value.pop("cv_folds"), "no list 'cv_folds'"),
        (lambda value: value.update(cv_folds=[], test_animals=[f"cow0{i}" for i in range(5)]), "nothing is left to train on"),
    ],
)
def test_wrong_folds_are_one_message(change, message, raw):
    changed(raw, SPLITS, change)
    with pytest.raises(InputError, match=message):
        source(raw)


def test_odd_folds_are_said(raw):
    def change(value):
        value["cv_folds"][0].update(val_animals=["cow77"], train_animals=["cow01", "cow02"])

    changed(raw, SPLITS, change)
    changed(raw, SPLITS, lambda value: value["cv_folds"][1].update(train_animals=["cow00", "cow02", "cow03"]))
    notes = "\n".join(source(raw).notes)
    assert "1 animals validate in no fold, and train in all: cow00" in notes and "have no sequence: cow77" in notes
    assert "fold 0: cow00, cow03" in notes


def test_drawn_twice_is_the_same_and_the_features_show(drawn, tmp_path):
    write_cattle(tmp_path / "again", animals=5, clips=25, size=48, frames=6, seed=3)
    assert {p.relative_to(drawn): p.read_bytes() for p in drawn.rglob("*.j*")} == {
        p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*.j*")
    }
    from affect.shards.synthetic.cattle import _animal, _drawn

    rest = np.array([0.5] * 7 + [0, 0, 0, 0, 1.0])
    for animal in (_animal(3, number) for number in range(5)):
        for feature in range(7):
            more = rest.copy()
            more[feature] = 1.5
            assert np.abs(_drawn(animal, more, 112).astype(int) - _drawn(animal, rest, 112)).max() > 25


def test_drawn_videos_hold_what_the_folders_hold(drawn, tmp_path):
    done = write_cattle(tmp_path / "mp4", animals=5, clips=5, size=48, frames=6, seed=3, form="mp4")
    pack(PainSource(done.labels, tmp_path / "mp4", done.splits, chosen(6)), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    folder = drawn / dataset.column("path")[0].removesuffix(".mp4")
    for stored, path in zip(dataset.frames(0), sorted(folder.iterdir()), strict=True):
        assert np.abs(decode(stored).astype(int) - decode(path.read_bytes())).mean() < 8
    assert np.allclose(dataset.times_s(0), np.arange(6) / 25)


def test_who_knows_the_latent_features_does_better_than_the_moments(tmp_path):
    done = write_cattle(tmp_path / "raw", animals=20, clips=386, size=8, frames=1)
    assert 0.8 < done.oracle_r2 < 0.95 and 0.3 < done.moment_r2 < done.oracle_r2 - 0.2
    assert len(json.loads((tmp_path / "raw" / TRUTH).read_text())["latent"]) == 386
    splits = json.loads((tmp_path / "raw" / SPLITS).read_text())
    assert len(splits["test_animals"]) == 2 and [len(fold["val_animals"]) for fold in splits["cv_folds"]] == [2] * 9
