"""Models of clips: every frame through one encoder, then a temporal head over their features.

Axes: B batch, T frames, N frames of any clips, F features of a frame, D features of the clip, S side signals, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from affect.engine.config.network import ModelConfig
from affect.engine.models.heads import Head
from affect.engine.models.normalise import Normalise
from affect.engine.system.log import say
from affect.shards.errors import InputError, nearest

SMALL_CNN = "small_cnn"


class SmallCnn(nn.Module):
    """Planes (N, 3, H, W) -> (N, 256): four times a convolution, BatchNorm, ReLU and halving; the mean.

    The encoder of the reference recipe: docs/recipes/cattle_pain.md.
    """

    head_hidden_size = 256

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128), (128, 256)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, planes: Tensor) -> Tensor:
        return self.layers(planes).mean((2, 3))


def frame_backbone(config: ModelConfig) -> nn.Module:
    """`small_cnn`, or timm's of that name without its classifier; `head_hidden_size` is the width of what it returns.

    Raises: InputError where there is no such backbone, it does not take these options, or its weights cannot be had.
    """
    name, pretrained = config.backbone, config.pretrained
    if name == SMALL_CNN:
        if config.options:
            raise InputError(f"model.options: {SMALL_CNN} has none; take model.options: {{}}, or a backbone of timm")
        if pretrained:
            raise InputError(f"model.pretrained: there are no weights of {SMALL_CNN}; train from scratch: model.pretrained=false")
        return SmallCnn()
    if not timm.is_model(name):
        raise InputError(f"model.backbone: timm has no {name!r}{nearest(name, [SMALL_CNN, *timm.list_models()])}")
    if pretrained:
        say(f"model: fetching pretrained weights of {name} from the hub")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **config.options)
    except (OSError, RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        if config.options:
            raise InputError(
                f"model.options: timm's {name} cannot be made with {config.options} ({type(error).__name__}: {error}); "
                "see its keyword arguments, or take model.options: {}"
            ) from error
        if not pretrained:
            raise
        raise InputError(
            f"model.pretrained: the weights of {name} cannot be fetched ({type(error).__name__}); "
            "go online, or train from scratch: --set model.pretrained=false"
        ) from error


def width_of(backbone: nn.Module) -> int:
    """F: after a last layer that timm's num_features precedes."""
    width = backbone.head_hidden_size
    assert isinstance(width, int)
    return width


class FrameEncoder(nn.Module):
    """inputs (N, H, W, 3) uint8 -> (N, F); width: F. A graph of its own when a clip model is exported."""

    def __init__(self, normalise: Normalise, backbone: nn.Module) -> None:
        super().__init__()
        self.normalise, self.backbone = normalise, backbone
        self.width = width_of(backbone)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.backbone(self.normalise(inputs))


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Let code inside change copies of the module's buffers: a BatchNorm would count a batch again that is computed again."""
    owned = [(part, name, buffer) for part in module.modules() for name, buffer in part.named_buffers(recurse=False)]
    for part, name, buffer in owned:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in owned:
            setattr(part, name, buffer)


class ClipModel(nn.Module):
    """inputs (B, T, H, W, 3) uint8 -> features (B, D), outputs name -> (B, C).

    Its weights are named as a FrameModel's: `backbone.*`, so that a clip model can start from a model of single pictures, and
    `head.*`, the temporal head.

    chunk: encode at most so many frames at a time, 0: all at once. Each chunk takes frames evenly from all over the batch. While
    training, BatchNorm takes its statistics from a chunk and counts each chunk, so the numbers are not those of chunk 0; without
    BatchNorm, and in evaluation, they are.
    checkpointing: store a chunk's pictures only and compute its activations again on the way back, with the same numbers. It
    saves memory together with a chunk; all frames at once are also computed again all at once.
    """

    def __init__(self, encoder: FrameEncoder, temporal: Head, chunk: int = 0, checkpointing: bool = False) -> None:
        super().__init__()
        if chunk < 0:
            raise InputError(f"clip model: chunk: expected frames at a time, or 0 for all at once; found {chunk}")
        self.normalise, self.backbone, self.head = encoder.normalise, encoder.backbone, temporal
        self.chunk, self.checkpointing = chunk, checkpointing

    @property
    def encoder(self) -> FrameEncoder:
        """A module that shares the weights: inputs (N, H, W, 3) uint8 -> (N, F)."""
        encoder = FrameEncoder(self.normalise, self.backbone)
        encoder.training = self.training  # of itself alone: parts of the backbone may be frozen
        return encoder

    @property
    def temporal(self) -> Head:
        """(B, T, F), side -> features (B, D), outputs name -> (B, C)."""
        return self.head

    def forward(self, inputs: Tensor, side: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """inputs (B, T, H, W, 3) uint8, side (B, S) where the head was built for it."""
        return self.head(self.frames(inputs), side)

    def encode(self, inputs: Tensor) -> Tensor:
        """inputs (N, H, W, 3) uint8 -> (N, F), all at once."""
        return self.backbone(self.normalise(inputs))

    def frames(self, inputs: Tensor) -> Tensor:
        """inputs (B, T, H, W, 3) uint8 -> (B, T, F), in chunks."""
        if inputs.ndim != 5 or not inputs.shape[1]:
            raise InputError(f"clip model: inputs: expected (B, T, H, W, 3) with T of at least 1, got {tuple(inputs.shape)}")
        flat = inputs.flatten(0, 1)
        if not self.chunk or torch.compiler.is_exporting():  # a graph takes any number of clips
            encoded = self._encoded(flat)
        else:
            chunks = -(-len(flat) // self.chunk)
            parts = [self._encoded(flat[first::chunks]) for first in range(chunks)]
            place = torch.cat([torch.arange(first, len(flat), chunks, device=flat.device) for first in range(chunks)])
            encoded = torch.cat(parts)[place.argsort()]
        return encoded.unflatten(0, inputs.shape[:2])

    def _encoded(self, inputs: Tensor) -> Tensor:
        if not self.checkpointing or not torch.is_grad_enabled():
            return self.encode(inputs)
        if torch.compiler.is_compiling():  # a compiled step writes buffers once, at its end
            return checkpoint(self.encode, inputs, use_reentrant=False)
        return checkpoint(
            self.encode, inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), unchanged_buffers(self.backbone))
        )


class TwoBackbones(nn.Module):
    """planes (N, 3, H, W) -> (N, Fa + Fb)."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.head_hidden_size = width_of(a) + width_of(b)

    def forward(self, planes: Tensor) -> Tensor:
        return torch.cat([self.a(planes), self.b(planes)], 1)


class TwoTemporals(Head):
    """(B, T, Fa + Fb) -> features (B, Da + Db) side by side, outputs name -> (B, C), the mean of both.

    While training also the outputs of each alone, as `<name>.a` and `<name>.b`.
    """

    def __init__(self, a: Head, b: Head, widths: tuple[int, int]) -> None:
        super().__init__()
        self.a, self.b, self.widths = a, b, list(widths)
        self.width = a.width + b.width

    def forward(self, frames: Tensor, side: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        left, right = frames.split(self.widths, 2)
        (features_a, a), (features_b, b) = self.a(left, side), self.b(right, side)
        outputs = {name: (a[name] + b[name]) / 2 for name in a}
        if self.training:
            outputs |= {f"{name}.{part}": one[name] for name in a for part, one in (("a", a), ("b", b))}
        return torch.cat([features_a, features_b], 1), outputs

    def at_epoch(self, epoch: int) -> None:
        self.a.at_epoch(epoch)
        self.b.at_epoch(epoch)

    def is_final(self, epoch: int) -> bool:
        return self.a.is_final(epoch) and self.b.is_final(epoch)

    def start_at(self, output: str, values: Tensor) -> None:
        self.a.start_at(output, values)
        self.b.start_at(output, values)


class TwoNetworks(ClipModel):
    """ReSup: two models of the same outputs that are trained side by side, each to be weighted by the outputs of the other.

    Outputs: see TwoTemporals. Both see the same pictures, so they must have been initialised differently. Chunk and
    checkpointing are those of `a`.
    """

    def __init__(self, a: ClipModel, b: ClipModel) -> None:
        assert not {id(weight) for weight in a.parameters()} & {id(weight) for weight in b.parameters()}, "one network, twice"
        widths = width_of(a.backbone), width_of(b.backbone)
        encoder = FrameEncoder(a.normalise, TwoBackbones(a.backbone, b.backbone))
        super().__init__(encoder, TwoTemporals(a.head, b.head, widths), a.chunk, a.checkpointing)
