"""From the backbone's features to outputs.

A head returns (B, D) features, which distillation and prototypes compare, and name -> (B, C) logits.
Axes: B batch, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affect.engine.config.run import RunConfig

UNITS = "au"  # the output that attention serves


class Head(nn.Module):
    """The interface of all heads to training. width: of the features that it returns."""

    width: int

    def at_epoch(self, epoch: int) -> None:
        """Called before each step."""

    def is_final(self, epoch: int) -> bool:
        """Whether the epoch trains the outputs that are exported; before the first such epoch no model is saved as the best."""
        return True

    @torch.no_grad()
    def start_at(self, output: str, values: Tensor) -> None:
        """Let an output begin at these values, (C,): scalars at the training rows' means, so that no step is lost on them."""
        layer = self.get_submodule("outputs").get_submodule(output)
        assert isinstance(layer, nn.Linear)
        layer.bias.copy_(values)


class LinearHead(Head):
    """One affine map for each output."""

    def __init__(self, width: int, outputs: Mapping[str, int], run: RunConfig) -> None:
        super().__init__()
        self.width = width
        self.dropout = nn.Dropout(run.model.dropout)
        self.outputs = nn.ModuleDict({name: nn.Linear(width, count) for name, count in outputs.items()})

    def forward(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        dropped = self.dropout(features)
        return features, {name: layer(dropped) for name, layer in self.outputs.items()}


class SharedHead(Head):
    """Hidden layers that all outputs share, then one affine map for each.

    With attention the units look at the features h through a gate made of a first guess at themselves, sample by sample:
    a = sigmoid(guess(h)), gate = sigmoid(open(a)), units = map(h * gate). After the reference recipe
    (docs/recipes/action_units.md), whose attention went across the batch.
    """

    def __init__(self, width: int, outputs: Mapping[str, int], run: RunConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in run.model.hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(run.model.dropout)]
            width = size
        self.width = width
        self.shared = nn.Sequential(*layers)
        self.outputs = nn.ModuleDict({name: nn.Linear(width, count) for name, count in outputs.items()})
        units = outputs.get(UNITS) if run.model.au_attention else None
        self.guess = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, units)) if units else None
        self.open = nn.Sequential(nn.Linear(units, width // 4), nn.ReLU(), nn.Linear(width // 4, width)) if units else None

    def forward(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = self.shared(features)
        seen = dict.fromkeys(self.outputs, hidden)
        if self.guess is not None and self.open is not None:
            seen[UNITS] = hidden * self.open(self.guess(hidden).sigmoid()).sigmoid()
        return hidden, {name: layer(seen[name]) for name, layer in self.outputs.items()}


class ArcFaceHead(Head):
    """An embedding with two heads on it: a plain one, and one of cosines, scale * cos(embedding, class), without margin.

    Which of them is trained, scored and exported is a tensor, saved with the weights: switching recompiles nothing.
    The margin belongs to the loss. Cosines are taken in float32: half precision cannot tell those near 1 apart.
    """

    def __init__(self, width: int, outputs: Mapping[str, int], run: RunConfig) -> None:
        super().__init__()
        self.width = size = run.model.embedding
        self.arcface = run.loss.arcface
        self.embed = nn.Sequential(nn.Linear(width, size), nn.BatchNorm1d(size), nn.SiLU(), nn.Dropout(run.model.dropout))
        self.plain = nn.ModuleDict({name: nn.Linear(size, count) for name, count in outputs.items()})
        self.classes = nn.ParameterDict({name: nn.Parameter(torch.empty(count, size)) for name, count in outputs.items()})
        for weight in self.classes.values():
            nn.init.xavier_uniform_(weight)
        self.register_buffer("cosine", torch.tensor(False))
        self.cosine: Tensor

    def forward(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        embedding = self.embed(features)
        logits = {name: layer(embedding) for name, layer in self.plain.items()}
        if self.arcface is None:
            return embedding, logits
        kind = embedding.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            unit = F.normalize(embedding.float())
            for name, weight in self.classes.items():
                cosine = F.linear(unit, F.normalize(weight))
                logits[name] = torch.where(self.cosine, self.arcface.scale * cosine, logits[name].float())
        return embedding, logits

    def at_epoch(self, epoch: int) -> None:
        self.cosine.fill_(self.arcface is not None and self.is_final(epoch))

    def is_final(self, epoch: int) -> bool:
        return self.arcface is None or epoch >= self.arcface.from_epoch


HEADS: dict[str, type[LinearHead] | type[ArcFaceHead] | type[SharedHead]] = {
    "linear": LinearHead,
    "arcface": ArcFaceHead,
    "shared": SharedHead,
}
