"""Packing: whole or not there, the same bytes each time, nothing lost on the way back."""

import csv
import hashlib
import json
from collections import Counter

import cv2
import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.dhash import dhash, near_duplicates
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.images import Storage, decode, encode, pixel_sha256
from affect.shards.pack import pack
from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.sources.class_folders import FolderSource

EMOTION = Output("emotion", "classes", ("sad", "happy"))


class Listed:
    """A source of given samples."""

    label_protocol, meta, layout = "hard", {"note": str}, TargetLayout((EMOTION,))

    def __init__(self, samples):
        self.items, self.filtered = samples, Counter()

    def samples(self):
        return iter(self.items)

    def fingerprint(self):
        return {}


def sample(image, split="train", label="sad", **rest):
    return Sample(image, rest.pop("path", "x"), split, EMOTION.one_hot(label), source="test", **rest)


def noise(seed, shape=(20, 24, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def files_of(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture
def folder(tmp_path, picture):
    """Two classes, twelve pictures: JPEG and PNG, colour and gray."""
    for i in range(12):
        image = picture(40 + i, 52 - i, seed=i)
        path = tmp_path / "raw" / ("sad" if i % 2 else "happy") / f"{i}{'.jpg' if i % 3 else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image if i % 4 else image[..., 0])
    return tmp_path / "raw"


def test_same_input_gives_the_same_bytes(folder, tmp_path):
    for name, workers in (("a", 1), ("b", 4)):
        pack(FolderSource(folder, val=0.3), tmp_path / name, workers=workers)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_everything_comes_back(folder, tmp_path):
    pack(FolderSource(folder, val=0.3), tmp_path / "out", shard_samples=5)
    packed = Dataset(tmp_path / "out")
    assert sorted(packed.column("sample")) == list(range(12))
    assert len({name for name in packed.info.files if name.startswith("train")}) > 1
    for i, path in enumerate(packed.column("path")):
        assert packed.image(i).tobytes() == (folder / path).read_bytes()  # files keep their bytes
        want = cv2.imread(str(folder / path))[..., ::-1]
        assert (decode(packed.image(i)) == want).all()
        assert packed.column("sha256")[i] == pixel_sha256(want)
        assert (packed.column("height")[i], packed.column("width")[i]) == want.shape[:2]
        assert packed.info.layout.output("emotion").names[packed.targets("emotion")[i].argmax()] == path.split("/")[0]


def test_unlabelled_is_nan_and_zero_is_zero(tmp_path):
    samples = [sample(noise(0)), Sample(noise(1), "y", "train", {}, source="test", meta={"note": "ü"})]
    pack(Listed(samples), tmp_path / "out")
    targets = Dataset(tmp_path / "out").targets("emotion")
    assert targets[0].tolist() == [1, 0] and np.isnan(targets[1]).all()
    assert Dataset(tmp_path / "out").column("meta.note").tolist() == [None, "ü"]


@pytest.mark.slow
def test_webdataset_reads_the_tars(synthetic):
    webdataset = pytest.importorskip("webdataset")
    packed = Dataset(synthetic)
    for name in (n for n in packed.info.files if n.endswith(".tar")):
        for result in webdataset.WebDataset(str(synthetic / name), shardshuffle=False, empty_check=False):
            i = int(result["__key__"])
            assert result["png"] == packed.image(i).tobytes()
            assert np.frombuffer(result["y.f32"], "<f4")[:8].tolist() == packed.targets("emotion")[i].tolist()


def test_dali_reads_the_tars_by_our_index(synthetic):
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def read():
        return tuple(
            fn.readers.webdataset(
                paths=[str(synthetic / "val-000000.tar")],
                index_paths=[str(synthetic / "val-000000.idx")],
                ext=["jpg;png", "y.f32"],
            )
        )

    images, _ = read().run()
    packed = Dataset(synthetic)
    rows = packed.rows("val")
    assert [images.at(i).tobytes() for i in range(4)] == [packed.image(int(r)).tobytes() for r in rows[:4]]


BAD_FILES = {
    "missing": None,
    "zero": b"",
    "text": b"not a picture at all, but long enough to look like a file",
    "truncated png": cv2.imencode(".png", noise(1))[1].tobytes()[:-200],
    "truncated jpg": cv2.imencode(".jpg", noise(1, (64, 64, 3)))[1].tobytes()[:-900],
    "header only": cv2.imencode(".png", noise(1))[1].tobytes()[:30],
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_rejected_by_name(case, tmp_path):
    path = tmp_path / "bad.png"
    if BAD_FILES[case] is not None:
        path.write_bytes(BAD_FILES[case])
    samples = [sample(noise(i)) for i in range(3)] + [sample(path, path="bad.png")]
    with pytest.raises(InputError, match=r"(?s)1 of 4 samples.*bad\.png: .+--max-rejects 0\.25"):
        pack(Listed(samples), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*packing"))

    info = pack(Listed(samples), tmp_path / "out", max_rejects=0.5)
    assert info.counts == {"train": 3}
    with (tmp_path / "out" / "rejected.csv").open() as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == ["bad.png"]


def test_every_kind_of_picture_decodes_alike_afterwards(tmp_path):
    alpha = np.dstack([noise(0), np.full((20, 24), 128, np.uint8)])
    deep = (noise(1).astype(np.uint16)) * 257
    for name, image in {"alpha.png": alpha, "deep.png": deep, "x.bmp": noise(2), "x.webp": noise(3), "x.tiff": noise(4)}.items():
        cv2.imwrite(str(tmp_path / name), image)
        encoded = encode(tmp_path / name)
        assert encoded.extension == "png" and encoded.data[24] == 8 and encoded.data[25] in (0, 2)
        assert pixel_sha256(decode(encoded.data)) == encoded.sha256


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)])
def test_arrays_that_are_no_picture_are_refused(array):
    with pytest.raises(BadImage, match="expected"):
        encode(array)


@pytest.mark.parametrize("what", ["pixels", "group"])
def test_leaks_between_splits(what, tmp_path):
    same = {"group": "mouse7"} if what == "group" else {}
    image = (noise(0), noise(9 if what == "group" else 0))
    samples = [sample(image[0], path="t", **same), sample(noise(1), path="u"), sample(image[1], "val", path="v", **same)]
    with pytest.raises(InputError, match=rf"(?s)1 samples.*t \(train\): same {what} as v \(val\).*--on-leak drop-train"):
        pack(Listed(samples), tmp_path / "out")
    assert pack(Listed(samples), tmp_path / "drop", on_leak="drop-train").counts == {"train": 1, "val": 1}
    assert pack(Listed(samples), tmp_path / "keep", on_leak="keep").counts == {"train": 2, "val": 1}
    for name, dropped in (("drop", "True"), ("keep", "False")):
        with (tmp_path / name / "duplicates.csv").open() as stream:
            assert [(row["path"], row["twin"], row["dropped"]) for row in csv.DictReader(stream)] == [("t", "v", dropped)]


def test_a_leak_between_held_out_splits_cannot_be_dropped(tmp_path):
    samples = [sample(noise(0), "val"), sample(noise(0), "test"), sample(noise(1))]
    with pytest.raises(InputError, match="between held-out splits"):
        pack(Listed(samples), tmp_path / "out", on_leak="drop-train")


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(InputError, match="is there already"):
        pack(Listed([sample(noise(0))]), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_interrupt_leaves_no_dataset_behind(tmp_path):
    def interrupted():
        yield sample(noise(0))
        raise KeyboardInterrupt

    source = Listed([])
    source.samples = interrupted
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.packing"]
    assert pack(Listed([sample(noise(0))]), tmp_path / "out").counts == {"train": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="no sample"):
        pack(Listed([]), tmp_path / "out")


def test_a_target_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        pack(Listed([sample(noise(0))]), tmp_path / "file" / "out")


def test_max_side_reduces_by_area(tmp_path):
    pack(Listed([sample(noise(0, (100, 50, 3)))]), tmp_path / "out", storage=Storage(max_side=40))
    got = decode(Dataset(tmp_path / "out").image(0))
    assert (got == cv2.resize(noise(0, (100, 50, 3)), (20, 40), interpolation=cv2.INTER_AREA)).all()


def test_quality_stores_jpeg_and_the_hash_is_of_what_is_read_back(tmp_path):
    encoded = encode(noise(0, (64, 64, 3)), Storage(quality=80))
    assert encoded.extension == "jpg" and encoded.sha256 == pixel_sha256(decode(encoded.data)) != pixel_sha256(
        noise(0, (64, 64, 3))
    )


@pytest.mark.parametrize(
    ("box", "want"), [((2, 3, 12, 20), (2, 12, 3, 20)), ((-5, -5, 100, 100), (0, 20, 0, 24)), ((1.4, 1.6, 9, 9), (1, 9, 2, 9))]
)
def test_a_box_is_cut_out_as_far_as_it_lies_inside(box, want):
    top, bottom, left, right = want
    assert (decode(encode(noise(0), box=box).data) == noise(0)[top:bottom, left:right]).all()


@pytest.mark.parametrize("box", [(30, 0, 40, 10), (5, 5, 5, 9), (9, 9, 2, 2)])
def test_a_box_beside_the_picture_is_refused(box):
    with pytest.raises(BadImage, match="lies outside the 24x20 picture"):
        encode(noise(0), box=box)


class TestCalib:
    def splits(self, samples, out, calib):
        pack(Listed(samples), out, calib=calib)
        packed = Dataset(out)
        return dict(zip(packed.column("path"), packed.column("split"), strict=True))

    def test_is_carved_out_of_val_whatever_the_order(self, tmp_path):
        samples = [sample(noise(i), "val" if i % 3 else "train", path=f"{i}") for i in range(90)]
        result = self.splits(samples, tmp_path / "a", 0.4)
        assert result == self.splits(samples[::-1], tmp_path / "b", 0.4)
        assert Counter(result.values())["train"] == 30 and 12 <= Counter(result.values())["calib"] <= 36

    def test_a_group_stays_together(self, tmp_path):
        samples = [sample(noise(i), "val", path=f"{i}", group=f"cow{i % 12}") for i in range(60)]
        result = self.splits(samples, tmp_path / "a", 0.5)
        groups = {(int(path) % 12, split) for path, split in result.items()}
        assert len(groups) == 12 and {split for _, split in groups} == {"val", "calib"}

    def test_equal_pictures_stay_together(self, tmp_path):
        result = self.splits([sample(noise(i % 12), "val", path=f"{i}") for i in range(60)], tmp_path / "a", 0.5)
        assert len({(int(path) % 12, split) for path, split in result.items()}) == 12

    def test_without_val_there_is_nothing_to_carve(self, tmp_path):
        with pytest.raises(InputError, match=r"--calib 0.3: nothing of val \(0 samples\)"):
            pack(Listed([sample(noise(0))]), tmp_path / "out", calib=0.3)


class TestNearDuplicates:
    def test_counts_as_the_comparison_of_all_with_all_does(self):
        random = np.random.default_rng(0)
        hashes = random.integers(1, 2**64, 60, dtype=np.uint64).repeat(5)
        for _ in range(2):  # of each five, some are 0 to 2 bits apart, some up to 4
            hashes ^= np.uint64(1) << random.integers(0, 64, len(hashes), dtype=np.uint64)
        held_out, train = hashes[:100], np.append(hashes[90:], np.uint64(0))
        train = np.append(train, np.uint64(0))  # two flat pictures: not alike
        apart = np.bitwise_count(train[:-2, None] ^ np.concatenate([train[:-2], held_out])) <= 2
        result = near_duplicates(train, held_out)
        n = len(train) - 2
        assert result["pairs_in_train"] == np.triu(apart[:, :n], 1).sum() > 30
        assert result["train_like_held_out"] == apart[:, n:].any(1).sum() >= 10

    def test_the_same_picture_stored_worse_is_alike_and_another_is_not(self, picture):
        image = picture(96, 96, seed=3)
        worse = decode(cv2.imencode(".jpg", np.clip(image * 0.95 + 4, 0, 255).astype(np.uint8), [1, 60])[1])
        bits = [(dhash(image[..., ::-1]) ^ dhash(other)).bit_count() for other in (worse, picture(96, 96, seed=4))]
        assert bits[0] <= 2 and bits[1] > 10

    def test_flat_pictures_have_no_hash(self):
        assert dhash(np.full((40, 40, 3), 90, np.uint8)) == 0

    def test_stand_in_the_description(self, tmp_path, picture):
        held_out = picture(40, 40)
        worse = decode(cv2.imencode(".jpg", held_out[..., ::-1], [1, 95])[1])
        pack(Listed([sample(held_out, "val"), sample(worse), sample(picture(40, 40, 5))]), tmp_path / "out")
        assert Dataset(tmp_path / "out").info.near_duplicates == {"distance": 2, "train_like_held_out": 1, "pairs_in_train": 0}

    def test_a_description_without_them_still_opens(self, tmp_path):
        pack(Listed([sample(noise(0))]), tmp_path / "out")
        path = tmp_path / "out" / "dataset.json"
        value = json.loads(path.read_text())
        del value["near_duplicates"]
        path.write_text(json.dumps(value))
        assert Dataset(tmp_path / "out").info.near_duplicates == {}


class TestFolder:
    def test_split_folders(self, tmp_path):
        for split in ("train", "valid"):
            for name in ("a", "b"):
                (tmp_path / split / name).mkdir(parents=True)
                cv2.imwrite(str(tmp_path / split / name / "1.png"), noise(hash((split, name)) % 2**32))
        assert sorted(s.split for s in FolderSource(tmp_path).samples()) == ["train", "train", "val", "val"]

    def test_unknown_class(self, folder):
        with pytest.raises(InputError, match="unknown class 'happy'.*did you mean 'hapy'"):
            FolderSource(folder, classes=["sad", "hapy"])

    def test_no_class_folders(self, tmp_path):
        with pytest.raises(InputError, match="0 class folders"):
            FolderSource(tmp_path)

    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match="not a folder"):
            FolderSource(tmp_path / "nowhere")
