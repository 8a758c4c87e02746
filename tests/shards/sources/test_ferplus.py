"""FER+: both protocols, both forms, and what can be wrong with them."""

import csv

import cv2
import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.ferplus import VOTES, FerPlusSource, distribution

VOTE_ROWS = {  # neutral happiness surprise sadness anger disgust fear contempt unknown NF
    "clear": [8, 0, 0, 2, 0, 0, 0, 0, 0, 0],
    "tie": [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],
    "unknown leads": [2, 0, 0, 0, 0, 0, 0, 0, 8, 0],
    "nf leads": [1, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    "outlier": [1, 6, 1, 1, 1, 0, 0, 0, 0, 0],
    "spread": [3, 3, 2, 2, 0, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize(
    ("case", "protocol", "want"),
    [
        ("clear", "votes", [0.8, 0, 0, 0.2, 0, 0, 0, 0]),
        ("clear", "majority-official", [1, 0, 0, 0, 0, 0, 0, 0]),
        ("tie", "votes", [0.5, 0.5, 0, 0, 0, 0, 0, 0]),
        ("tie", "majority-official", "no majority"),  # half is not more than half
        ("unknown leads", "votes", "top vote is unknown"),
        ("unknown leads", "majority-official", "majority is unknown"),
        ("nf leads", "votes", "top vote is NF"),
        ("outlier", "votes", [0.1, 0.6, 0.1, 0.1, 0.1, 0, 0, 0]),
        ("outlier", "majority-official", [0, 1, 0, 0, 0, 0, 0, 0]),
        ("spread", "majority-official", "no majority"),
    ],
)
def test_protocols_on_worked_rows(case, protocol, want):
    got = distribution(np.array(VOTE_ROWS[case]), protocol)
    assert got == want if isinstance(want, str) else np.allclose(got, want)


@pytest.fixture
def raw(tmp_path):
    """The same faces as npz and as the published CSV with images."""
    images = np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8)
    votes = np.array(list(VOTE_ROWS.values()), np.uint8)
    names = np.array([f"fer{i:07d}.png" for i in range(6)])
    np.savez(tmp_path / "part_train.npz", images=images, votes=votes, names=names, vote_names=np.array(VOTES))
    (tmp_path / "images" / "FER2013Train").mkdir(parents=True)
    with (tmp_path / "fer2013new.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["Usage", "Image name", *VOTES])
        for image, vote, name in zip(images, votes, names, strict=True):
            cv2.imwrite(str(tmp_path / "images" / "FER2013Train" / name), image)
            table.writerow(["Training", name, *vote])
        table.writerow(["Training", "", *[0] * 10])
    return tmp_path


def test_npz_and_csv_give_the_same_samples(raw):
    npz = FerPlusSource([str(raw / "part_train.npz")])
    table = FerPlusSource([str(raw / "fer2013new.csv"), str(raw / "images")])
    pack(npz, raw / "a")
    pack(table, raw / "b")
    a, b = Dataset(raw / "a"), Dataset(raw / "b")
    assert (a.column("sha256") == b.column("sha256")).all()
    assert (a.targets("emotion") == b.targets("emotion")).all()
    assert a.info.dropped == {"top vote is unknown": 1, "top vote is NF": 1, "rejected": 0, "duplicates": 0}
    assert b.info.dropped["no image name"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere_train.npz"], "no such file"),
        (["part.npz"], "holds none of train, valid, test"),
        (["fer2013new.csv"], "expected one fer2013new.csv and the folder"),
        (["cut_train.npz"], "npz"),
        (["other_train.npz"], "no array 'votes'"),
        (["order_train.npz"], "expected the order neutral"),
    ],
)
def test_bad_sources_are_one_message(raw, arguments, message, monkeypatch):
    monkeypatch.chdir(raw)
    whole = (raw / "part_train.npz").read_bytes()
    (raw / "part.npz").write_bytes(whole)
    (raw / "cut_train.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(raw / "other_train.npz", images=np.zeros((2, 4, 4), np.uint8))
    order = np.array([*VOTES[1:], VOTES[0]])
    np.savez(raw / "order_train.npz", images=np.zeros((2, 4, 4), np.uint8), votes=np.zeros((2, 10)), vote_names=order)
    with pytest.raises(InputError, match=message):
        list(FerPlusSource(arguments).samples())


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("Usage,Image name", "Training,x.png", "no column 'neutral'"),
        ("Usage,Image name," + ",".join(VOTES), "Sometimes,x.png" + ",1" * 10, r"csv:2: Usage 'Sometimes'"),
        ("Usage,Image name," + ",".join(VOTES), "Training,x.png,a" + ",1" * 9, r"csv:2: the votes"),
    ],
)
def test_bad_csv_rows_name_their_line(raw, header, row, message):
    (raw / "fer2013new.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=message):
        list(FerPlusSource([str(raw / "fer2013new.csv"), str(raw / "images")]).samples())


@pytest.mark.slow
def test_the_real_counts(real):
    sources = [str(real / "ferplus" / f"ferplus_{part}.npz") for part in ("train", "valid")]
    for protocol, train, val in (("votes", 28_003, 3_509), ("majority-official", 24_720, 3_157)):
        splits = [sample.split for sample in FerPlusSource(sources, protocol).samples()]
        assert (splits.count("train"), splits.count("val")) == (train, val)
