"""Folds of whole groups: even, stratified, as a file says; what would leak or cannot be divided is refused by name."""

import json
from collections import Counter

import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.folds import FoldRule, assigned, fold_numbers
from affect.shards.pack import pack
from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.selection import Fold, Selection, equals, fold_list

STATE = Output("state", "classes", ("calm", "pain"))
SPLITS = ("train", "val")
SIZES = (9, 7, 6, 5, 4, 3, 3, 2, 1)  # rows of the animals a to i; i is tested


class Herd:
    """Half of the rows of a, b and c are in pain and all of d's. bad: rows of an animal in two folds, or without an animal."""

    label_protocol, filtered = "hard", Counter()
    layout = TargetLayout((STATE, Output("score", "scalars", ("total",))))

    def __init__(self, bad=""):
        self.bad, self.meta = bad, {"fold": float, "sex": str, "age": float}

    def fingerprint(self):
        return {"made": self.bad}

    def samples(self):
        random = np.random.default_rng(0)
        for number, (name, size) in enumerate(zip("abcdefghi", SIZES, strict=True)):
            for row in range(size):
                pain = number == 3 or (number < 3 and row % 2)
                fold = number % 4 + (self.bad == "shared" and number == 2 and row == 0)
                meta = {"sex": "mf"[number % 2], "age": float(number)} | ({"fold": float(fold)} if name != "i" else {})
                yield Sample(
                    random.integers(0, 256, (8, 8, 3), np.uint8), f"{name}{row}", "test" if name == "i" else SPLITS[number == 7],
                    {"state.calm": float(not pain), "state.pain": float(pain), "score.total": random.normal()}, "herd",
                    None if self.bad == "nameless" and number == 4 else name, meta=meta,
                )  # fmt: skip


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    def packed(bad=""):
        out = tmp_path_factory.mktemp("herd") / "packed"
        pack(Herd(bad), out, on_leak="keep")
        return Dataset(out)

    return packed


@pytest.fixture(scope="module")
def dataset(herd):
    return herd()


def folds(dataset, **rule):
    """animal -> its fold; an animal in two is an error here."""
    numbers = fold_numbers(dataset, FoldRule(**rule), equals(dataset, "split", SPLITS))
    fold_of = {}
    for name, number in zip(dataset.column("group"), numbers, strict=True):
        assert fold_of.setdefault(name, number) == number
    return fold_of


def test_groups_stay_whole_and_test_rows_are_in_no_fold(dataset):
    fold_of = folds(dataset, count=3)
    assert fold_of.pop("i") == -1 and set(fold_of.values()) == {0, 1, 2}
    rows = [sum(SIZES["abcdefgh".index(name)] for name in fold_of if fold_of[name] == fold) for fold in range(3)]
    assert max(rows) - min(rows) <= 2
    assert fold_of | {"i": -1} == folds(dataset, count=3)


@pytest.mark.parametrize(("leave", "sizes"), [(1, [1] * 8), (2, [2, 2, 2, 2]), (3, [2, 3, 3])])
def test_so_many_are_left_out(dataset, leave, sizes):
    assert sorted(Counter(n for n in folds(dataset, leave=leave).values() if n >= 0).values()) == sizes


def test_every_fold_gets_its_share_of_a_level(dataset):
    pain = dict(zip("abcdefgh", [4, 3, 3, 5, 0, 0, 0, 0], strict=True))

    def spread(fold_of):
        return np.std([sum(pain[name] for name in pain if fold_of[name] == fold) for fold in range(2)])

    assert spread(folds(dataset, count=2, stratify="state")) <= 0.5 <= spread({name: int(name > "b") for name in pain})
    for column in ("meta.sex", "meta.age", "score.total"):
        assert set(folds(dataset, count=2, stratify=column).values()) == {-1, 0, 1}


def test_equals_are_decided_by_name_and_not_by_order():
    counts, names = np.ones((6, 1)), list("fbdace")
    fold_of = dict(zip(names, assigned(counts, names, 3, 6), strict=True))
    turned = dict(zip(names[::-1], assigned(counts, names[::-1], 3, 6), strict=True))
    assert fold_of == turned and [fold_of[name] for name in "abcdef"] == [0, 1, 2, 0, 1, 2]


def test_a_fold_selects_by_the_rule(dataset):
    rule = FoldRule(leave=2)
    assert fold_list(dataset, rule, SPLITS) == [0, 1, 2, 3] == fold_list(dataset, None, SPLITS)
    for k in range(4):
        val, train = (
            {dataset.column("group")[row] for row in dataset.rows(Selection(split, fold=Fold(k, out, SPLITS, rule)))}
            for split, out in (("val", True), ("train", False))
        )
        assert len(val) == 2 and val | train == set("abcdefgh") and not val & train


def test_folds_of_a_column_keep_its_values_together(dataset):
    fold_of = folds(dataset, by="meta.sex", leave=1)
    assert {name for name in fold_of if fold_of[name] == fold_of["a"]} == set("aceg")
    assert len(set(folds(dataset, by="meta.age", count=8).values())) == 9  # and the test rows


def as_file(tmp_path, test="i", val=("ab", "cd", "ef"), also=""):
    value = [
        {"fold": k, "val_animals": [*animals], "train_animals": [*(set("abcdefgh") - set(animals)), *also]}
        for k, animals in enumerate(val)
    ]
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"test_animals": [*test], "cv_folds": value}))
    return str(path)


def test_a_file_says_who_validates_where(dataset, tmp_path):
    fold_of = folds(dataset, file=as_file(tmp_path))
    assert fold_of == dict(zip("abcdefghi", [0, 0, 1, 1, 2, 2, -1, -1, -1], strict=True))
    rows = dataset.rows(Selection("train", fold=Fold(1, False, SPLITS, FoldRule(file=as_file(tmp_path)))))
    assert {dataset.column("group")[row] for row in rows} == set("abefg")  # h is packed as validation, in every fold


BAD_FILES = [
    ({"val": ("ab", "cd")}, None),
    ({"also": "a"}, "fold 0: a is in val_animals and in train_animals"),
    ({"val": ("ab", "bc")}, "b is in val_animals of folds 0 and 1"),
    ({"test": "ia"}, "a is one of test_animals, too"),
    ({"test": "g", "val": ("ab", "c")}, "g is one of test_animals"),
]


@pytest.mark.parametrize(("keys", "message"), BAD_FILES)
def test_a_file_that_leaks_is_refused_by_name(dataset, tmp_path, keys, message):
    path = as_file(tmp_path, **keys)
    if message is None:
        assert folds(dataset, file=path)["c"] == 1
    else:
        with pytest.raises(InputError, match=message):
            folds(dataset, file=path)


def test_an_animal_in_no_list_of_the_file_is_named(dataset, tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"test_animals": ["i"], "cv_folds": [{"val_animals": ["a"], "train_animals": [*"bcdefg"]}]}))
    with pytest.raises(InputError, match="1 animals of packed are in no list of it:\n  h"):
        folds(dataset, file=str(path))


def test_test_animals_that_are_packed_to_train_are_named(dataset, tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"test_animals": ["h"], "cv_folds": [{"val_animals": ["a"], "train_animals": [*"bcdefg"]}]}))
    with pytest.raises(InputError, match=r"1 of its test_animals have rows .* trained on:\n  h"):
        folds(dataset, file=str(path))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"count": 9}, "count: 9 makes 9 folds of 8 values of group; expected 2 to 8"),
        ({"leave": 8}, "leave: 8 makes 1 folds of 8"),
        ({"count": 3, "by": "meta.sex"}, "3 folds of 2 values of meta.sex"),
        ({"count": 2, "by": "gruop"}, "no column 'gruop'; did you mean 'group'"),
        ({"count": 2, "stratify": "stat"}, "no column 'stat'; did you mean 'state'"),
        ({"count": 2, "stratify": "score"}, "score is scalars, not classes; name a column: score.total"),
        ({"file": "nowhere.json"}, "nowhere.json: not readable"),
    ],
)
def test_what_cannot_be_divided_says_why(dataset, rule, message):
    with pytest.raises(InputError, match=message):
        folds(dataset, **rule)


def test_an_animal_on_both_sides_is_refused_by_name(herd):
    with pytest.raises(InputError, match="1 groups both train and validate in fold 2:\n  c\n"):
        herd("shared").rows(Selection("val", fold=Fold(2, True, SPLITS)))


def test_rows_without_an_animal_are_counted(herd):
    with pytest.raises(InputError, match="4 of 39 rows have no group"):
        folds(herd("nameless"), count=2)
