"""The whole network: pixels in, features and outputs out."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from affect.engine.config import RunConfig
from affect.engine.log import say
from affect.engine.models.heads import HEADS, Head
from affect.engine.task import TaskSpec
from affect.shards.errors import InputError, nearest
from affect.shards.schema import TargetLayout

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Normalise(nn.Module):
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, zero mean and unit deviation by ImageNet's figures.

    Inside the model, so that whoever feeds it cannot get it wrong. The cast comes first: TensorRT refuses a uint8 transpose.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD) * 255, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.channels_last = True  # else in NCHW memory: convolutions follow their input

    def forward(self, images: Tensor) -> Tensor:
        """By rows of pixels: on a CPU torch is three times as slow with an innermost axis of three numbers."""
        width = images.shape[2]
        rows = images.flatten(2).float()  # (B, H, W * 3)
        planes = ((rows - self.mean.repeat(width)) / self.std.repeat(width)).unflatten(2, (width, 3)).permute(0, 3, 1, 2)
        return planes if self.channels_last else planes.contiguous()


class FrameModel(nn.Module):
    """images (B, H, W, 3) uint8 -> features (B, D), outputs name -> (B, C)."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.normalise, self.backbone, self.head = Normalise(), backbone, head

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.head(self.backbone(self.normalise(images)))


def build_model(run: RunConfig, task: TaskSpec, layout: TargetLayout) -> FrameModel:
    """The network of a run for the outputs of a dataset. Raises InputError where timm has no such backbone."""
    config = run.model
    if not timm.is_model(config.backbone):
        raise InputError(f"model.backbone: timm has no {config.backbone!r}{nearest(config.backbone, timm.list_models())}")
    if config.pretrained:
        say(f"model: fetching pretrained weights of {config.backbone} from the hub")
    try:
        backbone = timm.create_model(config.backbone, pretrained=config.pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        if not config.pretrained:
            raise
        raise InputError(
            f"model.pretrained: the weights of {config.backbone} cannot be fetched ({type(error).__name__}); "
            "go online, or train from scratch: --set model.pretrained=false"
        ) from error
    counts = {name: len(layout.output(name).names) for name in task.outputs}
    return FrameModel(
        backbone, HEADS[task.head](backbone.head_hidden_size, counts, run)
    )  # after a last layer that num_features precedes
