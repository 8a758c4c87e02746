"""TensorRT engines are built of every graph that is exported, and one of something else is never loaded."""

import importlib.util

import pytest

from affect.engine.export.tensorrt import Gpu

ADA = Gpu("", ("8.9",))
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed, which builds without a GPU"
)
