"""Which implementation runs, and the reason that is given."""

import pytest
import torch

from affect.kernels.dispatch import WIDEST, choose


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


def test_on_cuda_triton_is_taken_where_it_was_the_fastest_and_is_installed(monkeypatch):
    from affect.kernels import dispatch as module

    def provider(device, asked=""):
        return module._provider("dkd", device, False, 0, asked, False)

    monkeypatch.setattr(module, "FASTEST", frozenset())
    assert provider("cuda") == ("reference", "its kernel has not been timed on a GPU; KERNELS=triton takes it")
    assert provider("cuda", "triton") == ("triton", "KERNELS=triton")
    monkeypatch.setattr(module, "FASTEST", frozenset({"dkd"}))
    assert provider("cuda") == ("triton", "cuda tensor, the fastest measured")
    assert provider("cpu") == ("reference", "cpu tensor")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert provider("cuda") == ("reference", "triton not installed")
    with pytest.raises(ValueError, match="expected triton installed"):
        provider("cuda", "triton")


def test_the_folders_are_the_ops():
    import affect.kernels as kernels

    assert kernels.OPS == ("arcface_ce", "arcface_head", "dkd", "proto_kd")
    assert sorted(kernels.__all__) == ["OPS", "arcface_ce", "arcface_head", "dkd", "one_hot_floor", "proto_kd"]
    assert all(callable(getattr(kernels, name)) for name in kernels.OPS)
