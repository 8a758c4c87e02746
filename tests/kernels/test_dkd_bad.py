"""dkd: what it refuses, and what its messages name."""

import math

import pytest
import torch

from affect.kernels import dkd

from .common import DEVICE

TABLE = {"teacher": torch.zeros(9, 3), "rows": torch.zeros(4).long()}
BAD = {
    "three axes": ({"student": torch.zeros(4, 3, 2)}, r"student: expected two axes, found \(4, 3, 2\)"),
    "integer logits": ({"student": torch.zeros(4, 3).int()}, "student: expected float32, .* found torch.int32"),
    "no rows": ({"student": torch.zeros(0, 3)}, r"student: expected at least one row, found \(0, 3\)"),
    "one class": ({"student": torch.zeros(4, 1)}, r"student: expected at least two classes, found \(4, 1\)"),
    "other classes": ({"teacher": torch.zeros(4, 5)}, r"teacher: expected \(4, 3\), found \(4, 5\)"),
    "an integer teacher": ({"teacher": torch.zeros(4, 3).int()}, "teacher: expected a float dtype, found torch.int32"),
    "a teacher that learns": ({"teacher": torch.zeros(4, 3, requires_grad=True)}, "teacher: expected no gradient .*detach"),
    "teacher elsewhere": ({"teacher": torch.zeros(4, 3, device="meta")}, "teacher: expected a tensor on .*, found meta"),
    "a table of others": (TABLE | {"teacher": torch.zeros(9, 5)}, r"teacher: expected a table \(N, 3\), .*, found \(9, 5\)"),
    "an empty table": (TABLE | {"teacher": torch.zeros(0, 3)}, r"teacher: expected a table \(N, 3\), .*, found \(0, 3\)"),
    "too many numbers": (TABLE | {"rows": torch.zeros(5).long()}, r"rows: expected \(4,\), found \(5,\)"),
    "int32 numbers": (TABLE | {"rows": torch.zeros(4).int()}, "rows: expected int64, found torch.int32"),
    "numbers elsewhere": (TABLE | {"rows": torch.zeros(4, device="meta").long()}, "rows: expected a tensor on .*, found meta"),
    "other rows": ({"target": torch.zeros(5).long()}, r"target: expected \(4,\) labels or \(4, 3\) distributions, found \(5,\)"),
    "int32 labels": ({"target": torch.zeros(4).int()}, "target: expected int64 labels, found torch.int32"),
    "temperature 0": ({"temperature": 0.0}, "temperature: expected a finite number > 0, found 0.0"),
    "negative alpha": ({"alpha": -1.0}, "alpha: expected a finite number >= 0, found -1.0"),
    "beta NaN": ({"beta": math.nan}, "beta: expected a finite number >= 0, found nan"),
    "ce inf": ({"ce": math.inf}, "ce: expected a finite number >= 0, found inf"),
    "negative weight": ({"weight": -0.1}, "weight: expected a finite number >= 0, found -0.1"),
    "a weight per row": ({"weight": torch.zeros(4)}, r"weight: expected \(\), found \(4,\)"),
    "sample weights": ({"sample_weight": torch.ones(3)}, r"sample_weight: expected \(4,\), found \(3,\)"),
    "reduction": ({"reduction": "none"}, "reduction: expected 'sum' or 'mean', found 'none'"),
    "count of a sum": ({"reduction": "sum", "count": torch.ones(())}, "count: expected none with reduction='sum'"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_argument_expected_and_found(name):
    change, message = BAD[name]
    arguments = {"student": torch.zeros(4, 3), "teacher": torch.zeros(4, 3), "target": torch.zeros(4).long()} | change
    with pytest.raises(ValueError, match=f"^dkd: {message}"):
        dkd(**arguments)


def test_values_are_read_only_when_asked_for(monkeypatch):
    student, table = torch.zeros(4, 3, device=DEVICE), torch.zeros(9, 3, device=DEVICE)
    samples = torch.tensor([8, 0, 9, -5], device=DEVICE)
    good = {"teacher": table, "target": torch.tensor([0, 1, 2, -1], device=DEVICE), "rows": samples % 9}
    bad = [
        ({"target": torch.tensor([0, 1, 3, 0], device=DEVICE)}, r"target: expected labels in \[0, 3\) or -1, found 3 in row 2"),
        ({"rows": samples}, r"rows: expected numbers in \[0, 9\), found 9 in row 2"),
        ({"weight": torch.tensor(-1.0, device=DEVICE)}, "weight: expected no negative and no NaN, found -1.0"),
        ({"sample_weight": torch.tensor([1.0, -1, 1, 1], device=DEVICE)}, "sample_weight: expected no negative"),
    ]
    for change, _ in bad:
        dkd(student, **(good | change))
    monkeypatch.setenv("KERNELS_CHECK", "1")
    dkd(student, **(good | {"rows": samples, "sample_weight": torch.tensor([1.0, 1, 0, 1], device=DEVICE)}))
    for change, message in bad:
        with pytest.raises(ValueError, match=f"dkd: {message}"):
            dkd(student, **(good | change))
