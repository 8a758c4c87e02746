"""Manifest CSVs that are wrong: every fault is named by its line, all at once, nothing is lost in silence."""

import pytest

from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.manifest import ManifestSource

FER = ClassMap.load("fer")
TABLE = ["image_path,label,split", "pictures/0.png,happy,train", "pictures/1.png,Sad,val", "pictures/2.png,happiness,test"]

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
def test_a_csv_that_cannot_be_read_is_one_message(case, write_csv):
    text, message = HEADERS[case]
    with pytest.raises(InputError, match=rf"faces\.csv.*{message}"):
        ManifestSource([write_csv(text if isinstance(text, bytes) else text.encode())])


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
def test_a_wrong_value_is_named_by_its_line(case, write_csv):
    column, value, message = ROWS[case]
    columns, cells = ["path", "label"], {"path": "pictures/0.png", "label": "happy", column: value}
    columns += [] if column in columns else [column]
    good = {"confidence": "1", "weight": "1", "split": "train"}.get(column, "sad")
    lines = [",".join(columns), ",".join(["pictures/1.png", "sad", good][: len(columns)])]
    row = columns if case == "header again" else [cells[c] for c in columns if cells[c] is not None]
    with pytest.raises(InputError, match=rf"wrong values: 1\n  .*faces\.csv:3: {message}"):
        ManifestSource([write_csv([*lines, ",".join(row)])], class_map=FER)


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
def test_other_wrong_rows(lines, message, write_csv):
    with pytest.raises(InputError, match=message):
        ManifestSource([write_csv(lines)])


def test_name_and_id_must_agree(write_csv):
    lines = ["path,label_name,label", "pictures/0.png,happy,3", "pictures/1.png,sad,5"]
    with pytest.raises(InputError, match="csv:3: label_name is sadness, but label is 5, which means surprise"):
        ManifestSource([write_csv(lines)], class_map=FER)


def test_all_that_is_wrong_is_said_at_once(write_csv):
    rows = [f"pictures/0.png,{'nobody' if i else 'contempt'},2" for i in range(12)]
    with pytest.raises(InputError) as error:
        ManifestSource([write_csv(["path,label,confidence", *rows])], class_map=FER)
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
def test_arguments_that_cannot_be_meant(arguments, message, write_csv):
    with pytest.raises(InputError, match=message):
        ManifestSource([write_csv(TABLE)], **arguments)


@pytest.mark.parametrize(
    ("start", "root", "message"),
    [
        ("pictres/", None, r"(?s)none of the first 3 pictures.*pictres/0\.png.*nearest: .*/pictures.*--root FOLDER"),
        ("faces/pictures/", "pictures", r"nearest: .*/pictures/0\.png"),
        ("0/pictures/", None, "nearest"),
        ("/nowhere/pictures/", None, "paths are absolute"),
    ],
)
def test_no_picture_is_there(start, root, message, write_csv, tmp_path):
    path = write_csv("\n".join(TABLE).replace("pictures/", start).encode())
    with pytest.raises(InputError, match=message):
        ManifestSource([path], root=tmp_path / root if root else None)


def test_the_right_root_is_offered(write_csv, tmp_path):
    (tmp_path / "lists").mkdir()
    with pytest.raises(InputError, match=rf"They are there with --root {tmp_path}$"):
        ManifestSource([write_csv(TABLE, "lists/faces.csv")])
    (tmp_path / "data").mkdir()
    (tmp_path / "pictures").rename(tmp_path / "data" / "pictures")
    with pytest.raises(InputError, match=rf"They are there with --root {tmp_path / 'data'}$"):
        ManifestSource([write_csv(TABLE)])


def test_one_missing_picture_is_rejected_when_packing(write_csv, tmp_path):
    (tmp_path / "pictures" / "1.png").unlink()
    with pytest.raises(InputError, match=r"(?s)1 of 3 samples are unreadable.*pictures/1\.png: missing file"):
        pack(ManifestSource([write_csv(TABLE)]), tmp_path / "out")
