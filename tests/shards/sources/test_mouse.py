"""Mice: the folder of the reference recipe, trials with levels, drawn ones, and parts of clips."""

import csv
import json
import pickle

import cv2
import numpy as np
import pandas as pd
import pytest

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.pack import pack
from affect.shards.selection import Fold, Selection
from affect.shards.sources.frames import chosen
from affect.shards.sources.mouse import MouseSource
from affect.shards.sources.mouse_folders import MouseFolders
from affect.shards.sources.mouse_trials import TrialsSource
from affect.shards.sources.parts import GRAY, Background, Sharpest, sharpness
from affect.shards.synthetic.mice import head_box, write_mice

ALL = chosen(all_frames=True)
FRAMES = 5


@pytest.fixture
def raw(tmp_path, picture):
    """Eight videos of four mice, their frames numbered 9 to 13; write(change, folds, form) -> the folder."""
    rows = []
    for video in range(8):
        for frame in range(FRAMES):
            path = tmp_path / "raw" / f"v{video}" / f"v{video}_{frame + 9}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture(24, 32, seed=100 * video + frame))
            rows.append({
                "image": f"v{video}/{path.name}", "video": f"v{video}", "mouse": f"m{video // 2}", "recording": f"r{video}",
                "treatment": ("saline", "shock")[video % 2], "label": video % 2,
            })  # fmt: skip

    def write(change=lambda rows: None, folds=None, form="csv", folder="raw"):
        changed = [dict(row) for row in rows]
        change(changed)
        place, table = tmp_path / folder, pd.DataFrame(changed)
        place.mkdir(exist_ok=True)
        writers = {
            "csv": lambda path: table.to_csv(path), "json": lambda path: path.write_text(table.to_json()),
            "pkl": lambda path: path.write_bytes(pickle.dumps(table)),
        }  # fmt: skip
        writers[form](place / f"dataset_df.{form}")
        for number, fold in enumerate(folds or []):
            if form == "pkl":
                (place / f"fold{number}.pkl").write_bytes(pickle.dumps(fold))
            else:
                (place / f"fold{number}.json").write_text(json.dumps(fold))
        return place

    return write


def sets(*videos):
    """A set of frames of each video, repeated and out of order, as in the reference recipe."""
    return [{"indices": [FRAMES * v + i for i in (3, 0, 3)], "label": v % 2} for v in videos]


HALVES = [{"train": sets(4, 5, 6, 7), "test": sets(0, 1, 2, 3)}, {"train": sets(0, 1, 2, 3), "test": sets(4, 5, 6, 7)}]


@pytest.mark.parametrize("form", ["csv", "json", "pkl"])
def test_videos_are_clips_in_the_order_of_their_frame_numbers(form, raw, tmp_path):
    folder = raw(lambda rows: rows.reverse() if form == "json" else None, None if form == "json" else HALVES, form)
    source = MouseSource(folder, ALL, fps=25)
    pack(source, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert len(dataset.column("path")) == 8 and set(dataset.column("num_frames")) == {FRAMES}
    assert [("out of order" in note) for note in source.notes] == ([True] if form == "json" else [])
    for row, video in enumerate(dataset.column("path")):
        for frame, data in enumerate(dataset.frames(row)):
            want = cv2.imread(str(folder / video / f"{video}_{frame + 9}.png"))
            np.testing.assert_array_equal(decode(data)[..., ::-1], want)
        number = int(video[1:])
        assert dataset.column("group")[row] == f"m{number // 2}" and dataset.column("meta.recording")[row] == f"r{number}"
        assert dataset.targets("stress")[row].tolist() == [1 - number % 2, number % 2]
        np.testing.assert_allclose(dataset.times_s(row), np.arange(FRAMES) / 25)
    if form != "json":
        val_rows = dataset.rows(Selection("val", fold=Fold(1, True, ("train", "val"))))
        assert {dataset.column("group")[row] for row in val_rows} == {"m2", "m3"}


def test_other_cohorts_are_test_under_their_names(raw, picture, tmp_path):
    def another(rows):
        for row in rows:
            row["mouse"] = f"x{row['mouse']}"

    def cohorts(rows):
        for row in rows:
            row["cohort"] = "pilot" if row["mouse"] == "m3" else "home"

    raw(another, folder="chronic")
    for video in range(8):  # the same pixels in two splits would be a leak
        for frame in range(FRAMES):
            path = tmp_path / "chronic" / f"v{video}" / f"v{video}_{frame + 9}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), picture(24, 32, seed=5000 + 100 * video + frame))
    folder = raw(cohorts, HALVES)
    source = MouseSource(folder, ALL, external={"chronic": tmp_path / "chronic"}, test_cohorts=["pilot"])
    info = pack(source, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert info.counts == {"test": 10, "train": 6}
    by = {name: set(dataset.column("split")[dataset.column("source") == name]) for name in ("home", "pilot", "chronic")}
    assert by == {"home": {"train"}, "pilot": {"test"}, "chronic": {"test"}}
    assert np.isnan(dataset.column("meta.fold")[dataset.column("split") == "test"]).all()
    with pytest.raises(InputError, match="--test-cohort home2: no video is of it; did you mean 'home'"):
        MouseSource(folder, ALL, test_cohorts=["home2"])


def cell(row, **values):
    return lambda rows: rows[row].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cell(7, mouse="m9"), "video 'v1' has mouse 'm0' and 'm9': two videos with one name"),
        (cell(7, image="v2/v2_9.png"), "video 'v1' has frames in v1 and v2: two videos with one name"),
        (cell(7, image="v1/v1_9.png"), "frame 9 of video 'v1' stands twice, in"),
        (cell(7, image="v1/first.png"), "image 'v1/first.png' has no frame number"),
        (cell(7, image=""), "image: found nothing"),
        (cell(7, label=2), r"label: found '2', expected 0, 1, baseline, stress or nothing"),
        (cell(7, label="relaxed"), "label: found 'relaxed'"),
        (lambda rows: [row.pop("mouse") for row in rows], "no column 'mouse'"),
        (lambda rows: [row.update(box_x=1) for row in rows], "a box has all of"),
        (lambda rows: [row.update(box_x=1, box_y=1, box_w=0, box_h=3) for row in rows], "box_w and box_h above 0"),
        (lambda rows: [row.update(image="lost/" + row["image"]) for row in rows], "none of the first 8 frames(?s:.*)--images"),
    ],
)  # fmt: skip
def test_wrong_tables_are_one_message(change, message, raw):
    with pytest.raises(InputError, match=message):
        MouseSource(raw(change), ALL)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([{"train": sets(0, 2), "test": sets(1)}], "1 mice are trained on and tested:\n  m0"),
        ([{"train": [{"indices": [99], "label": 0}], "test": []}], "the table has no row 99"),
        ([{"train": [{"indices": [0], "label": 1}], "test": []}], "label 1, but row 0 is 0"),
        ([{"train": [[0, 1]], "test": []}], "train 0: found"),
        ([{"train": []}], "expected {train"),
    ],
)
def test_wrong_folds_are_one_message(folds, message, raw):
    with pytest.raises(InputError, match=message):
        MouseSource(raw(folds=folds), ALL)


def test_folds_that_overlap_are_said_and_not_kept(raw):
    source = MouseSource(raw(folds=HALVES[:1]), ALL)
    assert "4 videos are tested in no fold" in source.notes[0] and source.fold_of == dict.fromkeys(("v0", "v1", "v2", "v3"), 0)
    unlabelled = {part: [{**entry, "label": None} for entry in entries] for part, entries in HALVES[0].items()}
    assert MouseSource(raw(folds=[unlabelled]), ALL).fold_of == source.fold_of
    source = MouseSource(raw(folds=[HALVES[0], HALVES[0]]), ALL)
    assert "tested in more than one fold (v0 in 0, 1)" in source.notes[0] and "fold" not in source.meta


@pytest.fixture
def folders(tmp_path, picture):
    """Two videos of each of two animals and labels, as folders of frames, in tmp_path/name; the seed tells them apart."""

    def write(name, seed=0):
        for number, (label, animal) in enumerate((label, animal) for label in ("Baseline", "stress") for animal in "ab"):
            for frame in range(3):
                path = tmp_path / name / label / f"{name}_{animal}" / "day1" / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture(24, 32, seed=seed + 10 * number + frame))
        return tmp_path / name

    return write


def test_labelled_folders_of_videos_are_clips(folders, tmp_path):
    pack(MouseFolders(folders("home"), ALL, external={"chronic": folders("far", 500)}, fps=10), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    columns = ("path", "group", "source", "split", "num_frames")
    result = {row[0]: row[1:] for row in zip(*(dataset.column(name).tolist() for name in columns), strict=True)}
    assert result["Baseline/home_a/day1"] == ("home_a", "home", "train", 3)
    assert result["chronic/stress/far_b/day1"] == ("far_b", "chronic", "test", 3) and len(result) == 8
    label = dict(zip(result, dataset.targets("stress")[:, 1].tolist(), strict=True))
    assert all(value == ("stress" in path) for path, value in label.items())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("strss/home_a/v.mp4", "1 have no place(?s:.*)strss; did you mean 'stress'"),
        ("stress/v.mp4", "1 have no place(?s:.*)stress/v.mp4: in no animal's folder"),
    ],
)
def test_folders_without_a_place_are_one_message(place, message, folders):
    root = folders("home")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).touch()
    with pytest.raises(InputError, match=message):
        MouseFolders(root, ALL)


def test_a_missing_frame_rejects_its_video_and_gaps_are_counted(raw, tmp_path):
    folder = raw(lambda rows: rows.pop(2))  # not listed: a gap
    (folder / "v3" / "v3_11.png").unlink()  # listed, and not there
    with pytest.raises(InputError, match=r"1 of 8 samples are unreadable(?s:.*)v3: v3_11.png: missing file"):
        pack(MouseSource(folder, ALL), tmp_path / "out")
    pack(MouseSource(folder, ALL), tmp_path / "out", max_rejects=0.2)
    dataset = Dataset(tmp_path / "out")
    gaps = dict(zip(dataset.column("path"), dataset.column("meta.gaps"), strict=True))
    assert "v3" not in gaps and gaps["v0"] == 1 and gaps["v1"] == 0
    np.testing.assert_array_equal(dataset.times_s(0), [0, 1, 3, 4])


def test_the_sharpest_frames_are_kept_in_their_order(raw, tmp_path):
    folder = raw()
    for frame in (9, 11, 12):
        path = folder / "v0" / f"v0_{frame}.png"
        cv2.imwrite(str(path), cv2.GaussianBlur(cv2.imread(str(path)), (9, 9), 0))
    pack(Sharpest(MouseSource(folder, ALL, fps=1), 2), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert set(dataset.column("num_frames")) == {2} and set(dataset.column("meta.left_out")) == {3}
    np.testing.assert_array_equal(dataset.times_s(0), [1, 4])
    sharpest = [sharpness(decode(data)) for data in dataset.frames(0)]
    assert dataset.column("meta.sharpness")[0] == np.float32(min(sharpest))


def test_the_background_is_all_but_the_box(raw, tmp_path):
    folder = raw(lambda rows: [row.update(box_x=4, box_y=2, box_w=8, box_h=6) for row in rows])
    pack(MouseSource(folder, ALL), tmp_path / "cut")
    pack(Background(MouseSource(folder, ALL)), tmp_path / "around")
    cut, around = (decode(Dataset(tmp_path / name).frames(0)[0]) for name in ("cut", "around"))
    whole = cv2.imread(str(folder / "v0" / "v0_9.png"))[..., ::-1]
    np.testing.assert_array_equal(cut, whole[2:8, 4:12])
    assert (around[2:8, 4:12] == GRAY).all()
    np.testing.assert_array_equal(np.delete(around, range(2, 8), 0), np.delete(whole, range(2, 8), 0))
    with pytest.raises(InputError, match="v0: no box"):
        pack(Background(MouseSource(raw(), ALL)), tmp_path / "none")


def trials(folder, **options):
    return TrialsSource(folder, folder / "labels.csv", ALL, **options)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """drawn(cue) -> 32 clips of 4 animals."""
    folders = {}

    def draw(cue, **options):
        key = (cue, *sorted(options))
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("drawn") / cue
            write_mice(folders[key], 40, 4, cue=cue, size=32, frames=8, seed=3, **options)
        return folders[key]

    return draw


def rows_of(folder):
    with (folder / "labels.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_levels_become_stress_level_and_score(drawn, tmp_path):
    pack(trials(drawn("levels")), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert dataset.info.layout.output("level").names == ("0uA", "50uA", "150uA", "300uA", "500uA")
    level, stress = dataset.targets("score")[:, 0], dataset.targets("stress")
    np.testing.assert_array_equal(dataset.targets("level").argmax(1), level)
    np.testing.assert_array_equal(np.isnan(stress).any(1), (level == 1) | (level == 2))
    np.testing.assert_array_equal(stress[:, 1] == 1, level >= 3)
    assert set(dataset.column("meta.stimulus_s")) == {np.float32(2 / 20)} and dataset.times_s(0)[2] == np.float32(2 / 20)
    assert dataset.info.layout.first_classes.name == "stress"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("intensity", "strength"), "no column 'intensity' or 'level'"),
        (
            lambda text: text.replace(",4,4,500,", ",4,4,400,", 1),
            "level 4 is 500uA, and was 400uA before|level 4 is 400uA, and was",
        ),
        (lambda text: text.replace(",4,4,500,", ",4.5,4,500,", 1), "intensity: found '4.5', expected 0, 1, 2"),
        (lambda text: "\n".join(line for line in text.splitlines() if ",0,0,0," not in line), "levels 1, 2, 3, 4; stress is 3"),
    ],
)
def test_wrong_trials_are_one_message(change, message, drawn, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "labels.csv").write_text(change((drawn("levels") / "labels.csv").read_text()))
    with pytest.raises(InputError, match=message):
        trials(folder)


def test_the_real_trials_are_read(real, tmp_path):
    source = trials(real / "mouse")
    samples = list(source.samples())
    assert len(samples) == 120 and source.level.names == ("0uA", "50uA", "150uA", "300uA", "500uA")
    assert len({sample.group for sample in samples}) == 4 and {sample.meta["sex"] for sample in samples} == {"M", "F"}
    assert sum("stress.stress" in sample.targets for sample in samples) == 72
    assert {sample.meta["stimulus_s"] for sample in samples} == {2.0}
    assert [sample.meta["session_position"] for sample in samples[:30]] == list(range(30))


def pictures(folder, row):
    return np.stack([cv2.imread(str(path), 0).astype(float) for path in sorted((folder / row["clip"]).iterdir())])


def test_in_ordered_clips_only_the_order_tells(drawn):
    """Means over a clip's frames are alike in both classes; the last frame less the first is not."""
    folder = drawn("order")
    shown, high = zip(*((pictures(folder, row), row["intensity"] == "4") for row in rows_of(folder)), strict=True)
    high, means = np.array(high), np.array([clip.mean() for clip in shown])
    gap = abs(means[high].mean() - means[~high].mean())
    assert gap < 2 * means.std() / np.sqrt(len(means) / 4)
    turned = np.array([np.abs(clip[-1] - clip[0]).mean() for clip in shown])
    assert turned.min() > 1
    ways = np.stack([clip[-1] - clip[0] for clip in shown])
    axis = ways[high].mean(0) - ways[~high].mean(0)
    sides = (ways * axis).sum((1, 2))
    assert (sides[high] > 0).all() and (sides[~high] < 0).all()


def test_the_shortcut_is_in_one_cohort_alone(drawn):
    folder = drawn("shortcut")
    result = {}
    for row in rows_of(folder):
        result.setdefault((row["source"], row["split"] == "test", row["intensity"]), []).append(
            pictures(folder, row)[0, :3].mean()
        )
    assert set(result) == {("home", False, "0"), ("home", False, "4"), ("external", True, "0"), ("external", True, "4")}
    assert max(result["home", False, "0"]) < min(result["home", False, "4"])
    assert max(result["external", True, "0"]) > min(result["external", True, "4"])
    x, y, width, height = head_box(32)
    assert 0 < x < x + width < 32 and 0 < y < y + height < 32


def test_flipped_labels_are_in_train_alone_and_kept_beside(drawn):
    flipped = [row for row in rows_of(drawn("order", flip_labels=0.3)) if row["intensity"] != row["true_intensity"]]
    train = [row for row in rows_of(drawn("order", flip_labels=0.3)) if row["split"] == "train"]
    assert {row["split"] for row in flipped} == {"train"} and 0.1 < len(flipped) / len(train) < 0.5


def test_the_head_stays_in_its_box(drawn):
    folder = drawn("levels")
    x, y, width, height = head_box(32)
    for row in rows_of(folder)[:10]:
        shown = pictures(folder, row)
        shown[:, y : y + height, x : x + width] = np.nan
        assert np.nanstd(shown) < 12  # noise, and the JPEG


def test_drawn_twice_is_the_same(drawn, tmp_path):
    write_mice(tmp_path / "again", 40, 4, cue="levels", size=32, frames=8, seed=3)
    one, other = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (drawn("levels"), tmp_path / "again"))
    assert one == other
