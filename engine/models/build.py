"""The whole network: pixels in, features and outputs out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affect.engine.config.run import RunConfig
from affect.engine.models.clip_model import ClipModel, FrameEncoder, TwoNetworks, frame_backbone, width_of
from affect.engine.models.heads import HEADS, Head
from affect.engine.models.normalise import Normalise
from affect.engine.models.temporal import TEMPORALS, Differences
from affect.engine.tasks.spec import TaskSpec
from affect.shards.errors import InputError
from affect.shards.schema import TargetLayout


class FrameModel(nn.Module):
    """inputs (B, H, W, 3) uint8 -> features (B, D), outputs name -> (B, C).

    mirror: evaluating, and so in every graph, both are the means over a picture and its mirror image.
    """

    def __init__(self, backbone: nn.Module, head: Head, *, mirror: bool = False) -> None:
        super().__init__()
        self.normalise, self.backbone, self.head, self.mirror = Normalise(), backbone, head, mirror

    def forward(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training or not self.mirror:
            return self.head(self.backbone(self.normalise(inputs)))
        features, outputs = self.head(self.backbone(self.normalise(torch.cat([inputs, inputs.flip(2)]))))
        return _mean_of_halves(features), {name: _mean_of_halves(values) for name, values in outputs.items()}


def _mean_of_halves(values: Tensor) -> Tensor:
    """(2B, C) -> (B, C)."""
    return values.unflatten(0, (2, -1)).mean(0)


def build_model(run: RunConfig, task: TaskSpec, layout: TargetLayout) -> FrameModel | ClipModel:
    """The network of a run for the outputs of a dataset. Raises InputError where there is no such backbone."""
    counts = {name: len(layout.output(name).names) for name in task.outputs}
    if task.input == "clip":
        first = _clip_model(run, task, counts)
        return TwoNetworks(first, _clip_model(run, task, counts)) if run.model.temporal.networks == 2 else first
    backbone = frame_backbone(run.model)
    return FrameModel(backbone, HEADS[task.head](width_of(backbone), counts, run), mirror=run.model.mirror)


def _clip_model(run: RunConfig, task: TaskSpec, counts: Mapping[str, int]) -> ClipModel:
    config, clip = run.model.temporal, run.data.clip
    if clip is None:
        raise InputError(f"data.clip: {task.name} learns from clips; say how many frames it sees: --set data.clip.frames=16")
    encoder = FrameEncoder(Normalise(), frame_backbone(run.model))
    kind = config.head or task.head
    settings = {
        "lstm_attention": {"hidden": config.hidden},
        "transformer": {
            "size": config.size,
            "layers": config.layers,
            "heads": config.heads,
            "feed": config.feed,
            "hidden": config.hidden,
        },
    }.get(kind, {})
    width = encoder.width * (2 if config.differences else 1)
    head = TEMPORALS[kind](width, counts, clip.frames, run.model.dropout, len(run.data.side), **settings)
    return ClipModel(encoder, Differences(head) if config.differences else head, config.chunk, config.checkpointing)
