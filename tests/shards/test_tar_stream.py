"""Streaming: sequential reading, a pure order, the same pictures, bounded memory."""

import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.tar_stream import StreamOrder, StreamReader


def stream_of(folder, buffer=50, batch=16, seed=0):
    dataset = Dataset(folder)
    return dataset, StreamOrder(dataset, dataset.rows("train"), seed=seed, batch=batch, buffer=buffer)


def test_each_sample_once_an_epoch_near_where_it_is_read(synthetic):
    dataset, order = stream_of(synthetic)
    rows = dataset.rows("train")
    sequence = np.concatenate([order.step(k)[0] for k in range(2 * len(rows) // 16 + 1)])
    for epoch in range(2):
        out, read = sequence[epoch * len(rows) : (epoch + 1) * len(rows)], order.read_order(epoch)
        assert sorted(out) == rows.tolist()
        place = {row: i for i, row in enumerate(read.tolist())}
        assert max(abs(place[row] - i) for i, row in enumerate(out.tolist())) <= 50
        shards = dataset.coded("shard")[0][read]
        assert (np.diff(shards) != 0).sum() == len(set(shards)) - 1  # each tar is opened once
    assert (sequence[: len(rows)] != sequence[len(rows) : 2 * len(rows)]).any()


@pytest.mark.parametrize("first", [0, 7, 25])
@pytest.mark.parametrize("buffer", [1, 50, 10_000])
def test_any_step_gives_the_pictures_of_the_index(synthetic, first, buffer):
    dataset, order = stream_of(synthetic, buffer)
    reader = StreamReader(dataset, order)
    reader.start(first)
    for step in range(first, first + 30):
        for sample, epoch in zip(*(part.tolist() for part in order.step(step)), strict=True):
            assert (reader.image(sample, epoch) == dataset.image(sample)).all()
        assert len(reader._buffered) <= reader.limit
    reader.close()


def test_other_places_by_url(synthetic):
    dataset, order = stream_of(synthetic)
    reader = StreamReader(dataset, order, f"file://{synthetic}")
    reader.start(0)
    sample, epoch = (int(part[0]) for part in order.step(0))
    assert (reader.image(sample, epoch) == dataset.image(sample)).all()
    reader.close()


def test_a_place_that_cannot_be_read_is_one_message(synthetic):
    dataset, order = stream_of(synthetic)
    reader = StreamReader(dataset, order, "/nowhere")
    reader.start(0)
    with pytest.raises(InputError, match="/nowhere: cannot be read"):
        reader.image(*(int(part[0]) for part in order.step(0)))
    reader.close()
