"""Class maps: what an id means, in every form that a file may have, and classes by their synonyms."""

import json

import pytest

from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError

FER = ClassMap.load("fer")


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
