"""The loader bench times providers that make the same pictures, and writes down what it measured on what."""

import importlib.util
import json
from itertools import islice

import numpy as np
import pytest
import torch

pytest.importorskip("nvidia.dali")

from affect.bench import loader, peers, record
from affect.bench.loader import CASES, PEERS, Timing, Work
from affect.shards.errors import InputError

pytestmark = pytest.mark.slow

BATCH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def work(folder):
    case = CASES["gray"]
    return Work.of(case, loader.packed(case, 64, folder), BATCH, workers=1)


@pytest.mark.parametrize("name", [*loader.providers()])
def test_a_provider_makes_the_plain_pictures(work, name):
    assert loader.compare(work, name, loader.providers()[name](work, "uint8")) <= loader.MAX_DIFFERENCE


@pytest.mark.parametrize("kind", ["dali", "plain"])
def test_streaming_gives_each_sample_once_an_epoch_as_the_same_picture(work, kind):
    streamed = first_epoch(work, loader.ours(kind, work, "uint8", stream=True))
    indexed = first_epoch(work, loader.ours(kind, work, "uint8"))
    assert sorted(streamed) == list(range(len(work.files)))
    assert list(streamed) != list(indexed)
    assert all(torch.equal(image, indexed[sample]) for sample, image in streamed.items())


def first_epoch(work, batches):
    """Sample -> picture."""
    steps = islice(batches, len(work.files) // BATCH)
    pictures = {int(s): image for samples, images in steps for s, image in zip(samples, images, strict=True)}
    assert len(pictures) == len(work.files)
    return pictures


def test_a_stream_without_dali_is_called_plain(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert list(loader.providers()) == ["plain", "stream (plain)", *PEERS]


def test_nothing_is_timed_where_the_pictures_differ(work):
    brighter = ((samples, images // 2 + 128) for samples, images in loader.providers()["plain"](work, "uint8"))
    with pytest.raises(InputError, match="other makes other pictures: .* levels off"):
        loader.compare(work, "other", brighter)


def test_both_sides_normalise_alike(work):
    plain, peer = loader.providers()["plain"], PEERS["torch DataLoader + OpenCV"]
    ours = {int(s): image for samples, images in [next(plain(work, "float32"))] for s, image in zip(samples, images, strict=True)}
    theirs = peer(work, "float32")
    pairs = [(ours[int(s)], i) for _ in range(4) for s, i in zip(*next(theirs), strict=True) if int(s) in ours]
    assert len(pairs) >= BATCH
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    assert np.mean([float((a - b).abs().mean()) for a, b in pairs]) < loader.MAX_DIFFERENCE / peers.STD.min()


@pytest.mark.slow
def test_a_line_says_what_was_measured_on_what(work, tmp_path):
    lines = loader.bench_loader("gray", work.dataset, BATCH, 1, Timing(seconds=0.1, rounds=2), lambda count: None)
    path = record.append(lines, tmp_path)
    read = [json.loads(text) for text in path.read_text().splitlines()]
    assert read == lines
    assert [line["provider"] for line in read] == [*loader.providers()] * 2
    for line in read:
        assert line.keys() >= {
            "op",
            "provider",
            "settings",
            "images_per_s",
            "ratio_to_best_peer",
            "cpu",
            "cores",
            "commit",
            "date",
        }
        assert line["images_per_s"]["p20"] <= line["images_per_s"]["p50"] <= line["images_per_s"]["p80"]
        assert line["versions"].keys() == {"torch", "dali", "opencv", "webdataset"}
        assert not any(secret in json.dumps(line) for secret in (str(tmp_path), str(work.dataset.folder)))
    for variant in ("float32", "uint8"):
        ratios = [r["ratio_to_best_peer"] for r in read if r["settings"]["variant"] == variant and r["provider"] in PEERS]
        assert 1.0 in ratios
