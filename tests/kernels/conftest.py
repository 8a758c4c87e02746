import math
from contextlib import contextmanager

import pytest
import torch


@pytest.fixture
def guarded(monkeypatch):
    """with guarded(at_least=n): what torch.empty makes there starts as NaN between guards of NaN, and n or more are made.

    After it all of them must have been written whole, and nothing beside them.
    """

    @contextmanager
    def watch(at_least):
        tensors, around = [], 64

        def guarded_empty(*shape, **options):
            shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
            size = math.prod(shape)
            whole = torch.full((size + 2 * around,), torch.nan, **options)
            tensors.append((whole, size))
            return whole[around : around + size].view(shape)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", guarded_empty)
            yield
        assert len(tensors) >= at_least
        for whole, size in tensors:
            assert whole[:around].isnan().all() and whole[around + size :].isnan().all()
            assert whole[around : around + size].isfinite().all()

    return watch
