"""A run is a short YAML file: what differs from the defaults. Here: the whole of it, and what its sections must agree on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from affect.engine.config.data import AUTO, DataConfig
from affect.engine.config.digest import digest_of
from affect.engine.config.loss import LossConfig
from affect.engine.config.network import ModelConfig
from affect.engine.config.optimisation import OptimConfig
from affect.engine.config.preprocess import Clahe, Preprocess
from affect.engine.config.section import YAML_1_1, Section
from affect.engine.tasks import TASKS
from affect.shards.errors import nearest

Precision = Annotated[Literal["auto", "bf16", "fp16", "off"], YAML_1_1]
Compile = Annotated[Literal["auto", "off", "default", "reduce-overhead", "max-autotune"], YAML_1_1]


class CalibrationConfig(Section):
    """Calibration on the calib rows when a run ends: the temperature (one, one a class, or a fixed one) and conformal sets."""

    mode: Annotated[Literal["global", "vector", "fixed", "none"], YAML_1_1] = "global"
    temperature: float = Field(1.0, ge=1e-2)  # of mode fixed
    coverage: float | None = Field(None, gt=0, lt=1)  # share of faces whose set contains their label; null: no conformal sets


class TrainConfig(Section):
    """How a training step is computed. None of it changes what is learned, beyond rounding."""

    device: str = "auto"
    precision: Precision = "auto"
    compile: Compile = "auto"  # a mode of torch.compile; auto: default on a GPU, off on a CPU
    channels_last: bool = True
    log_every_s: float = Field(10.0, gt=0)
    checkpoint_every_s: float = Field(300.0, gt=0)  # besides the one at each epoch's end
    track: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(default_factory=lambda: ["tensorboard"])  # type: ignore[arg-type]


class RunConfig(Section):
    """A whole run."""

    task: str
    name: str = ""  # of the run's folder, as in RN18_resnet18_seed1337_stageA_img224; empty: the config's name
    stage: str = "A"
    seed: int = Field(1337, ge=0)
    species: str = ""  # whose faces, for the package: human, cattle, mouse; empty: the task's
    subject: Literal["full", "human_face"] = "full"  # for the package: human_face: detect faces; full: each picture is a face
    view: str = ""  # from where faces are seen, for the package: frontal, from the side
    chosen_on: dict[str, str] = Field(default_factory=dict)  # sets by which these settings were chosen: marked in every table
    data: DataConfig
    model: ModelConfig = ModelConfig()
    optim: OptimConfig
    loss: LossConfig = LossConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    train: TrainConfig = TrainConfig()

    @field_validator("task")
    @classmethod
    def known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}{nearest(task, TASKS)}; there are: {', '.join(TASKS)}")
        return task

    @model_validator(mode="after")
    def imbalance_is_corrected_once(self) -> Self:
        check_corrections(self.data, self.loss.class_weights)
        return self

    @model_validator(mode="after")
    def schedule_fits(self) -> Self:
        arcface, epochs = self.loss.arcface, self.optim.epochs
        if arcface and TASKS[self.task].head != "arcface":
            raise ValueError(f"loss.arcface: {self.task} has no cosine head; take task: emotion_teacher, or arcface: null")
        if arcface and arcface.full_epoch >= epochs:
            raise ValueError(
                f"loss.arcface: the margin is whole at epoch {arcface.full_epoch}, but the last of optim.epochs={epochs} is "
                f"{epochs - 1}. The recipe scaled to {epochs}: --set loss.arcface.from_epoch={epochs * 5 // 60} "
                f"--set loss.arcface.full_epoch={epochs * 15 // 60}"
            )
        au = self.loss.au
        if au.weight and (whole := max(au.from_epoch, au.full_epoch)) >= epochs:
            raise ValueError(
                f"loss.au: its weight is whole at epoch {whole}, but the last of optim.epochs={epochs} is {epochs - 1}. Scaled "
                f"to {epochs}: --set loss.au.from_epoch={epochs // 5} --set loss.au.full_epoch={epochs * 2 // 5}"
            )
        return self

    @model_validator(mode="after")
    def distillation_fits(self) -> Self:
        augment = self.data.augment
        for name, settings in self.loss.terms.items():
            settings.check_epochs(f"loss.{name}", self.optim.epochs)
        if self.loss.teacher and not self.loss.teacher.run and (augment.mixup or augment.cutmix):
            raise ValueError(
                "loss.teacher: stored soft labels are of single pictures; with mixup or cutmix take teacher.run and online"
            )
        return self

    @model_validator(mode="after")
    def two_networks_are_there(self) -> Self:
        if self.loss.resup and (self.model.temporal.networks != 2 or TASKS[self.task].input != "clip"):
            raise ValueError(
                "loss.resup: needs two networks, which weight samples for each other, of a task of clips: "
                "--set model.temporal.networks=2, or loss.resup: null"
            )
        return self

    @model_validator(mode="after")
    def mirror_is_of_pictures(self) -> Self:
        if self.model.mirror and TASKS[self.task].input == "clip":
            raise ValueError(f"model.mirror: {self.task} sees clips; it is of single pictures, take model.mirror: false")
        return self

    @model_validator(mode="after")
    def side_joins_clips(self) -> Self:
        if self.data.side and TASKS[self.task].input != "clip":
            raise ValueError(f"data.side: {self.task} sees single pictures; take a task of clips, or data.side: []")
        return self

    @model_validator(mode="after")
    def batch_divides(self) -> Self:
        if self.data.batch_size != AUTO and self.data.batch_size % self.optim.accumulate:
            raise ValueError(
                f"optim.accumulate: {self.data.batch_size} samples per update do not divide into {self.optim.accumulate} "
                "equal micro-batches"
            )
        return self

    @property
    def folder(self) -> str:
        """The name of the run's folder, in the form of the reference recipes; empty where `name` is."""
        pretrained = "_pretrained" if self.model.pretrained else ""
        size = self.model.image_size
        return self.name and f"{self.name}_{self.model.backbone}_seed{self.seed}{pretrained}_stage{self.stage}_img{size}"

    @property
    def preprocess(self) -> Preprocess:
        clahe = self.data.clahe
        size = self.model.image_size
        return Preprocess(
            margin=self.data.margin,
            align=self.data.align,
            size=size,
            resize=self.data.resize,
            color=self.data.color,
            clahe=Clahe(clahe.clip_limit, clahe.tiles or max(1, round(size / 28)), clahe.p, clahe.clip_jitter) if clahe else None,
        )

    def dump(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @property
    def digest(self) -> str:
        """Hash of all that decides what is learned: without `train`, `calibration`, names and the loader's settings."""
        return digest_of(self.model_dump(mode="json"))


def check_corrections(data: DataConfig, class_weights: object) -> None:
    """Refuse an imbalance corrected by the sampler and by the loss, unless asked for; `class_weights` may be off."""
    if data.sampler != "shuffle" and class_weights not in (None, False, "off", "none") and not data.allow_double_correction:
        raise ValueError(
            f"data.sampler: {data.sampler} and loss.class_weights correct the imbalance twice; drop one, "
            "or: --set data.allow_double_correction=true"
        )
