"""McNemar's test of runs that were scored on the same rows."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from affect.engine.report.mcnemar import ClassPredictions, macro_f1_gap, mcnemar_table, p_value, write_predictions

NAMES = ("a", "b", "c")


@pytest.mark.slow
@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 70), (900, 1100), (2000, 2000)])
def test_p_is_that_of_a_fair_coin(only_a, only_b):
    want = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert p_value(only_a, only_b) == pytest.approx(want, rel=1e-9) and p_value(only_b, only_a) == p_value(only_a, only_b)


def test_a_pair_is_compared_where_the_rows_are_the_same(tmp_path):
    label = np.array([0, 1, 2, 0, 1, 2])
    runs = {"x": [0, 1, 2, 0, 0, 0], "y/evaluated/set": [0, 0, 2, 0, 1, 2], "other": [0] * 6, "none": None}
    for name, predicted in runs.items():
        (tmp_path / name).mkdir(parents=True)
        if predicted:
            write_predictions(tmp_path / name, label[::-1] if name == "other" else label, np.array(predicted), NAMES)
    table = mcnemar_table([tmp_path / name for name in runs])
    assert [row[:-1] for row in table.cells] == [["x, y", "6", "1", "2", "+16.67", "1"]]
    assert table.cells[0][-1].startswith("+15.56 [")  # (4/5 + 2/3 + 1) / 3 - 2/3
    assert mcnemar_table([tmp_path / "x", tmp_path / "none"]) is None


@pytest.mark.slow
def test_the_gap_of_macro_f1_is_sklearns_and_its_interval_that_of_resampled_rows():
    random = np.random.default_rng(1)
    label, first, second = random.integers(0, 3, (3, 400))
    second = np.where(random.random(400) < 0.3, label, second)
    a, b = (ClassPredictions(name, label, said, NAMES) for name, said in (("a", first), ("b", second)))

    def gap(rows):
        return np.subtract(*(f1_score(label[rows], said[rows], average="macro") for said in (second, first)))

    value, low, high = macro_f1_gap(a, b)
    assert value == pytest.approx(gap(slice(None)))
    resampled = [gap(random.integers(0, 400, 400)) for _ in range(400)]
    assert np.percentile(resampled, (2.5, 97.5)) == pytest.approx((low, high), abs=0.01)
    assert macro_f1_gap(a, a) == (0, 0, 0)
