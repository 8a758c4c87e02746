"""RAF-CE: every token of its files is read or named, and what is packed is what they say."""

import json
import tarfile

import cv2
import numpy as np
import pytest

from affect.engine.metrics.multilabel import unit_figures
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.rafce import RECIPE_UNITS, RafCeSource
from affect.shards.sources.rafce_text import Units, parse_units
from affect.shards.synthetic.rafce_drawn import COMPOUNDS, UNITS, labels_of, write_rafce

ROWS = {  # name -> units, emotion, partition
    "0001": ("1+4+25", "2", "0"),
    "0002": ("L12+24", "0", "0"),
    "0003": ("null", "13", "0"),
    "0004": ("12?+25", "5", "2"),
    "0005": ("?", "5", "1"),
    "0006": ("1+2+R12+B23+27", "7", "0"),
}
FILES = {"au": "RAFCE_AUlabel.txt", "emotion": "RAFCE_emolabel.txt", "partition": "RAFCE_partition.txt"}


@pytest.fixture
def files(tmp_path, picture):
    """files(rows, **texts) -> the arguments of RafCeSource; a text stands in place of the rows of that file."""

    def write(rows=ROWS, **texts):
        images = tmp_path / "aligned"
        images.mkdir()
        for seed, name in enumerate(rows):
            cv2.imwrite(str(images / f"{name}_aligned.jpg"), picture(40, 40, seed))
        for i, (option, name) in enumerate(FILES.items()):
            text = texts.get(option, "".join(f"{key}.jpg {row[i]}\n" for key, row in rows.items()))
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return {"images": images, **{option: tmp_path / name for option, name in FILES.items()}}

    return write


def units_of(source):
    """Picture -> unit -> 0, 1 or NaN."""
    start = len(source.emotion.names)
    return {s.path[:4]: dict(zip(source.units, source.layout.vector(s.targets)[start:], strict=True)) for s in source.samples()}


@pytest.mark.parametrize(
    ("text", "present", "rest"),
    [
        ("1+4+25", (1, 4, 25), {}),
        ("25 + 4 +1", (1, 4, 25), {}),
        ("1,4, 25", (1, 4, 25), {}),
        ("AU1 AU2 AU4", (1, 2, 4), {}),
        ("au6+au12", (6, 12), {}),
        ("L12+24", (12, 24), {"sides": ("L12",)}),
        ("l12+R12+t10+B25", (10, 12, 25), {"sides": ("L12", "R12", "T10", "B25")}),
        ("12+12", (12,), {}),
        ("+12+", (12,), {}),
        ("null", (), {}),
        ("NULL ", (), {}),
        ("?", (), {"strays": ("?",)}),
        ("1+?", (1,), {"strays": ("?",)}),
        ("1+12?", (1,), {"strays": ("12?",), "doubted": (12,)}),
        ("12+12?", (12,), {"strays": ("12?",)}),
        ("AU+2x", (), {"strays": ("AU", "2x"), "doubted": (2,)}),
        ("1١", (), {"strays": ("1١",), "doubted": (11,)}),
        ("0+124", (), {"strays": ("0", "124"), "doubted": (0, 124)}),
        ("1+null", (1,), {"strays": ("null",)}),
    ],
)
def test_units_are_read_in_every_form(text, present, rest):
    assert parse_units(text) == Units(present, **rest)


def test_what_is_known_of_each_unit(files):
    source = RafCeSource(**files(), max_strays=1)
    units = units_of(source)
    assert {unit for unit, value in units["0001"].items() if value == 1} == {1, 4, 25}
    assert {unit for unit, value in units["0002"].items() if value == 1} == {12, 24}
    assert not np.isnan(list(units["0001"].values())).any()
    assert [unit for unit, value in units["0004"].items() if np.isnan(value)] == [12] and units["0004"][25] == 1
    assert all(np.isnan(list(units[name].values())).all() for name in ("0003", "0005"))
    notes = "\n".join(source.notes)
    assert "2 tokens in 2 rows" in notes and "0004: '12?+25': '12?'" in notes and "null: 1 rows, not labelled" in notes
    assert "AU45" in notes.split("without a positive")[1].splitlines()[0] and "not packed: AU27 (1 rows)" in notes


def test_null_as_none_of_the_units_spares_rows_of_which_nothing_is_known(files):
    source = RafCeSource(**files(), max_strays=1, null="none")
    units = units_of(source)
    assert set(units["0003"].values()) == {0} and np.isnan(list(units["0005"].values())).all()
    assert source.label_protocol != "hard"


@pytest.mark.parametrize(
    ("aus", "min_positives", "units"),
    [
        ("seed", 0, RECIPE_UNITS),
        ("seed", 2, (1, 12)),
        ("all", 0, (1, 2, 4, 12, 23, 24, 25, 27)),
        ("all", 2, (1, 12)),
        ("27, AU1", 0, (27, 1)),
    ],
)
def test_units_are_those_asked_for(files, aus, min_positives, units):
    source = RafCeSource(**files(), max_strays=1, aus=aus, min_positives=min_positives)
    assert source.units == units and source.au.names == tuple(f"AU{unit}" for unit in units)
    aside = ({1, 2, 4, 12, 23, 24, 25, 27} | set(source.wanted)) - set(units)
    note = next((note for note in source.notes if note.startswith("not packed")), "")
    assert all(f"AU{unit} (" in note for unit in aside) and note.count("AU") == len(aside)


def test_no_unit_that_is_frequent_enough_is_an_error(files):
    with pytest.raises(InputError, match=r"no unit of --aus all has 3 positives in train; the most have: AU\d+ \(2\)"):
        RafCeSource(**files(), max_strays=1, aus="all", min_positives=3)


@pytest.mark.parametrize("aus", ["seeds", "1,1", "1,L12", "1,x", ","])
def test_a_list_that_is_none_is_refused(files, aus):
    with pytest.raises(InputError, match="expected seed, all, or numbers"):
        RafCeSource(**files(), max_strays=1, aus=aus)


def test_texts_of_any_system_are_read_alike(files):
    texts = {}
    for i, option in enumerate(FILES):
        lines = "\r\n\r\n".join(f"aligned/{name}_aligned.jpg\t {row[i]}  " for name, row in ROWS.items())
        texts[option] = b"\xef\xbb\xbf" + lines.encode() + b"\r\n\0\0"
    source = RafCeSource(**files(**texts), max_strays=1)
    assert {name: (row.text, row.split) for name, row in source.rows.items()} == {
        name: (row[0], {"0": "train", "1": "test", "2": "val"}[row[2]]) for name, row in ROWS.items()
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"emotion": "0001.jpg 14\n0002.jpg 0\n"}, r"RAFCE_emolabel.txt:1: found '0001.jpg 14', expected .* from 0 to 13"),
        ({"partition": "0001.jpg 0\n0002.jpg 3\n"}, r"RAFCE_partition.txt:2: found '0002.jpg 3', expected .* 2 val"),
        ({"au": "0001.jpg 1\n0001.jpg 2\n"}, r"RAFCE_AUlabel.txt:2: 0001.jpg stands there already, in line 1"),
        ({"au": "0001.jpg 1\n0002.jpg\n"}, r"RAFCE_AUlabel.txt:2: found '0002.jpg', expected 0001.jpg 1\+4\+25"),
        ({"emotion": "0001.jpg 2\n0002.jpg 0\n"}, r"RAFCE_emolabel.txt: 4 pictures of the other files have no row:\n  0003"),
        ({"au": "".join(f"000{i}.jpg 1\n" for i in range(1, 8))}, r"emolabel.txt: 1 pictures [^\0]*partition.txt: 1 pictures"),
        ({"au": "image,units\n0001,12\n"}, r"RAFCE_AUlabel.txt: holds no row of the form 0001.jpg 1\+4\+25:\n"),
        ({"au": ""}, "RAFCE_AUlabel.txt: holds no row of the form .* it is empty"),
        ({"au": b"\xff\xd8\xff\xe0"}, "RAFCE_AUlabel.txt: not UTF-8"),
        ({"au": "".join(f"{name}.jpg null\n" for name in ROWS)}, "no row names an action unit"),
    ],
)
def test_files_that_are_wrong_are_named(files, texts, message):
    with pytest.raises(InputError, match=message):
        RafCeSource(**files(**texts), max_strays=1)


def test_one_file_in_two_places_is_refused(files):
    arguments = files()
    with pytest.raises(InputError, match="two of them are one file"):
        RafCeSource(**arguments | {"au": arguments["images"] / ".." / FILES["emotion"]})


def test_pictures_that_are_not_there_are_named(files):
    arguments = files()
    (arguments["images"] / "0002_aligned.jpg").unlink()
    (arguments["images"] / "0003_aligned.jpg").rename(arguments["images"] / "0003.jpg")
    with pytest.raises(InputError, match=r"1 of 6 pictures are not there:\n  0002_aligned.jpg\n"):
        RafCeSource(**arguments, max_strays=1)


def test_more_strays_than_allowed_are_refused(files):
    with pytest.raises(InputError, match=r"2 of 6 rows hold what is no action unit, more than --max-strays 0.1"):
        RafCeSource(**files())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """120 drawn faces and their files."""
    folder = tmp_path_factory.mktemp("drawn") / "rafce"
    write_rafce(folder, 120, size=32, rarest=3, strays=0.03)
    return folder


def drawn_source(folder, **options):
    return RafCeSource(folder / "aligned", *(folder / name for name in FILES.values()), **options)


def recipes_parser(au_str):
    """As it stands in the seed: it splits at spaces and looks for "AU1"."""
    names = [f"AU{unit}" for unit in RECIPE_UNITS]
    au_vector = np.zeros(len(names), dtype=np.float32)
    if au_str == "null" or au_str is None:
        return au_vector
    for au in au_str.split():
        if au in names:
            au_vector[names.index(au)] = 1.0
    return au_vector


def test_the_recipes_parser_has_an_au_f1_of_0_on_the_files_that_ours_reads_whole(drawn):
    """Against the units that were drawn. The reference recipe's matches no row of the published form: all its targets are 0."""
    source, options = drawn_source(drawn), {"label_noise": 0, "shares": (0.6, 0.2, 0.2)}
    rows = labels_of(120, seed=1337, rarest=3, null=0.05, strays=0.03, **options)
    truth = np.array([[row.expression.au.get(name, 0) > 0 for name in source.au.names] for row in rows], float)
    truth[[row.units == "null" for row in rows]] = np.nan
    texts = dict(line.split(".jpg ") for line in (drawn / FILES["au"]).read_text().splitlines())
    ours = units_of(source)
    read = {
        "recipe": np.stack([recipes_parser(texts[row.name]) for row in rows]),
        "ours": np.array([list(ours[row.name].values()) for row in rows]),
    }
    f1 = {who: unit_figures(np.nan_to_num(units) - 0.5, truth, source.au.names)["macro_f1"] for who, units in read.items()}
    assert f1 == {"recipe": 0.0, "ours": 1.0} and recipes_parser("AU1 AU2").sum() == 2 and np.nansum(truth) > 300


def test_packed_twice_the_bytes_are_the_same_and_hold_the_labels(drawn, tmp_path):
    for name in ("one", "two"):
        pack(drawn_source(drawn), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()
    packed = Dataset(tmp_path / "one")
    source = drawn_source(drawn)
    assert packed.info.counts.keys() == {"train", "val", "test"} and packed.info.num_samples == len(source.rows) == 120
    row = int(np.flatnonzero(packed.column("path") == "0001_aligned.jpg")[0])
    wanted = source.layout.vector(next(source.samples()).targets)
    targets = np.concatenate([packed.targets("emotion")[row], packed.targets("au")[row]])
    np.testing.assert_array_equal(targets, wanted)


def test_sides_stand_in_the_sample_and_in_the_index(files, tmp_path):
    pack(RafCeSource(**files(), max_strays=1), tmp_path / "out")
    metas = []
    for path in (tmp_path / "out").glob("train-*.tar"):
        with tarfile.open(path) as tar:
            metas += [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]
    assert {"au_text": "L12+24", "au_sides": "L12"} in metas and {"au_text": "1+4+25"} in metas
    assert {"au_text": "1+2+R12+B23+27", "au_sides": "R12 B23"} in metas


@pytest.mark.slow
def test_drawn_labels_are_of_the_published_kind():
    def draw(seed=1, **changed):
        options = {"rarest": 6, "null": 0.05, "strays": 0.005, "label_noise": 0, "shares": (0.6, 0.2, 0.2)}
        return labels_of(2000, seed=seed, **{**options, **changed})

    rows = draw()
    assert [row.units for row in rows] == [row.units for row in draw()] != [row.units for row in draw(seed=2)]
    counts = [sum(row.emotion == name for row in rows) for name in COMPOUNDS]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 6 and sum(counts) == 2000
    assert {(row.emotion, row.split) for row in rows} == {(name, split) for name in COMPOUNDS for split in range(3)}
    parsed = [parse_units(row.units) for row in rows]
    assert {unit for units in parsed for unit in units.present} == set(UNITS) and set(RECIPE_UNITS) - set(UNITS) == {45}
    assert {side[0] for units in parsed for side in units.sides} == set("LRBT") and any(units.strays for units in parsed)
    assert 60 < sum(row.units == "null" for row in rows) < 140
    for row, units in zip(rows, parsed, strict=True):
        shown = {int(name[2:]) for name, value in row.expression.au.items() if value}
        assert set(units.present) == shown or row.units == "null"
    noisy = draw(label_noise=0.1)
    drawn = [{int(name[2:]) for name, value in row.expression.au.items() if value} for row in noisy]
    assert sum(set(parse_units(row.units).present) != shown for row, shown in zip(noisy, drawn, strict=True)) > 1000


@pytest.mark.parametrize(("num_images", "rarest"), [(80, 6), (3000, 2)])
def test_too_few_images_are_refused(tmp_path, num_images, rarest):
    with pytest.raises(InputError, match="every split"):
        write_rafce(tmp_path / "out", num_images, rarest=rarest)


def test_stats_say_how_many_rows_are_labelled_and_which_units_never_occur(drawn, tmp_path, capsys):
    from affect.engine.cli.stats import stats

    source = drawn_source(drawn)
    pack(source, tmp_path / "out")
    stats(tmp_path / "out")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    in_train = [row for row in source.rows.values() if row.split == "train" and row.text != "null"]
    line = next(line for line in lines if line and line[0] == "AU4")
    split = line.index("train,") if "train," in line else line.index("train")
    assert line[split - 3 : split] == [str(sum(4 in row.units.present for row in in_train)), "of", str(len(in_train))]
    assert next(line for line in lines if line and line[0] == "AU45")[-2:] == ["no", "positive"]
