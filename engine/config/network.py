"""The `model` section: the backbone and the layers behind it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from affect.engine.config.section import YAML_1_1, Section


class TemporalConfig(Section):
    """For models of clips: the head that turns features of frames into those of the clip, and how frames are encoded."""

    head: Annotated[Literal["", "mean", "lstm_attention", "transformer", "attention_mil"], YAML_1_1] = ""  # empty: the task's
    hidden: int = Field(256, gt=0)  # width of the LSTM, or of the layer before a transformer's outputs
    size: int = Field(512, gt=0)  # of a transformer: its width, layers, attention heads, width inside a layer
    layers: int = Field(4, gt=0)
    heads: int = Field(8, gt=0)
    feed: int = Field(2048, gt=0)
    differences: bool = False  # the head also sees how far each frame's features moved since the one before
    networks: Literal[1, 2] = 1  # 2: side by side, each sample weighted for one by the prediction of the other (ReSup)
    chunk: int = Field(0, ge=0)  # frames encoded at a time; 0: all
    checkpointing: bool = False  # activations are computed again in the backward pass: less memory, more time

    @model_validator(mode="after")
    def heads_share_evenly(self) -> Self:
        if self.size % self.heads:
            raise ValueError(f"heads: {self.size} features (size) do not divide into {self.heads} heads")
        return self


class ModelConfig(Section):
    """The backbone and the layers behind it."""

    backbone: str = "resnet18"
    options: dict[str, Any] = Field(default_factory=dict)  # of timm's model, as channels: [32, 64, 128, 192] for a narrow ResNet
    pretrained: bool = False
    image_size: int = Field(224, ge=16, le=1024)
    dropout: float = Field(0.0, ge=0, lt=1)
    mirror: bool = False  # predictions are means over a picture and its mirror image, at twice the cost; not in training
    embedding: int = Field(512, gt=0)  # width of the layer before a cosine head
    hidden: list[Annotated[int, Field(gt=0)]] = Field(default_factory=lambda: [1024, 512])  # widths before a shared head
    temporal: TemporalConfig = TemporalConfig()  # of a task on clips
    au_attention: bool = False  # of a shared head: action units see the features through a learned gate
