"""An npz of faces: every name and form of its arrays gives the same samples, and what is wrong with it is one message."""

import io

import numpy as np
import pytest

from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError
from affect.shards.images import decode, encode, pixels
from affect.shards.sources.arrays import NpzSource
from affect.shards.sources.ferplus import VOTES
from affect.shards.sources.npz import IMAGES

IDS = np.array([0, 3, 1, 7])
FACES = np.random.default_rng(0).integers(0, 256, (4, 6, 6), dtype=np.uint8)
COUNTS = np.eye(10, dtype=np.uint8)[IDS] * 9


@pytest.fixture
def npz(tmp_path):
    """npz(images=..., votes=...) -> the path of such a file."""

    def write(**arrays):
        np.savez(tmp_path / "faces.npz", **arrays)
        return tmp_path / "faces.npz"

    return write


def seen(source):
    return [(s.image.tobytes(), s.image.shape, [n for n, value in s.targets.items() if value]) for s in source.samples()]


@pytest.fixture
def want(npz):
    result = seen(NpzSource(npz(images=FACES, votes=COUNTS)))
    assert [names for _, _, names in result] == [["emotion." + VOTES[i]] for i in IDS]
    assert result[0][:2] == (FACES[0].tobytes(), (6, 6))
    return result


@pytest.mark.parametrize("images", [*IMAGES, "Images"])
@pytest.mark.parametrize("label", ["votes", "labels", "y", "hard"])
@pytest.mark.parametrize("form", ["votes", "ids", "names", "shares"])
def test_every_name_and_form(images, label, form, npz, want):
    values = {"votes": COUNTS, "ids": IDS, "names": np.array(VOTES)[IDS], "shares": COUNTS[:, :8] / 9}[form]
    assert seen(NpzSource(npz(**{images: FACES, label: values}))) == want


@pytest.mark.parametrize("shape", ["(N, H, W, 1)", "(N, H * W)", "Fortran", "compressed"])
def test_every_shape(shape, tmp_path, npz, want):
    faces = {"(N, H, W, 1)": FACES[..., None], "(N, H * W)": FACES.reshape(4, 36), "Fortran": np.asfortranarray(FACES)}
    path = npz(images=faces.get(shape, FACES), votes=COUNTS)
    if shape == "compressed":
        np.savez_compressed(path, images=FACES, votes=COUNTS)
    assert seen(NpzSource(path)) == want


def test_a_class_map_says_what_ids_mean_and_what_to_keep(npz):
    source = NpzSource(npz(x=FACES, y=IDS), class_map=ClassMap.load("fer"))  # 0 anger, 3 happiness, 1 disgust; no 7
    assert [names for _, _, names in seen(source)] == [["emotion.anger"], ["emotion.happiness"], ["emotion.disgust"]]
    assert source.filtered == {"label not in the class map": 1} and source.label_protocol == "hard"
    assert NpzSource(npz(x=FACES, y=IDS + 2)).uncovered == {"9": 1}


def test_protocols_and_names(npz):
    votes = np.array([[4, 3, 3, *[0] * 7], [0] * 8 + [9, 1], [6, 4, *[0] * 8], [0] * 10])
    path = npz(images=FACES, votes=votes, names=np.array(list("abcd")))
    source = NpzSource(path)
    assert [s.path for s in source.samples()] == ["faces.npz#a", "faces.npz#c"]
    assert source.filtered == {"top vote is unknown": 1, "no votes": 1}
    source = NpzSource(path, "majority-official")
    assert len(seen(source)) == 1 and source.label_protocol == "majority-official"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no array 'images' with the pictures; found nothing"),
        ({"image": FACES, "y": IDS}, r"no array 'images' .*\('image'; did you mean 'images'\?\)"),
        ({"x": FACES}, "no array 'votes' with the labels; found x; expected one of votes, labels, y, hard"),
        ({"x": FACES, "y": IDS[:3]}, "4 x, 3 y; expected one a picture"),
        ({"x": FACES / 255, "y": IDS}, r"x: found \(4, 6, 6\) float64, expected .* uint8; values 0..1 become pixels"),
        ({"x": FACES[:, :5, 0], "y": IDS}, r"x: found \(4, 5\) uint8"),
        ({"x": FACES, "y": IDS / 2}, r"y: found \(4,\) float64, expected ids, which are whole numbers, or names"),
        ({"x": FACES, "y": np.eye(5)[:4]}, r"y: found \(4, 5\) float64, expected ids \(N,\), votes"),
        ({"x": FACES, "y": -np.eye(8)[:4]}, "numbers of 0 or more; picture 0"),
        ({"x": FACES, "y": np.array([None] * 4)}, "not a readable npz"),
        ({"x": FACES, "y": IDS, "names": np.array(["a"])}, "1 names, 4 y"),
        ({"x": FACES, "votes": COUNTS, "vote_names": np.array(VOTES[::-1])}, "expected the order neutral"),
    ],
)
def test_bad_arrays_are_one_message(arrays, message, npz):
    with pytest.raises(InputError, match=message):
        list(NpzSource(npz(**arrays)).samples())


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "one array", "missing"])
def test_a_damaged_file_is_one_message(damage, tmp_path, npz):
    path = npz(images=FACES, votes=COUNTS)
    data = bytearray(path.read_bytes())
    at = data.index(FACES.tobytes())
    data[at] ^= 1
    array = io.BytesIO()
    np.save(array, FACES)
    result = {"cut": data[: len(data) // 2], "flipped": data, "text": b"no archive", "one array": array.getvalue()}
    path.unlink() if damage == "missing" else path.write_bytes(result[damage])
    with pytest.raises(InputError, match="no such file" if damage == "missing" else r"faces\.npz: (not an npz|damaged)"):
        list(NpzSource(path).samples())


def test_pixels_are_what_a_reader_of_the_packed_picture_gets(tmp_path, picture):
    import cv2

    image = picture(30, 50)
    for name in ("a.png", "a.jpg", "a.bmp"):
        cv2.imwrite(str(tmp_path / name), image)
    for image_form in (image, image[..., 0], *(tmp_path / name for name in ("a.png", "a.jpg", "a.bmp"))):
        for box in (None, (2.4, 3, 20, 60)):
            assert (pixels(image_form, box) == decode(encode(image_form, box=box).data)).all()
