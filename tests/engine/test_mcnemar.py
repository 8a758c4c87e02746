"""McNemar's test of runs that were scored on the same rows."""

import numpy as np
import pytest
from scipy.stats import binomtest

from affect.engine.report.mcnemar import mcnemar_table, p_value, write_answers

NAMES = ("a", "b", "c")


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
            write_answers(tmp_path / name, label[::-1] if name == "other" else label, np.array(predicted), NAMES)
    table = mcnemar_table([tmp_path / name for name in runs])
    assert table.cells == [["x, y", "6", "1", "2", "+16.67", "1"]]
    assert mcnemar_table([tmp_path / "x", tmp_path / "none"]) is None
