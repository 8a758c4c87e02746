"""What the tests of all kernels share."""

import json
from pathlib import Path

import torch

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def worked(op):
    """`<op>.json`, numbers worked out by `derive_<op>.py`, as the arguments of parametrize."""
    cases = json.loads((Path(__file__).parent / f"{op}.json").read_text())
    return {"argvalues": cases, "ids": [case["name"] for case in cases]}


def numbers(values):
    """float64 tensor of lists of decimal strings."""
    return torch.tensor([numbers(v).tolist() if isinstance(v, list) else float(v) for v in values], dtype=torch.float64)
