"""What is counted is what is there."""

import numpy as np
import pytest

from affect.engine.data.statistics import coverage, statistics
from affect.shards.dataset import Dataset


def test_counts_add_up(synthetic):
    dataset = Dataset(synthetic)
    found = statistics(dataset)
    total = list(dataset.info.counts.values())
    assert np.sum(list(found.counts["source"].values()), axis=0).tolist() == total
    emotion = np.sum(list(found.counts["emotion"].values()), axis=0) + found.unlabelled["emotion"]
    assert emotion.tolist() == total
    rows = dataset.rows("train")
    targets = dataset.targets("emotion")[rows]
    assert [counts[found.splits.index("train")] for counts in found.counts["emotion"].values()] == targets.sum(0).tolist()
    assert found.sizes == {"48x48": 400} and (found.shorter_side == 48).all()


@pytest.mark.parametrize("batch", [7, 128, 1000])
def test_each_sample_comes_once_in_each_epoch(synthetic, batch):
    dataset = Dataset(synthetic)
    assert coverage(dataset, "train", 3, batch, seed=5) == [{1: dataset.info.counts["train"]}] * 3


@pytest.mark.slow
def test_stats_prints_and_plots(synthetic, tmp_path, capsys):
    from affect.engine.cli.stats import stats

    stats(synthetic, plot=tmp_path / "out.png", order=2)
    said = capsys.readouterr().out
    count = Dataset(synthetic).info.counts["train"]
    assert f"order of train, epoch 1, batches of 128: {count} samples 1 time\n" in said
    assert "size: 48x48 400" in said and "happiness" in said
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"
