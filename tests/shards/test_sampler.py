"""Order is a pure function: each sample once an epoch, the same sequence for any number of ranks, from any step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.shards.errors import InputError
from affect.shards.sampler import Order, class_balanced_weights

ROWS = np.arange(100, 137)  # 37 rows: no batch divides them


def stream(order, steps):
    return np.concatenate([order.step(k)[0] for k in range(steps)])


@given(batch=st.integers(1, 90), seed=st.integers(0, 2**40))
def test_each_sample_once_an_epoch(batch, seed):
    sequence = stream(Order(ROWS, seed=seed, batch=batch), -(-3 * 37 // batch))
    for epoch in range(3):
        assert sorted(sequence[37 * epoch : 37 * (epoch + 1)]) == ROWS.tolist()


def test_epochs_differ_and_repeat_with_the_seed():
    sequence = stream(Order(ROWS, seed=1, batch=37), 2)
    assert (sequence[:37] != sequence[37:]).any()
    assert (sequence == stream(Order(ROWS, seed=1, batch=37), 2)).all()
    assert (sequence != stream(Order(ROWS, seed=2, batch=37), 2)).any()


@pytest.mark.parametrize("world", [2, 3, 6])
def test_ranks_share_one_sequence(world):
    alone = Order(ROWS, seed=0, batch=12)
    ranks = [Order(ROWS, seed=0, batch=12, rank=rank, world=world) for rank in range(world)]
    for step in range(9):
        together = np.concatenate([rank.step(step)[0] for rank in ranks])
        assert (together == alone.step(step)[0]).all()


def test_any_step_without_the_ones_before():
    want = [Order(ROWS, seed=3, batch=8).step(k) for k in range(20)]
    for k in (19, 4, 11, 0):
        got = Order(ROWS, seed=3, batch=8).step(k)
        assert all((a == b).all() for a, b in zip(got, want[k], strict=True))


def test_epochs_end_where_their_samples_do():
    order = Order(ROWS, seed=0, batch=8)
    assert [order.first_step_of(e) for e in range(4)] == [0, 5, 10, 14]
    assert order.step(4)[1].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_unshuffled_is_the_order_of_the_index():
    assert (stream(Order(ROWS, seed=0, batch=10, shuffle=False), 4)[:37] == ROWS).all()


def test_bad_orders_are_refused():
    with pytest.raises(InputError, match="no rows"):
        Order(ROWS[:0], seed=0, batch=4)
    with pytest.raises(InputError, match=r"data\.batch_size: 10 .* 4 processes"):
        Order(ROWS, seed=0, batch=10, world=4)


WEIGHTS = np.concatenate([np.zeros(3), np.linspace(0.1, 9, 30), [40.0, 0.0, 1e-9, 0.0]])


@given(batch=st.integers(1, 90), seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_weighted_draws_are_the_expected_count_rounded_down_or_up(batch, seed, epoch):
    order = Order(ROWS, seed=seed, batch=batch, weights=WEIGHTS)
    sequence = stream(order, -(-(epoch + 1) * 37 // batch))[37 * epoch : 37 * (epoch + 1)]
    counts = np.array([(sequence == row).sum() for row in ROWS])
    expected = 37 * WEIGHTS / WEIGHTS.sum()
    assert counts.sum() == 37
    assert (np.floor(expected) <= counts).all() and (counts <= np.ceil(expected)).all()
    assert not counts[WEIGHTS == 0].any()


def test_weighted_draws_have_the_expected_mean_and_any_two_rows_meet():
    weights = np.array([1.0, 1, 1, 1, 4])
    order = Order(np.arange(5), seed=0, batch=5, weights=weights)
    drawn = np.stack([np.bincount(order.step(k)[0], minlength=5) for k in range(4000)])
    assert np.abs(drawn.mean(0) - 5 * weights / 8).max() < 0.03  # 4 sigma of 4000 draws
    assert all((drawn[:, i].astype(bool) & drawn[:, j].astype(bool)).any() for i in range(5) for j in range(i))


@pytest.mark.parametrize("weights", [None, np.ones(37), WEIGHTS], ids=["shuffled", "equal", "unequal"])
def test_weighted_epochs_differ_resume_and_share_among_ranks(weights):
    alone = Order(ROWS, seed=3, batch=12, weights=weights)
    want = [alone.step(k) for k in range(20)]
    assert (stream(alone, 7)[:37] != stream(alone, 7)[37:74]).any()
    ranks = [Order(ROWS, seed=3, batch=12, rank=rank, world=3, weights=weights) for rank in range(3)]
    for k in (19, 4, 11, 0):
        for i in range(2):
            assert (Order(ROWS, seed=3, batch=12, weights=weights).step(k)[i] == want[k][i]).all()
            assert (np.concatenate([rank.step(k)[i] for rank in ranks]) == want[k][i]).all()


def test_a_row_drawn_twice_in_an_epoch_is_seen_in_two_ways():
    samples, draw_ids = Order(ROWS, seed=0, batch=37, weights=WEIGHTS).step(0)
    assert (samples == 135 - 2).sum() > 3  # the row of weight 40
    assert len({*zip(samples.tolist(), draw_ids.tolist(), strict=True)}) == 37


def test_balanced_draws_each_class_equally_often():
    labels = np.array([0] * 30 + [2] * 3 + [5] + [-1] * 3)
    samples, _ = Order(np.arange(37), seed=0, batch=37 * 30, weights=class_balanced_weights(labels)).step(0)
    counts = np.bincount(labels[samples])  # refuses the -1 of an unlabelled row
    assert counts.nonzero()[0].tolist() == [0, 2, 5]
    assert np.abs(counts[counts > 0] - 370).max() <= 30  # 30 epochs, less than one draw in each


def test_the_root_draws_a_class_by_the_root_of_its_rows():
    labels = np.array([0] * 36 + [1] * 4 + [-1] * 3)
    weights = class_balanced_weights(labels, power=0.5)
    assert weights[:36].sum() == pytest.approx(3 * weights[36:40].sum()) and not weights[40:].any()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), "one for each of 37 rows"), (np.zeros(37), "all 0"),
        (np.where(ROWS == 104, -1.0, 1.0), "sample 104: weight -1"),
        (np.where(ROWS == 105, np.nan, 1.0), "sample 105: weight nan"),
    ],
)  # fmt: skip
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        Order(ROWS, seed=0, batch=4, weights=weights)


def test_labels_of_no_class_are_refused():
    with pytest.raises(InputError, match="no row has one"):
        class_balanced_weights(np.full(4, -1))
