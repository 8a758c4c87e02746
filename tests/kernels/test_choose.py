"""Which implementation runs, and the reason that is given."""

import pytest
import torch

from affect.kernels.choose import WIDEST, choose


def test_choose_tells_its_reason(monkeypatch):
    cos = torch.zeros(4, 3)
    monkeypatch.delenv("KERNELS", raising=False)
    assert (choose("arcface_ce", cos).provider, choose("arcface_ce", cos).reason) == ("reference", "cpu tensor")
    monkeypatch.setenv("KERNELS", "reference")
    assert choose("arcface_ce", cos).reason == "KERNELS=reference"
    monkeypatch.setenv("KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose("arcface_ce", cos).provider == "triton"
    assert choose("arcface_ce", cos.double()).reason == "float64"
    assert choose("arcface_ce", torch.zeros(1, WIDEST + 1)).reason == f"more than {WIDEST} classes"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="KERNELS=triton: expected a CUDA tensor, found a cpu tensor; set TRITON_INTERPRET=1"):
        choose("arcface_ce", cos)
    monkeypatch.setenv("KERNELS", "cuda")
    with pytest.raises(ValueError, match="KERNELS: expected reference or triton, found 'cuda'"):
        choose("arcface_ce", cos)


def test_choose_takes_triton_for_cuda_where_it_is_installed(monkeypatch):
    from affect.kernels import choose as module

    assert module._provider("cuda", False, 0, "", False) == ("triton", "cuda tensor")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert module._provider("cuda", False, 0, "", False) == ("reference", "triton not installed")
    assert module._provider("cpu", False, 0, "", False) == ("reference", "cpu tensor")
    with pytest.raises(ValueError, match="expected triton installed"):
        module._provider("cuda", False, 0, "triton", False)
