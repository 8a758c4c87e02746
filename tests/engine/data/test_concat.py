"""Several datasets read as one: targets by name, each picture from its own dataset."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from affect.engine.config.load import load_config
from affect.engine.data.build import train_loader
from affect.engine.data.selection import open_dataset
from affect.engine.runs.description import fingerprint
from affect.engine.system.distributed import Ranks
from affect.engine.tasks import TASKS
from affect.shards.concat import Merged
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.pack import pack
from affect.shards.sample import Sample
from affect.shards.schema import LEAKED, Output, TargetLayout
from affect.shards.sources.class_folders import FolderSource

FIRST, SECOND = ("happy", "sad"), ("Sadness", "Boredom", "joy")
EMOTION = Output("emotion", "classes", ("a", "b"))
NAMES = ("happy", "sad", "Boredom")  # the first's, then what is new


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two datasets of 8 pictures a class, each with its classes in another order and spelling."""
    root = tmp_path_factory.mktemp("pair")
    random = np.random.default_rng(0)
    for folder, names in (("first", FIRST), ("second", SECOND)):
        for name in names:
            (root / f"raw_{folder}" / name).mkdir(parents=True)
            for i in range(8):
                cv2.imwrite(str(root / f"raw_{folder}" / name / f"{i}.png"), random.integers(0, 256, (24, 24, 3)))
        pack(FolderSource(root / f"raw_{folder}", list(names), 0.25), root / folder, on_leak="keep")
    return [root / "first", root / "second"]


class Listed:
    """A source of given samples."""

    label_protocol, layout = "hard", TargetLayout((EMOTION,))

    def __init__(self, samples):
        self.held, self.filtered, self.meta = samples, Counter(), {}

    def samples(self):
        return iter(self.held)

    def fingerprint(self):
        return {}


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def named(dataset):
    """The class of each sample, by name."""
    names = dataset.info.layout.output("emotion").names
    return [names[i] for i in dataset.targets("emotion").argmax(1)]


def test_classes_meet_by_name(pair):
    merged, (first, second) = open_dataset(pair), map(Dataset, pair)
    assert merged.info.layout.output("emotion").names == NAMES
    same = {"Sadness": "sad", "joy": "happy", "Boredom": "Boredom"}
    assert named(merged) == named(first) + [same[name] for name in named(second)]
    assert (merged.targets("emotion").sum(1) == 1).all()  # a class that a dataset lacks has the share 0
    assert (merged.column("emotion.sad") == merged.targets("emotion")[:, 1]).all()


def test_numbers_run_on_and_pictures_come_from_their_own_dataset(pair):
    merged, parts = open_dataset(pair), [Dataset(path) for path in pair]
    count = len(parts[0].column("sample"))
    assert merged.column("sample").tolist() == list(range(40))
    assert merged.info.counts == {split: sum(p.info.counts[split] for p in parts) for split in merged.info.counts}
    for split in ("train", "val"):
        assert merged.rows(split).tolist() == [*parts[0].rows(split), *(parts[1].rows(split) + count)]
    for sample in range(40):
        own = parts[sample >= count], sample - count * (sample >= count)
        assert (decode(merged.image(sample)) == decode(own[0].image(own[1]))).all()
        assert merged.column("path")[sample] == own[0].column("path")[own[1]]
        assert merged.column("sha256")[sample] == own[0].column("sha256")[own[1]]


def test_what_one_dataset_lacks_is_empty_there(pair, synthetic):
    merged, drawn = open_dataset([pair[0], synthetic]), Dataset(synthetic)
    au = drawn.info.layout.outputs[1].name
    assert np.isnan(merged.targets(au)[:16]).all()
    assert np.array_equal(merged.targets(au)[16:], drawn.targets(au), equal_nan=True)
    assert np.isnan(open_dataset([synthetic, pair[0]]).targets(au)[400:]).all()
    extra = [name for name in drawn.names if name.startswith("meta.")]
    for name in extra:
        assert merged.has(name) and all(value is None or value != value for value in merged.column(name)[:16])


def test_unlabelled_rows_stay_so(pair, monkeypatch):
    merged = open_dataset(pair)
    kept = Dataset.targets

    def targets(self, output):
        values = kept(self, output)
        values[3] = np.nan
        return values

    monkeypatch.setattr(Dataset, "targets", targets)
    assert np.isnan(merged.targets("emotion")).all(1).nonzero()[0].tolist() == [3, 16 + 3]


def test_a_loader_reads_both(pair):
    run = load_config("smoke", [f"data.dataset=[{pair[0]}, {pair[1]}]", "data.batch_size=30", "model.image_size=24"])
    merged = open_dataset(run.data.dataset)
    batch = next(train_loader(run, TASKS[run.task], merged, Ranks(torch.device("cpu"))).from_step(0))
    assert set(batch.sample) == set(merged.rows("train"))  # a batch runs on into the next epoch
    assert batch.targets["emotion"].argmax(1).tolist() == [NAMES.index(named(merged)[s]) for s in batch.sample]
    of = fingerprint(run, merged)["index"]
    assert of not in {fingerprint(run, Dataset(path))["index"] for path in pair}
    assert of != fingerprint(run, open_dataset(pair[::-1]))["index"]


def packed(out, rows, source="faces"):
    """Drawn faces as a dataset: for each (number, split, group) one, equal numbers are equal pictures."""
    samples = [
        Sample(noise(number), f"{number}.png", split, EMOTION.one_hot("ab"[i % 2]), source, group)
        for i, (number, split, group) in enumerate(rows)
    ]
    pack(Listed(samples), out, on_leak="keep")
    return out


LEAKS = {  # rows of each dataset: what of them is not trained on, as (dataset, number)
    "nothing": ([[(1, "train", "s1"), (2, "val", "s2")], [(3, "train", "s1"), (4, "val", "s4")]], []),
    "pixels": (
        [[(1, "train", None), (2, "val", None)], [(2, "train", None), (1, "val", None), (5, "train", None)]],
        [(0, 1), (1, 2)],
    ),
    "group": ([[(1, "train", "s1"), (2, "val", "s2")], [(3, "train", "s2"), (4, "val", "s4"), (5, "train", None)]], [(1, 3)]),
    "test and calib": (
        [[(1, "test", None), (2, "calib", "s2")], [(1, "train", None), (3, "train", "s2"), (4, "train", None)]],
        [(1, 1), (1, 3)],
    ),
    "one's own": ([[(1, "train", "s1"), (1, "val", "s1")], [(3, "train", None), (4, "val", None)]], []),
    "one's own first": ([[(1, "val", None), (1, "train", None)], [(1, "val", None), (2, "train", None)]], [(0, 1)]),
    "one's own last": ([[(1, "val", None), (3, "train", None)], [(1, "val", None), (1, "train", None)]], [(1, 1)]),
    "both train": ([[(1, "train", "s1"), (2, "val", None)], [(1, "train", "s1"), (3, "train", None)]], []),
    "the third's": (
        [[(1, "train", None), (9, "train", None)], [(1, "train", None), (2, "val", None)], [(1, "val", None)]],
        [(0, 1), (1, 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEAKS)
def test_what_another_dataset_holds_out_is_not_trained_on(case, tmp_path, capsys):
    datasets, want = LEAKS[case]
    parts = [packed(tmp_path / str(i), rows) for i, rows in enumerate(datasets)]
    merged = Merged(parts)
    found = [(d, int(p.split(".")[0])) for d, part in enumerate(map(Dataset, parts)) for p in part.column("path")]
    leaked = np.flatnonzero(merged.column("split") == LEAKED)
    assert sorted(found[row] for row in leaked) == want and merged.info.counts.get(LEAKED, 0) == len(want)
    trained_on = Counter((d, number) for d, rows in enumerate(datasets) for number, split, _ in rows if split == "train")
    assert Counter(found[row] for row in merged.rows("train")) == trained_on - Counter(want)
    assert len(merged.rows("train")) == merged.info.counts["train"]
    for split in ("val", "test", "calib"):  # what is held out stays
        assert merged.info.counts.get(split, 0) == sum(s == split for rows in datasets for _, s, _ in rows)
    assert (f": {len(want)} training samples are held out in another" in capsys.readouterr().err) == bool(want)


def test_leaks_are_told_with_examples(tmp_path):
    first = packed(tmp_path / "a", [(1, "val", "s1"), (2, "val", "s2"), (9, "train", None)])
    second = packed(tmp_path / "b", [(1, "train", None), (3, "train", "s2"), (4, "train", "s2"), (5, "train", "s2")])
    said = []
    Merged([first, second], said.append)
    (line,) = said
    assert "4 training samples are held out" in line and "1 by their pixels, 3 by their group" in line
    assert line.splitlines()[1:] == [
        f"  {second}: 1.png: same pixels as {first}: 1.png",
        f"  {second}: 3.png: same group as {first}: 2.png",
        f"  {second}: 4.png: same group as {first}: 2.png",
    ]


def test_one_name_of_two_sources_is_two_groups(tmp_path):
    first = packed(tmp_path / "a", [(1, "val", "s1"), (9, "train", None)])
    second = packed(tmp_path / "b", [(2, "train", "s1"), (3, "val", None)], source="others")
    assert LEAKED not in Merged([first, second]).info.counts


def test_nothing_left_to_train_on_is_refused(tmp_path):
    first, second = packed(tmp_path / "a", [(1, "val", None)]), packed(tmp_path / "b", [(1, "train", None)])
    with pytest.raises(InputError, match="split 'train' has no samples; it has: {'val': 1, 'leaked': 1}"):
        Merged([first, second]).rows("train")


def test_a_single_dataset_is_not_searched(pair, monkeypatch):
    read = []
    table = Dataset.table
    monkeypatch.setattr(Dataset, "table", lambda self, columns: read.extend(columns) or table(self, columns))
    open_dataset(pair[0])
    assert read == []
    open_dataset(pair)
    assert "sha256" in read


def test_one_in_a_list_is_itself(pair):
    assert type(open_dataset(pair[:1])) is Dataset


def test_what_cannot_be_merged_is_refused(pair, tmp_path):
    with pytest.raises(InputError, match="is a copy of another"):
        open_dataset([pair[0], pair[0]])
    raw = tmp_path / "raw"
    for i, name in enumerate(("happy", "joy")):
        (raw / name).mkdir(parents=True)
        for j in range(2):
            cv2.imwrite(str(raw / name / f"{j}.png"), np.random.default_rng(9 + 2 * i + j).integers(0, 256, (24, 24, 3)))
    pack(FolderSource(raw, ["happy", "joy"], 0.5), tmp_path / "twice", on_leak="keep")
    with pytest.raises(InputError, match="happy and joy are one class"):
        open_dataset([pair[0], tmp_path / "twice"])
