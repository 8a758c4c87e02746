"""Manifest CSVs: every spelling gives the same samples, every fault is named by its line, nothing is lost in silence."""

import json

import cv2
import numpy as np
import pytest

from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.read import Dataset
from affect.shards.sources.manifest import ManifestSource
from affect.shards.sources.table import BOX, LABELS, NAMES, PATHS
from affect.shards.write import pack

FER = ClassMap.load("fer")


@pytest.fixture
def write(tmp_path, picture):
    """write(lines, name) -> the CSV's path, beside pictures/0.png ... 2.png of 40 x 60 pixels."""
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "pictures" / f"{i}.png"), picture(40, 60, seed=i))

    def write(text, name="faces.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else "\n".join(text).encode())
        return path

    return write


def table(header="image_path,label,split", *, labels=("happy", "Sad", "happiness"), rest=("train", "val", "test")):
    return [header] + [f"pictures/{i}.png,{label},{r}" for i, (label, r) in enumerate(zip(labels, rest, strict=True))]


def seen(source):
    """What of the samples must not depend on how the CSV spells it."""
    return [(s.image, s.split, [name for name, value in s.targets.items() if value]) for s in source.samples()]


@pytest.fixture
def want(write):
    found = seen(ManifestSource([write(table(), "want.csv")]))
    assert [(split, names) for _, split, names in found] == [
        ("train", ["emotion.happiness"]),
        ("val", ["emotion.sadness"]),
        ("test", ["emotion.happiness"]),
    ]
    return found


@pytest.mark.parametrize("alias", PATHS)
def test_every_name_of_the_path_column(alias, write, want):
    assert seen(ManifestSource([write(table(f"{alias},label,split"))])) == want


@pytest.mark.parametrize("alias", LABELS + NAMES)
def test_every_name_of_the_label_column(alias, write, want):
    assert seen(ManifestSource([write(table(f"image_path,{alias},split"))])) == want


@pytest.mark.parametrize("alias", LABELS)
@pytest.mark.parametrize("ids", [("3", "4", "3"), ("3.0", "4.0", "3.0")], ids=["whole", "as pandas writes"])
def test_ids_and_names_give_the_same(alias, ids, write):
    names = seen(ManifestSource([write(table(), "names.csv")], class_map=FER))
    assert seen(ManifestSource([write(table(f"image_path,{alias},split", labels=ids))], class_map=FER)) == names


@pytest.mark.parametrize("names", [("training", "valid", "testing"), ("Train", "VAL", "Test"), ("train", "validation", "test")])
def test_every_name_of_a_split(names, write, want):
    assert seen(ManifestSource([write(table(rest=names))])) == want


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
def test_harmless_differences(change, write, want):
    assert seen(ManifestSource([write(change("\n".join(table()).encode()))])) == want


@pytest.mark.parametrize(("delimiter", "argument"), [(";", ";"), ("\t", "tab"), ("\t", "\\t"), ("\t", "\t")])
def test_another_delimiter_is_named_and_taken(delimiter, argument, write, want):
    path = write("\n".join(table()).replace(",", delimiter).encode())
    with pytest.raises(InputError, match="between the columns, expected ','; pass --delimiter"):
        ManifestSource([path])
    assert seen(ManifestSource([path], delimiter=argument)) == want


@pytest.mark.parametrize("where", ["absolute", "root"])
def test_where_paths_start(where, write, want, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    start = f"{tmp_path}/pictures/" if where == "absolute" else "pictures/"
    path = write("\n".join(table()).replace("pictures/", start).encode(), "elsewhere/faces.csv")
    assert seen(ManifestSource([path], root=tmp_path if where == "root" else None)) == want


def test_csvs_of_different_class_orders_meet_by_name(write):
    ids = write(table(labels=("0", "1", "5")), "ids.csv")
    names = write(table(labels=("surprised", "Happy", "NEUTRAL")), "names.csv")
    source = ManifestSource(
        [ids, names], class_map=ClassMap.load("affectnet"), classes=["surprise", "happy", "disgust", "neutral"]
    )
    assert source.emotion.names == ("surprise", "happiness", "disgust", "neutral")
    want = ["neutral", "happiness", "disgust", "surprise", "happiness", "neutral"]
    assert [found for _, _, found in seen(source)] == [[f"emotion.{name}"] for name in want]
    assert [s.source for s in source.samples()] == ["ids"] * 3 + ["names"] * 3
    assert sorted(source.fingerprint()) == ["ids.csv", "names.csv"]


def test_classes_are_those_of_the_rows_sorted(write):
    assert ManifestSource([write(table(labels=("sad", "Calm", "calm")))]).emotion.names == ("Calm", "sadness")


def test_splits_where_the_csv_has_none(write):
    lines = ["path,label", "pictures/0.png,a", *(f"pictures/x{i}.png,{('a', 'b')[i % 2]}" for i in range(200))]
    by_path = [s.split for s in ManifestSource([write(lines)], val=0.3).samples()]
    assert by_path == [s.split for s in ManifestSource([write(lines)], val=0.3).samples()]
    assert 40 < by_path.count("val") < 80 and set(by_path) == {"train", "val"}
    assert {s.split for s in ManifestSource([write(lines)], split="testing").samples()} == {"test"}


def test_faces_of_one_picture_stay_together(write):
    """Whether they are cut out already or by a box; a picture of its own is drawn by its path, as without orig_image."""
    header = f"path,label,orig_image,{','.join(BOX)}"
    cut = [f"pictures/{i % 3}.png,{('a', 'b')[i % 2]},scene{i // 4}.jpg,,,," for i in range(200)]
    boxed = [f"pictures/b{i // 4}.png,a,,{i % 4},1,9,9" for i in range(200)]
    own = [f"pictures/x{i}.png,a" for i in range(200)]
    samples = list(
        ManifestSource([write([header, *cut, *boxed, *(f"{row},x{i}.jpg,,,," for i, row in enumerate(own))])], val=0.3).samples()
    )
    for part in (samples[:200], samples[200:400]):
        splits = [{s.split for s in part[i : i + 4]} for i in range(0, 200, 4)]
        assert all(len(split) == 1 for split in splits) and 5 < splits.count({"val"}) < 25
    bare = ManifestSource([write(["path,label", "pictures/0.png,b", *own])], val=0.3)
    assert [s.split for s in samples[400:]] == [s.split for s in bare.samples()][1:]


def test_faces_of_one_picture_are_carved_together_and_are_no_leak(write, tmp_path):
    for i in range(40):
        cv2.imwrite(str(tmp_path / "pictures" / f"s{i // 4}_f{i % 4}.png"), np.full((8, 8, 3), (i, 9, 9)))
    rows = [
        f"pictures/s{i // 4}_f{i % 4}.png,{('a', 'b')[i % 2]},{'train' if i % 4 == 3 else 'val'},s{i // 4}.jpg" for i in range(40)
    ]
    pack(ManifestSource([write(["path,label,split,orig_image", *rows])]), tmp_path / "out", calib=0.5)
    packed = Dataset(tmp_path / "out")
    held_out = {(scene, split) for scene, split in zip(*map(packed.column, ("meta.orig_image", "split")), strict=True)}
    assert len(held_out) == 20 and {split for _, split in held_out} == {"train", "val", "calib"}


def test_equal_pictures_of_two_origins_are_carved_together(write, tmp_path):
    rows = [f"pictures/{i % 3}.png,{('a', 'b')[i % 2]},val,scene{i}.jpg" for i in range(60)]
    rows += [f"pictures/x{i}.png,a,val,x{i}.jpg" for i in range(20)]
    for i in range(20):
        cv2.imwrite(str(tmp_path / "pictures" / f"x{i}.png"), np.full((8, 8, 3), (i, 9, 9)))
    pack(ManifestSource([write(["path,label,split,orig_image", *rows])]), tmp_path / "out", calib=0.5)
    packed = Dataset(tmp_path / "out")
    assert {"val", "calib"} == set(packed.column("split"))


def test_what_else_a_row_says(write):
    header = "image_path,label,source,confidence,weight,neg_label,orig_image,face_id"
    rows = ["pictures/0.png,happy,ExpW,0.5,2,sad,scene.jpg,7", "pictures/1.png,sad,,1,1,,,"]
    source = ManifestSource([write([header, *rows])])
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
def test_box_with_margin(row, margin, want, write):
    header = "image_path,label,bbox_top,bbox_left,bbox_right,bbox_bottom,orig_image"
    source = ManifestSource([write([header, f"pictures/0.png,happy,{row}", "pictures/1.png,sad,,,,,"])], margin=margin)
    assert next(source.samples()).box == (want if want is None else pytest.approx(want))


def test_a_face_that_is_cut_out_already_is_not_cut_again(write, tmp_path):
    (tmp_path / "pictures" / "0.png").rename(tmp_path / "pictures" / "scene_f0.png")
    header = "image_path,label,bbox_top,bbox_left,bbox_right,bbox_bottom,orig_image"
    rows = ["pictures/scene_f0.png,happy,300,300,400,400,scene.png", "pictures/1.png,sad,1,1,9,9,1.png"]
    assert [s.box for s in ManifestSource([write([header, *rows])]).samples()] == [None, (1, 1, 9, 9)]


def test_packed_as_listed(write, tmp_path):
    lines = ["path,label,split,neg_label,bbox_top,bbox_left,bbox_right,bbox_bottom", "pictures/0.png,happy,train,sad,5,10,30,25"]
    pack(ManifestSource([write([*lines, "pictures/1.png,sad,val,,,,,"])]), tmp_path / "out")
    packed = Dataset(tmp_path / "out")
    rows = {path: i for i, path in enumerate(packed.column("path"))}
    whole = cv2.imread(str(tmp_path / "pictures" / "0.png"))[..., ::-1]
    assert (decode(packed.image(rows["pictures/0.png"])) == whole[5:25, 10:30]).all()
    assert packed.column("meta.neg_label")[rows["pictures/0.png"]] == "sadness"
    assert packed.info.layout.output("emotion").names == ("happiness", "sadness")


def test_low_confidence_is_counted(write):
    lines = table("path,label,confidence", rest=("0.2", "0.9", "0.5"))
    source = ManifestSource([write(lines)], confidence_min=0.5)
    for _ in range(2):
        assert len(list(source.samples())) == 2
        assert source.filtered == {"confidence below 0.5": 1}


HEADERS = {
    "empty": ("", "empty; expected a header"),
    "blank": ("\n\n", "empty; expected a header"),
    "no rows": ("path,label\n", "found a header and no rows"),
    "no path": ("image_pth,label\nx,y", r"no column with the path of the picture \('image_pth'; did you mean 'image_path'\?\)"),
    "no label": ("path,labl\nx,y", r"no column with the label \('labl'; did you mean 'label'\?\)"),
    "semicolons": ("path;label\nx;y", "found ';' between the columns, expected ','; pass --delimiter ';'"),
    "twice": ("path,label,Label\nx,y,z", "the column 'label' stands in the header twice"),
    "half a box": ("path,label,bbox_top,bbox_left\nx,y,1,2", "no column 'bbox_bottom'; a box has all of"),
    "not text": (b"path,label\n\xff\xfe,y", "not UTF-8"),
    "open quote": ('path,label\n"pictures/0.png,y', "not a CSV"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_csv_that_cannot_be_read_is_one_message(case, write):
    text, message = HEADERS[case]
    with pytest.raises(InputError, match=rf"faces\.csv.*{message}"):
        ManifestSource([write(text if isinstance(text, bytes) else text.encode())])


ROWS = {  # a column beside path and label, its value; the message
    "nan confidence": ("confidence", "nan", "confidence: found 'nan', expected a number from 0 to 1"),
    "no confidence": ("confidence", "", "confidence: found '', expected a number"),
    "percent": ("confidence", "87.5", "confidence: found '87.5'.*percents: divide by 100"),
    "word": ("confidence", "high", "confidence: found 'high'"),
    "weight 0": ("weight", "0", "weight: found '0', expected a number above 0"),
    "infinite weight": ("weight", "inf", "weight: found 'inf'"),
    "unknown split": ("split", "trian", "split: found 'trian'; did you mean 'train'.*expected one of train, val, test, calib"),
    "no split": ("split", "", "split: found ''"),
    "unknown neg_label": ("neg_label", "hapiness", "neg_label: found 'hapiness'; did you mean 'happiness'"),
    "short": ("split", None, "found 2 columns, expected 3"),
    "long": ("split", "train,x", "found 4 columns, expected 3"),
    "unknown class": ("label", "hapy", "label: found 'hapy'; did you mean 'happy'"),
    "no label": ("label", "", "label: found '', expected a name or an id"),
    "half an id": ("label", "1.5", "label: found '1.5', expected a name or an id"),
    "id out of range": ("label", "7", "label: found the id 7, expected one of 0 anger, 1 disgust"),
    "header again": ("label", "label", "found the header again"),
    "windows": ("path", r"C:\faces\0.png", r"path: found 'C:\\\\faces\\\\0.png'.*relative to a folder, named with --root"),
    "no path": ("path", "", "path: found nothing, expected the path of a picture"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_wrong_value_is_named_by_its_line(case, write):
    column, value, message = ROWS[case]
    columns, cells = ["path", "label"], {"path": "pictures/0.png", "label": "happy", column: value}
    columns += [] if column in columns else [column]
    good = {"confidence": "1", "weight": "1", "split": "train"}.get(column, "sad")
    lines = [",".join(columns), ",".join(["pictures/1.png", "sad", good][: len(columns)])]
    row = columns if case == "header again" else [cells[c] for c in columns if cells[c] is not None]
    with pytest.raises(InputError, match=rf"wrong values: 1\n  .*faces\.csv:3: {message}"):
        ManifestSource([write([*lines, ",".join(row)])], class_map=FER)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "pictures/0.png,3"], "found the id 3, expected a name; what ids mean says --class-map"),
        (["path,label", "pictures/0.png,sad", "pictures/1.png,SADNESS"], r"found 1 class \(sadness\), expected at least 2"),
        (["path,label,neg_label", "pictures/0.png,sad,joy", "pictures/1.png,fear,"], "csv:2: neg_label: found 'happiness'"),
        (
            ["path,label,bbox_top,bbox_left,bbox_right,bbox_bottom", "pictures/0.png,sad,9,9,1,20"],
            "bottom > top and right > left",
        ),
        (["path,label,bbox_top,bbox_left,bbox_right,bbox_bottom", "pictures/0.png,sad,9,9,,20"], "bbox_right ''"),
    ],
)
def test_other_wrong_rows(lines, message, write):
    with pytest.raises(InputError, match=message):
        ManifestSource([write(lines)])


def test_name_and_id_must_agree(write):
    lines = ["path,label_name,label", "pictures/0.png,happy,3", "pictures/1.png,sad,5"]
    with pytest.raises(InputError, match="csv:3: label_name is sadness, but label is 5, which means surprise"):
        ManifestSource([write(lines)], class_map=FER)


def test_all_that_is_wrong_is_said_at_once(write):
    rows = [f"pictures/0.png,{'nobody' if i else 'contempt'},2" for i in range(12)]
    with pytest.raises(InputError) as error:
        ManifestSource([write(["path,label,confidence", *rows])], class_map=FER)
    text = str(error.value)
    assert "wrong values: 24" in text and text.count("faces.csv:") == 10 and "... and 14 more" in text
    assert "labels not covered by the class map 'fer', with their rows: 'nobody' (11), 'contempt' (1)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trian"}, "--split trian: unknown; did you mean 'train'"),
        ({"split": "test"}, "every CSV has its own column 'split'"),
        ({"margin": 0.2}, "no CSV has the columns bbox_top"),
        ({"classes": ["happy", "joy"]}, "two of these are one class"),
        ({"delimiter": ", "}, "expected one character"),
    ],
)
def test_arguments_that_cannot_be_meant(arguments, message, write):
    with pytest.raises(InputError, match=message):
        ManifestSource([write(table())], **arguments)


@pytest.mark.parametrize(
    ("start", "root", "message"),
    [
        ("pictres/", None, r"(?s)none of the first 3 pictures.*pictres/0\.png.*nearest: .*/pictures.*--root FOLDER"),
        ("faces/pictures/", "pictures", r"nearest: .*/pictures/0\.png"),
        ("0/pictures/", None, "nearest"),
        ("/nowhere/pictures/", None, "paths are absolute"),
    ],
)
def test_no_picture_is_there(start, root, message, write, tmp_path):
    path = write("\n".join(table()).replace("pictures/", start).encode())
    with pytest.raises(InputError, match=message):
        ManifestSource([path], root=tmp_path / root if root else None)


def test_the_right_root_is_offered(write, tmp_path):
    (tmp_path / "lists").mkdir()
    with pytest.raises(InputError, match=rf"They are there with --root {tmp_path}$"):
        ManifestSource([write(table(), "lists/faces.csv")])
    (tmp_path / "data").mkdir()
    (tmp_path / "pictures").rename(tmp_path / "data" / "pictures")
    with pytest.raises(InputError, match=rf"They are there with --root {tmp_path / 'data'}$"):
        ManifestSource([write(table())])


def test_one_missing_picture_is_rejected_when_packing(write, tmp_path):
    (tmp_path / "pictures" / "1.png").unlink()
    with pytest.raises(InputError, match=r"(?s)1 of 3 samples are unreadable.*pictures/1\.png: missing file"):
        pack(ManifestSource([write(table())]), tmp_path / "out")


@pytest.mark.parametrize(
    "value", [["angry", "happy"], {"angry": 0, "happy": 1}, {"0": "angry", "1": "happy"}, {"1": "Joy", "0": " Anger "}], ids=str
)
def test_class_map_forms(value, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(value))
    read = ClassMap.load(tmp_path / "mine.json")
    assert (read.name, read.names, read.ids) == ("mine", ("anger", "happiness"), {"anger": 0, "happiness": 1})


@pytest.mark.parametrize(
    ("name", "ids", "names"),
    [
        ("fer", range(7), "anger disgust fear happiness sadness surprise neutral"),
        ("fer2013", range(7), "anger disgust fear happiness sadness surprise neutral"),
        ("ferplus", range(8), "neutral happiness surprise sadness anger disgust fear contempt"),
        ("affectnet", range(8), "neutral happiness sadness surprise fear disgust anger contempt"),
        ("rafdb", range(1, 8), "surprise fear disgust happiness sadness anger neutral"),
    ],
)
def test_shipped_class_maps(name, ids, names):
    shipped = ClassMap.load(name)
    assert list(shipped.ids.values()) == list(ids) and shipped.names == tuple(names.split())


def test_the_compound_classes_keep_their_names():
    assert ClassMap.load("rafce").names[::13] == ("Happily surprised", "Happily sad")
    assert ClassMap.load("rafce").canonical("happily SAD") == "Happily sad"


@pytest.mark.parametrize("label", ["Happy", "happiness", " JOY "])
def test_canonical_by_synonym(label):
    assert FER.canonical(label) == "happiness"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not a class map"),
        ("7", "found 7, expected"),
        ("{}", "found {}, expected"),
        ('{"happy": "x"}', "found 'x' with id 'happy'"),
        ('{"happy": -1}', "found 'happy' with id -1"),
        ('{"happy": 1, "sad": 1}', "id 1 is 'happiness' and 'sadness'"),
        ('{"happy": 1, "joy": 2}', "'joy' has the ids 1 and 2"),
        ('{"happy": 1, "happy": 2}', "'happy' stands there twice"),
    ],
)
def test_bad_class_maps(text, message, tmp_path):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(InputError, match=rf"mine\.json: .*{message}"):
        ClassMap.load(tmp_path / "mine.json")


def test_names_that_are_no_class_map_or_class():
    with pytest.raises(InputError, match="did you mean 'affectnet'.*class maps: affectnet, fer, "):
        ClassMap.load("afectnet")
    with pytest.raises(InputError, match="class map fer: has no class 'hapiness'; did you mean 'happiness'"):
        FER.canonical("hapiness")
