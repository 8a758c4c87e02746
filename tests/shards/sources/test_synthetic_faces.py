"""Drawn faces as a source: the labels of a picture are of that picture, and it is drawn once."""

import pytest

from affect.shards.pack import pack
from affect.shards.resume import stamp
from affect.shards.sources.synthetic_faces import AU, SyntheticSource
from affect.shards.synthetic import faces
from affect.shards.synthetic.expressions import EMOTIONS, PRESENT


@pytest.fixture
def drawn(monkeypatch):
    """The numbers of the faces that are drawn."""
    numbers, still = [], faces.still

    def noted(seed, subject, emotion, index, size=64):
        numbers.append(index)
        return still(seed, subject, emotion, index, size)

    monkeypatch.setattr(faces, "still", noted)
    return numbers


def test_the_units_are_those_of_the_picture():
    for i, sample in enumerate(SyntheticSource(80, size=32, seed=5, subjects=4).samples()):
        image, units = faces.still(5, i // 8 % 4, EMOTIONS[i % 8], i, 32)
        assert (sample.image() == image).all()
        assert {sample.targets[f"au.{name}"] for name in AU.names} <= {0, 1}
        assert [name for name in AU.names if sample.targets[f"au.{name}"]] == [n for n, v in units.items() if v >= PRESENT]


def test_every_picture_is_drawn_once(drawn, tmp_path):
    pack(SyntheticSource(64, size=32, subjects=4), tmp_path / "out")
    assert sorted(drawn) == list(range(64))


def test_what_is_packed_already_is_not_drawn_again(drawn, tmp_path):
    def advance(count):
        if len(seen) == 40:
            raise KeyboardInterrupt
        seen.append(count)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        pack(SyntheticSource(64, size=32, subjects=4), tmp_path / "out", advance=advance)
    drawn.clear()
    pack(SyntheticSource(64, size=32, subjects=4), tmp_path / "out")
    assert len(drawn) == 64 - 40
    pack(SyntheticSource(64, size=32, subjects=4), tmp_path / "anew")
    for path in (tmp_path / "anew").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_picture_that_is_yet_to_be_made_is_not_made_for_its_stamp(drawn):
    one, other = (next(SyntheticSource(16, size=32, subjects=2, seed=seed).samples()) for seed in (1, 1))
    assert stamp(one) == stamp(other) and drawn == []
