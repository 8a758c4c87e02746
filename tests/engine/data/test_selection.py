"""Filters act on the index; one packed dataset serves every source, fold and sampler."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from affect.engine.config.load import load_config
from affect.engine.config.run import check_corrections
from affect.engine.data.build import train_loader
from affect.engine.data.selection import largest_share, open_dataset, train_rows, train_selection, val_selection
from affect.engine.system.distributed import Ranks
from affect.engine.tasks import TASKS
from affect.engine.training.data_report import alignment
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout

CPU = torch.device("cpu")
EMOTION = Output("emotion", "classes", ("happy", "sad"))


class Made:
    """60 samples: 40 train, 10 val, 10 test of two sources; every fourth is of the last class; folds 0 to 4, none in test."""

    label_protocol, filtered = "hard", Counter()

    def __init__(self, *outputs, seed=0, meta=None):
        self.layout, self.seed = TargetLayout(outputs or (EMOTION,)), seed
        self.meta = {"fold": float, "cohort": str} if meta is None else meta

    def fingerprint(self):
        return {"made": str(self.seed)}

    def samples(self):
        images = np.random.default_rng(self.seed).integers(0, 256, (60, 24, 24, 3)).astype(np.uint8)
        for i, image in enumerate(images):
            targets = {c: float(c == o.columns[-(i % 4 == 3)]) for o in self.layout.outputs for c in o.columns}
            split = "train" if i < 40 else "val" if i < 50 else "test"
            meta = {"cohort": "ab"[i % 2]} | ({"fold": float(i % 5)} if split != "test" else {})
            yield Sample(
                image, f"{i}.png", split, targets if i else {}, source=("web", "lab")[i % 3 == 0], weight=1.0 + i % 2 * 3,
                confidence=0.7 if i % 2 else 0.4, meta={name: value for name, value in meta.items() if name in self.meta},
            )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "packed"
    pack(Made(), out, on_leak="keep")  # noise has near-duplicates by chance
    return out


@pytest.fixture
def run(made):
    def run(*settings):
        return load_config("smoke", [f"data.dataset={made}", "data.batch_size=40", "model.image_size=24", *settings])

    return run


def chosen(run):
    """The training and validation samples by their numbers in `Made`."""
    dataset = open_dataset(run.data.dataset)
    return numbers(dataset)[train_rows(run.data, dataset)], numbers(dataset)[dataset.rows(val_selection(run.data))]


def numbers(dataset):
    return np.array([int(path.removesuffix(".png")) for path in dataset.column("path")])


I = np.arange(60)  # noqa: E741
TRAIN, VAL = I < 40, (I >= 40) & (I < 50)


@pytest.mark.parametrize(
    ("settings", "train", "val"),
    [
        ([], TRAIN, VAL),
        (["data.sources=[lab]"], TRAIN & (I % 3 == 0), VAL & (I % 3 == 0)),
        (["data.confidence_min=0.7"], TRAIN & (I % 2 == 1), VAL),
        (["data.where={meta.cohort: b}"], TRAIN & (I % 2 == 1), VAL & (I % 2 == 1)),
        (["data.where={meta.fold: [1, 3], width: 24}"], TRAIN & np.isin(I % 5, [1, 3]), VAL & np.isin(I % 5, [1, 3])),
        (["data.fold=2"], (TRAIN | VAL) & (I % 5 != 2), (TRAIN | VAL) & (I % 5 == 2)),
        (["data.fold=2", "data.sources=[web]"], (I < 50) & (I % 5 != 2) & (I % 3 > 0), (I < 50) & (I % 5 == 2) & (I % 3 > 0)),
    ],
    ids=["all", "sources", "confidence", "text", "numbers", "fold", "fold and source"],
)
def test_filters_choose_the_rows(run, settings, train, val):
    got = chosen(run(*settings))
    assert sorted(got[0]) == np.flatnonzero(train).tolist()
    assert sorted(got[1]) == np.flatnonzero(val).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.fold=9"], "no row is of fold 9; it has: 0, 1, 2, 3, 4"),
        (["data.where={meta.cohrt: a}"], "no column 'meta.cohrt'; did you mean 'meta.cohort'"),
        (["data.where={meta.cohort: c}"], "no row has meta.cohort = c.*it has: a, b"),
        (["data.where={meta.fold: a}"], "meta.fold holds numbers, not 'a'"),
        (["data.where={width: 7}"], "no row has width = 7; it has: 24"),
        (["data.confidence_min=0.9"], "no sample of split 'train' is left by confidence_min 0.9"),
        (["data.sources=[webb]"], "is left by sources webb; it has: lab, web"),
        (["data.sources=[web, lap]", "data.strict_sources=true"], "'lap'; did you mean 'lab'"),
        (["data.val_split=calib"], "split 'calib' has no samples"),
    ],
)
def test_a_selection_without_rows_names_its_filter(run, settings, message):
    with pytest.raises(InputError, match=message):
        chosen(run(*settings))


def test_a_dataset_without_folds_says_so(synthetic, run):
    with pytest.raises(InputError, match=r"data\.fold is 0, but .* no column meta\.fold"):
        train_rows(run("data.fold=0").data, Dataset(synthetic))


def test_a_named_source_without_rows_warns(run, capsys):
    assert len(chosen(run("data.sources=[web, lap]"))[0]) == 26
    assert "no row to train on is of 'lap'; did you mean 'lab'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["data.where=[a]", "data.where={a: []}", "data.where={a: {}}", "data.dataset=[]", "data.dataset=3"]
)
def test_bad_values_are_one_line(run, setting):
    with pytest.raises(InputError, match=r"data\.(where|dataset): expected|data\.where: a: expected") as caught:
        run(setting)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("sampler", ["shuffle", "sqrt", "balanced", "weighted"])
def test_samplers_draw_what_they_say(run, sampler):
    run = run(f"data.sampler={sampler}")
    dataset = Dataset(run.data.dataset)
    batch = next(train_loader(run, TASKS[run.task], dataset, Ranks(CPU)).from_step(0))  # an epoch
    made = numbers(dataset)[batch.sample]
    weight = 1.0 + made % 2 * 3
    if sampler == "shuffle":
        assert sorted(made) == list(range(40)) and batch.weight.tolist() == weight.tolist()
    elif sampler == "sqrt":
        assert 0 not in made and 10 / 39 < (made % 4 == 3).mean() < 20 / 40
    elif sampler == "balanced":
        assert 0 not in made  # not labelled
        assert abs(int((made % 4 == 3).sum()) - 20) <= 5 and batch.weight.tolist() == weight.tolist()
    else:
        assert abs(int((weight == 4).sum()) - 32) <= 5  # 20 rows of weight 4 and 20 of 1
        assert batch.weight.tolist() == [1.0] * 40  # the order has it already


STRONGER = "data.augment.stronger={where: {meta.cohort: %s}, by: %s}"
AFFINE = "data.augment.affine={rotate: 10, scale: [0.8, 1.2]}"


def loader_of(config):
    return train_loader(config, TASKS[config.task], open_dataset(config.data.dataset), Ranks(CPU))


def test_stronger_rows_are_drawn_stronger(run):
    plans = []
    for settings in ([AFFINE], [AFFINE, STRONGER % ("b", 2)]):
        planner = loader_of(run(*settings)).planner
        plans.append(planner.plan(0))
    turned = [np.arctan2(plan.draw.affine[:, 0, 1], plan.draw.affine[:, 0, 0]) for plan in plans]
    odd = planner.dataset.column("meta.cohort")[plans[0].sample] == "b"
    assert 0 < odd.sum() < len(odd) and np.allclose(turned[1], np.where(odd, 2, 1) * turned[0], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([STRONGER % ("b", 2)], "affine and jitter, and both are off"),
        ([AFFINE, STRONGER % ("b", 0.5)], "by: .*greater than 1"),
        ([AFFINE, STRONGER % ("[]", 2)], r"where: meta\.cohort: expected a text"),
        (["data.augment.jitter={}", STRONGER % ("b", 4), "data.augment.jitter.brightness=0.3"], "turns the hue around"),
        (["data.augment.affine={scale: [0.5, 1.5]}", STRONGER % ("b", 2)], "2 times as wide reaches 0"),
        ([AFFINE, STRONGER % ("c", 2)], "no training row of .* has meta.cohort: .*'c'"),
        ([AFFINE, "data.augment.stronger={where: {meta.cohrt: b}}"], "did you mean 'meta.cohort'"),
    ],
)
def test_a_stronger_augmentation_without_a_meaning_is_refused(run, settings, message):
    with pytest.raises(InputError, match=message):
        loader_of(run(*settings))


def test_unlabelled_rows_have_no_class():
    assert largest_share(np.array([[0.2, 0.8], [np.nan, np.nan], [1, 0]])).tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("settings", "class_weights", "refused"),
    [
        ([], "balanced", False), (["data.sampler=balanced"], None, False), (["data.sampler=balanced"], "off", False),
        (["data.sampler=balanced"], "balanced", True), (["data.sampler=weighted"], "effective", True),
        (["data.sampler=balanced", "data.allow_double_correction=true"], "balanced", False),
    ],
)  # fmt: skip
def test_an_imbalance_is_corrected_once(run, settings, class_weights, refused):
    if refused:
        with pytest.raises(ValueError, match=r"twice; drop one, or: --set data\.allow_double_correction=true"):
            check_corrections(run(*settings).data, class_weights)
    else:
        check_corrections(run(*settings).data, class_weights)


def test_the_report_counts_before_and_after(run):
    run = run("data.sources=[lab]", "data.fold=2")
    dataset = Dataset(run.data.dataset)
    report = json.loads(json.dumps(alignment(run, dataset, dataset.rows(train_selection(run.data)), None)))
    assert report["rows"] == {"total": 60, "train": 14, "val": 3}
    assert report["train"]["packed"] == {"lab": 14, "web": 26} and report["train"]["used"] == {"lab": 14}
    assert report["val"]["packed"] == {"lab": 3, "web": 7} and report["val"]["used"] == {"lab": 3}
    assert report["train"]["filters"]["sources"] == ["lab"] and report["train"]["filters"]["fold"]["number"] == 2
    assert report.keys() >= {"dataset", "index_sha256", "label_protocol", "sampler", "seed", "preprocess", "augment"}


def test_a_run_has_the_report(trained):
    report = json.loads((trained / "alignmentreport.json").read_text())
    assert report["rows"]["train"] == sum(report["train"]["used"].values())
