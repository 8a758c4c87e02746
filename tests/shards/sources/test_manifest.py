"""Manifest CSVs: every spelling gives the same samples, and what else a row says reaches them."""

import cv2
import numpy as np
import pytest

from affect.shards.class_maps import ClassMap
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.pack import pack
from affect.shards.sources.manifest import ManifestSource
from affect.shards.sources.table import BOX, LABELS, NAMES, PATHS

FER = ClassMap.load("fer")


def table(header="image_path,label,split", *, labels=("happy", "Sad", "happiness"), rest=("train", "val", "test")):
    return [header] + [f"pictures/{i}.png,{label},{r}" for i, (label, r) in enumerate(zip(labels, rest, strict=True))]


def seen(source):
    """What of the samples must not depend on how the CSV spells it."""
    return [(s.image, s.split, [name for name, value in s.targets.items() if value]) for s in source.samples()]


@pytest.fixture
def want(write_csv):
    result = seen(ManifestSource([write_csv(table(), "want.csv")]))
    assert [(split, names) for _, split, names in result] == [
        ("train", ["emotion.happiness"]),
        ("val", ["emotion.sadness"]),
        ("test", ["emotion.happiness"]),
    ]
    return result


@pytest.mark.parametrize("alias", PATHS)
def test_every_name_of_the_path_column(alias, write_csv, want):
    assert seen(ManifestSource([write_csv(table(f"{alias},label,split"))])) == want


@pytest.mark.parametrize("alias", LABELS + NAMES)
def test_every_name_of_the_label_column(alias, write_csv, want):
    assert seen(ManifestSource([write_csv(table(f"image_path,{alias},split"))])) == want


@pytest.mark.parametrize("alias", LABELS)
@pytest.mark.parametrize("ids", [("3", "4", "3"), ("3.0", "4.0", "3.0")], ids=["whole", "as pandas writes"])
def test_ids_and_names_give_the_same(alias, ids, write_csv):
    names = seen(ManifestSource([write_csv(table(), "names.csv")], class_map=FER))
    assert seen(ManifestSource([write_csv(table(f"image_path,{alias},split", labels=ids))], class_map=FER)) == names


@pytest.mark.parametrize("names", [("training", "valid", "testing"), ("Train", "VAL", "Test"), ("train", "validation", "test")])
def test_every_name_of_a_split(names, write_csv, want):
    assert seen(ManifestSource([write_csv(table(rest=names))])) == want


@pytest.mark.parametrize(
    "change",
    {
        "bom": lambda text: b"\xef\xbb\xbf" + text,
        "crlf": lambda text: text.replace(b"\n", b"\r\n"),
        "blank lines": lambda text: text.replace(b"\n", b"\n\n") + b"\n\n",
        "quotes and spaces": lambda text: text.replace(b",happy", b', "happy"').replace(b", ", b",").replace(b",val", b", val "),
        "capital header": lambda text: text.replace(b"image_path,label", b"Image_Path,LABEL"),
        "backslashes": lambda text: text.replace(b"pictures/", b"pictures\\"),
        "more columns": lambda text: text.replace(b"\n", b",x\n") + b",x",
    }.values(),
)
def test_harmless_differences(change, write_csv, want):
    assert seen(ManifestSource([write_csv(change("\n".join(table()).encode()))])) == want


@pytest.mark.parametrize(("delimiter", "argument"), [(";", ";"), ("\t", "tab"), ("\t", "\\t"), ("\t", "\t")])
def test_another_delimiter_is_named_and_taken(delimiter, argument, write_csv, want):
    path = write_csv("\n".join(table()).replace(",", delimiter).encode())
    with pytest.raises(InputError, match="between the columns, expected ','; pass --delimiter"):
        ManifestSource([path])
    assert seen(ManifestSource([path], delimiter=argument)) == want


@pytest.mark.parametrize("where", ["absolute", "root"])
def test_where_paths_start(where, write_csv, want, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    start = f"{tmp_path}/pictures/" if where == "absolute" else "pictures/"
    path = write_csv("\n".join(table()).replace("pictures/", start).encode(), "elsewhere/faces.csv")
    assert seen(ManifestSource([path], root=tmp_path if where == "root" else None)) == want


def test_csvs_of_different_class_orders_meet_by_name(write_csv):
    ids = write_csv(table(labels=("0", "1", "5")), "ids.csv")
    names = write_csv(table(labels=("surprised", "Happy", "NEUTRAL")), "names.csv")
    source = ManifestSource(
        [ids, names], class_map=ClassMap.load("affectnet"), classes=["surprise", "happy", "disgust", "neutral"]
    )
    assert source.output.names == ("surprise", "happiness", "disgust", "neutral")
    want = ["neutral", "happiness", "disgust", "surprise", "happiness", "neutral"]
    assert [result for _, _, result in seen(source)] == [[f"emotion.{name}"] for name in want]
    assert [s.source for s in source.samples()] == ["ids"] * 3 + ["names"] * 3
    assert sorted(source.fingerprint()) == ["ids.csv", "names.csv"]


def test_classes_are_those_of_the_rows_sorted(write_csv):
    assert ManifestSource([write_csv(table(labels=("sad", "Calm", "calm")))]).output.names == ("Calm", "sadness")


def test_splits_where_the_csv_has_none(write_csv):
    lines = ["path,label", "pictures/0.png,a", *(f"pictures/x{i}.png,{('a', 'b')[i % 2]}" for i in range(200))]
    by_path = [s.split for s in ManifestSource([write_csv(lines)], val=0.3).samples()]
    assert by_path == [s.split for s in ManifestSource([write_csv(lines)], val=0.3).samples()]
    assert 40 < by_path.count("val") < 80 and set(by_path) == {"train", "val"}
    assert {s.split for s in ManifestSource([write_csv(lines)], split="testing").samples()} == {"test"}


def test_faces_of_one_picture_stay_together(write_csv):
    """Whether they are cut out already or by a box; a picture of its own is drawn by its path, as without orig_image."""
    header = f"path,label,orig_image,{','.join(BOX)}"
    cut = [f"pictures/{i % 3}.png,{('a', 'b')[i % 2]},scene{i // 4}.jpg,,,," for i in range(200)]
    boxed = [f"pictures/b{i // 4}.png,a,,{i % 4},1,9,9" for i in range(200)]
    rows_alone = [f"pictures/x{i}.png,a" for i in range(200)]
    path = write_csv([header, *cut, *boxed, *(f"{row},x{i}.jpg,,,," for i, row in enumerate(rows_alone))])
    samples = list(ManifestSource([path], val=0.3).samples())
    for part in (samples[:200], samples[200:400]):
        splits = [{s.split for s in part[i : i + 4]} for i in range(0, 200, 4)]
        assert all(len(split) == 1 for split in splits) and 5 < splits.count({"val"}) < 25
    bare = ManifestSource([write_csv(["path,label", "pictures/0.png,b", *rows_alone])], val=0.3)
    assert [s.split for s in samples[400:]] == [s.split for s in bare.samples()][1:]


def test_faces_of_one_picture_are_carved_together_and_are_no_leak(write_csv, tmp_path):
    for i in range(40):
        cv2.imwrite(str(tmp_path / "pictures" / f"s{i // 4}_f{i % 4}.png"), np.full((8, 8, 3), (i, 9, 9)))
    rows = [
        f"pictures/s{i // 4}_f{i % 4}.png,{('a', 'b')[i % 2]},{'train' if i % 4 == 3 else 'val'},s{i // 4}.jpg" for i in range(40)
    ]
    pack(ManifestSource([write_csv(["path,label,split,orig_image", *rows])]), tmp_path / "out", calib=0.5)
    packed = Dataset(tmp_path / "out")
    held_out = {(scene, split) for scene, split in zip(*map(packed.column, ("meta.orig_image", "split")), strict=True)}
    assert len(held_out) == 20 and {split for _, split in held_out} == {"train", "val", "calib"}


def test_equal_pictures_of_two_origins_are_carved_together(write_csv, tmp_path):
    rows = [f"pictures/{i % 3}.png,{('a', 'b')[i % 2]},val,scene{i}.jpg" for i in range(60)]
    rows += [f"pictures/x{i}.png,a,val,x{i}.jpg" for i in range(20)]
    for i in range(20):
        cv2.imwrite(str(tmp_path / "pictures" / f"x{i}.png"), np.full((8, 8, 3), (i, 9, 9)))
    pack(ManifestSource([write_csv(["path,label,split,orig_image", *rows])]), tmp_path / "out", calib=0.5)
    packed = Dataset(tmp_path / "out")
    assert {"val", "calib"} == set(packed.column("split"))


def test_what_else_a_row_says(write_csv):
    header = "image_path,label,source,confidence,weight,neg_label,orig_image,face_id"
    rows = ["pictures/0.png,happy,ExpW,0.5,2,sad,scene.jpg,7", "pictures/1.png,sad,,1,1,,,"]
    source = ManifestSource([write_csv([header, *rows])])
    full, bare = source.samples()
    assert (full.source, full.confidence, full.weight) == ("ExpW", 0.5, 2)
    assert full.meta == {"neg_label": "sadness", "orig_image": "scene.jpg", "face_id": "7"}
    assert (bare.source, bare.meta, bare.box) == ("faces", {}, None)
    assert source.meta == {"neg_label": str, "orig_image": str, "face_id": str}


@pytest.mark.parametrize(
    ("row", "margin", "want"),
    [
        ("10,20,50,30,", 0, (10, 20, 30, 50)),
        ("10,20,50,30,", 0.1, (7, 17, 33, 53)),  # a tenth of the longer side, 30
        ("0,0,60,40.5,0.png", 0.1, (-6, -6, 46.5, 66)),  # clipped at packing
        (",,,,", 0.1, None),
        ("10,20,50,30,scene.png", 0, (10, 20, 30, 50)),
        ("500,500,600,600,pictures.png", 0, (500, 500, 600, 600)),
    ],
)
def test_box_with_margin(row, margin, want, write_csv):
    header = "image_path,label,bbox_top,bbox_left,bbox_right,bbox_bottom,orig_image"
    source = ManifestSource([write_csv([header, f"pictures/0.png,happy,{row}", "pictures/1.png,sad,,,,,"])], margin=margin)
    assert next(source.samples()).box == (want if want is None else pytest.approx(want))


def test_a_face_that_is_cut_out_already_is_not_cut_again(write_csv, tmp_path):
    (tmp_path / "pictures" / "0.png").rename(tmp_path / "pictures" / "scene_f0.png")
    header = "image_path,label,bbox_top,bbox_left,bbox_right,bbox_bottom,orig_image"
    rows = ["pictures/scene_f0.png,happy,300,300,400,400,scene.png", "pictures/1.png,sad,1,1,9,9,1.png"]
    assert [s.box for s in ManifestSource([write_csv([header, *rows])]).samples()] == [None, (1, 1, 9, 9)]


def test_packed_as_listed(write_csv, tmp_path):
    lines = ["path,label,split,neg_label,bbox_top,bbox_left,bbox_right,bbox_bottom", "pictures/0.png,happy,train,sad,5,10,30,25"]
    pack(ManifestSource([write_csv([*lines, "pictures/1.png,sad,val,,,,,"])]), tmp_path / "out")
    packed = Dataset(tmp_path / "out")
    rows = {path: i for i, path in enumerate(packed.column("path"))}
    whole = cv2.imread(str(tmp_path / "pictures" / "0.png"))[..., ::-1]
    assert (decode(packed.image(rows["pictures/0.png"])) == whole[5:25, 10:30]).all()
    assert packed.column("meta.neg_label")[rows["pictures/0.png"]] == "sadness"
    assert packed.info.layout.output("emotion").names == ("happiness", "sadness")


def test_low_confidence_is_counted(write_csv):
    lines = table("path,label,confidence", rest=("0.2", "0.9", "0.5"))
    source = ManifestSource([write_csv(lines)], confidence_min=0.5)
    for _ in range(2):
        assert len(list(source.samples())) == 2
        assert source.filtered == {"confidence below 0.5": 1}
