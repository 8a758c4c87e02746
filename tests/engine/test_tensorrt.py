"""TensorRT engines are built of every graph that is exported, and one of something else is never loaded."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch

from affect.engine.export import tensorrt
from affect.engine.export.export import export
from affect.engine.export.onnx import write_onnx
from affect.engine.export.tensorrt import Facts, Gpu, Profile, engine_of, read
from affect.engine.models.temporal import HEADS as TEMPORAL
from affect.engine.package import ModelPackage
from affect.shards.errors import InputError

ADA = Gpu("", ("8.9",))
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed, which builds without a GPU"
)
