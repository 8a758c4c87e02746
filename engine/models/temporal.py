"""From the features of a clip's frames to outputs.

A temporal head takes the frames' features in the order of time and, where it was built for them, numbers that come with the
clip (heart rate, activity). Like any head it returns (B, D) features and name -> (B, C) logits or values.
Axes: B batch, T frames, F features of a frame, D features of the clip, S side signals, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affect.engine.models.heads import Head
from affect.engine.models.side_signals import Standardise
from affect.shards.errors import InputError


class Temporal(Head):
    """Pools the frames, then one affine map for each output; a subclass says how frames are pooled.

    width: D. hidden: width of a layer before the outputs that all of them share; 0: none.
    side: S, the signals that join the pooled features, which themselves are returned without them. They come as measured,
        NaN where missing, and are standardised here (`side_signals.py`).
    """

    def __init__(self, width: int, outputs: Mapping[str, int], dropout: float, side: int = 0, hidden: int = 0) -> None:
        super().__init__()
        self.width, self.side = width, side
        self.standardise = Standardise(side) if side else None
        self.dropout = nn.Dropout(dropout)
        seen = width + side
        shared = (nn.Linear(seen, hidden), nn.ReLU(), nn.Dropout(dropout)) if hidden else ()
        self.shared = nn.Sequential(*shared)
        self.outputs = nn.ModuleDict({name: nn.Linear(hidden or seen, count) for name, count in outputs.items()})

    def pooled(self, frames: Tensor) -> Tensor:
        """(B, T, F) -> (B, D)."""
        raise NotImplementedError

    def forward(self, frames: Tensor, side: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """frames (B, T, F), side (B, S) -> features (B, D), outputs name -> (B, C). Raises InputError where they do not fit."""
        if frames.ndim != 3 or not frames.shape[1]:
            raise InputError(f"temporal head: frames: expected (B, T, F) with T of at least 1, got {tuple(frames.shape)}")
        features = self.pooled(frames)
        seen = self.shared(self._with_side(self.dropout(features), side))
        return features, {name: layer(seen) for name, layer in self.outputs.items()}

    def _with_side(self, features: Tensor, side: Tensor | None) -> Tensor:
        count = 0 if side is None else side.shape[1]
        if count != self.side:
            raise InputError(f"temporal head: side: built for {self.side} signals a clip, got {count}")
        if side is None or self.standardise is None:
            return features
        return torch.cat([features, self.standardise(side).to(features.dtype)], 1)


class Mean(Temporal):
    """The mean of the frames, whose order it does not see: the baseline of the mouse recipe (docs/recipes/mouse.md)."""

    def __init__(self, width: int, outputs: Mapping[str, int], num_frames: int, dropout: float = 0.0, side: int = 0) -> None:
        super().__init__(width, outputs, dropout, side)

    def pooled(self, frames: Tensor) -> Tensor:
        return frames.mean(1)


class LstmAttention(Temporal):
    """The cattle pain recipe: an LSTM, then a mean over time weighted by a_t = softmax_t(v . tanh(W h_t + b)), dropout, outputs.

    hidden: D, the LSTM's width. attention: rows of W. Source of the weights: Bahdanau et al., ICLR 2015, without a query.
    """

    def __init__(
        self,
        width: int,
        outputs: Mapping[str, int],
        num_frames: int,
        dropout: float = 0.0,
        side: int = 0,
        hidden: int = 256,
        attention: int = 128,
    ) -> None:
        super().__init__(hidden, outputs, dropout, side)
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.score = nn.Sequential(nn.Linear(hidden, attention), nn.Tanh(), nn.Linear(attention, 1, bias=False))

    def attention(self, frames: Tensor) -> Tensor:
        """(B, T, F) -> (B, T) weights, which sum to 1 over a clip."""
        return self._weights(self.lstm(frames)[0])

    def pooled(self, frames: Tensor) -> Tensor:
        states, _ = self.lstm(frames)  # (B, T, D)
        return (self._weights(states)[..., None] * states).sum(1)

    def _weights(self, states: Tensor) -> Tensor:
        return self.score(states).squeeze(2).softmax(1)


class AttentionMil(Temporal):
    """For labels that hold somewhere in the clip: a_t = softmax_t(w . (tanh(V f_t) * sigmoid(U f_t))), blind to the order.

    attention: rows of V and U. Source: Ilse et al., Attention-based deep multiple instance learning, ICML 2018, eq. 9.
    """

    def __init__(
        self,
        width: int,
        outputs: Mapping[str, int],
        num_frames: int,
        dropout: float = 0.0,
        side: int = 0,
        attention: int = 128,
    ) -> None:
        super().__init__(width, outputs, dropout, side)
        self.look, self.gate = nn.Linear(width, attention), nn.Linear(width, attention)
        self.score = nn.Linear(attention, 1, bias=False)

    def attention(self, frames: Tensor) -> Tensor:
        """(B, T, F) -> (B, T) weights, which sum to 1 over a clip."""
        return self.score(self.look(frames).tanh() * self.gate(frames).sigmoid()).squeeze(2).softmax(1)

    def pooled(self, frames: Tensor) -> Tensor:
        return (self.attention(frames)[..., None] * frames).sum(1)


class Block(nn.Module):
    """The computation of nn.TransformerEncoderLayer(norm_first=True), in one form for training, evaluation and export.

    Torch's class takes another path in evaluation, whose numbers differ.
    """

    def __init__(self, size: int, heads: int, feed: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.feed = nn.Sequential(nn.Linear(size, feed), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feed, size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, size) -> (B, T, size)."""
        frames = frames + self.dropout(self._attended(self.norm1(frames)))
        return frames + self.dropout(self.feed(self.norm2(frames)))

    def _attended(self, frames: Tensor) -> Tensor:
        q, k, v = self.qkv(frames).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, size / heads) each
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0)
        return self.out(seen.transpose(1, 2).flatten(2))


class Transformer(Temporal):
    """The mouse recipe: learned positions, layers of attention among the frames, the mean over time, a hidden layer, outputs.

    num_frames: positions that there are; fewer frames take the first ones. size: D; features of another width are projected to
    it. feed: width inside a layer. Raises InputError where a clip has more frames, or size does not divide by heads.
    """

    def __init__(
        self,
        width: int,
        outputs: Mapping[str, int],
        num_frames: int,
        dropout: float = 0.0,
        side: int = 0,
        size: int = 512,
        layers: int = 4,
        heads: int = 8,
        feed: int = 2048,
        hidden: int = 256,
    ) -> None:
        super().__init__(size, outputs, dropout, side, hidden)
        if num_frames < 1:
            raise InputError(f"transformer: num_frames: expected at least 1, found {num_frames}")
        if size % heads:
            raise InputError(f"transformer: size: {size} features do not divide into {heads} heads")
        self.project = nn.Identity() if width == size else nn.Linear(width, size)
        self.positions = nn.Parameter(torch.empty(num_frames, size))
        nn.init.trunc_normal_(self.positions, std=0.5)  # at .02 the order of frames is drowned by what they show
        self.layers = nn.Sequential(*(Block(size, heads, feed, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(size)

    def pooled(self, frames: Tensor) -> Tensor:
        count, most = frames.shape[1], len(self.positions)
        if count > most:
            raise InputError(
                f"transformer: a clip of {count} frames, but it has learned positions for {most}; show it {most} frames at most, "
                f"or train one for {count}"
            )
        placed = self.dropout(self.project(frames) + self.positions[:count])
        return self.norm(self.layers(placed)).mean(1)


class Differences(Head):
    """Shows a head each frame's features and how far they moved since the frame before: f_t and |f_t - f_(t-1)|, 0 at first.

    head: built for features of twice the width. Motion is a difference, which few clips do not teach.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head, self.width = head, head.width

    def forward(self, frames: Tensor, side: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the head returns; frames: (B, T, F)."""
        moved = torch.cat([torch.zeros_like(frames[:, :1]), (frames[:, 1:] - frames[:, :-1]).abs()], 1)
        return self.head(torch.cat([frames, moved], 2), side)

    def start_at(self, output: str, values: Tensor) -> None:
        self.head.start_at(output, values)


TEMPORALS: dict[str, type[Mean] | type[LstmAttention] | type[AttentionMil] | type[Transformer]] = {
    "mean": Mean,
    "lstm_attention": LstmAttention,
    "attention_mil": AttentionMil,
    "transformer": Transformer,
}
