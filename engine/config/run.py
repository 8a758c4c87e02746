"""A run is a short YAML file: what differs from the defaults. `--set a.b=c` changes one value.

Unknown keys are refused, all problems of a file are said at once.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from affect.engine.config.data import YAML_1_1, AugmentConfig, ClipConfig, Section, Where
from affect.engine.config.digest import digest_of
from affect.engine.config.load import parsed, put, read_yaml, validated
from affect.engine.config.loss import LossConfig
from affect.engine.config.preprocess import MARGIN, Clahe, Preprocess, with_clip_limit
from affect.engine.tasks import TASKS
from affect.shards.errors import InputError, nearest

Precision = Annotated[Literal["auto", "bf16", "fp16", "off"], YAML_1_1]
Compile = Annotated[Literal["auto", "off", "default", "reduce-overhead", "max-autotune"], YAML_1_1]
AUTO = -1
BatchSize = Annotated[int, BeforeValidator(lambda value: AUTO if value == "auto" else value)]


class ClaheConfig(Section):
    """Contrast-limited equalisation; `tiles` 0 chooses tiles of about 28 px."""

    clip_limit: float = Field(2.0, gt=0)
    tiles: int = Field(0, ge=0, le=64)
    p: float = Field(1.0, gt=0, le=1)  # share of training pictures
    clip_jitter: float = Field(0.0, ge=0, lt=1)  # in training drawn from clip_limit * (1 - x) to clip_limit * (1 + x)

    @model_validator(mode="before")
    @classmethod
    def as_it_was_called(cls, value: Any) -> Any:
        """`clip` is what `clip_limit` was called up to version 0.1."""
        return with_clip_limit(value) if isinstance(value, dict) and "clip_limit" not in value else value


class StreamConfig(Section):
    """Read each tar from its first byte to its last: for storage that is remote (anything fsspec opens) or seeks slowly."""

    buffer: int = Field(2048, ge=1)  # pictures held in memory, among which the order is random
    tars: str = ""  # a folder or s3://bucket/path with the dataset's tars; empty: the dataset's folder


class FoldsConfig(Section):
    """Folds of whole groups, in place of the column meta.fold: so many, so many groups left out in each, or as a file says."""

    by: str = "group"  # an index column; rows with the same value stay together
    count: int | None = Field(None, ge=2)
    leave: int | None = Field(None, ge=1)  # groups that validate in a fold
    stratify: str = ""  # an index column or an output of classes, of which every fold gets its share
    file: str = ""  # {test_animals, cv_folds: [{fold, train_animals, val_animals}]}

    @model_validator(mode="after")
    def one_way(self) -> Self:
        given = [name for name in ("count", "leave", "file") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give one of count, leave, file; found {' and '.join(given) or 'none'}")
        if self.file and (self.stratify or self.by != "group"):
            raise ValueError("stratify, by: are for count and leave; a file says itself which groups validate where")
        return self


class DataConfig(Section):
    dataset: Path | list[Path]  # several are read as one, classes by name
    batch_size: BatchSize = 128  # samples per update, over all processes; auto: as many as memory holds
    # sqrt: a class as often as the root of its rows; balanced: all alike; weighted: by the column weight
    sampler: Literal["shuffle", "sqrt", "balanced", "weighted"] = "shuffle"
    allow_double_correction: bool = False  # a sampler and class weights in the loss
    sources: list[str] = Field(default_factory=list)  # of these only; empty: all
    strict_sources: bool = False  # a named source without a row to train on is an error
    fold: int | None = None  # its rows are validation, the others training; by `folds`, or the column meta.fold
    folds: FoldsConfig | None = None
    confidence_min: float = Field(0.0, ge=0, le=1)  # of training rows
    labelled: list[str] = Field(default_factory=list)  # outputs for which training rows must have a label
    where: Where = Field(default_factory=dict)  # index column -> the value or values that rows must have
    train_split: str = "train"
    val_split: str = "val"
    resize: float = Field(1.15, ge=1, le=2)  # evaluation: shorter side = resize * image_size, then the centre
    color: Literal["rgb", "gray"] = "rgb"
    margin: float = Field(MARGIN, ge=0, le=2)  # of a package: room around a found face, to look like the training pictures
    align: bool = False  # of a package: found faces are turned upright, as the training pictures were
    clahe: ClaheConfig | None = ClaheConfig()
    augment: AugmentConfig = AugmentConfig()
    clip: ClipConfig | None = None  # which frames of clips are seen; null: pictures
    side: list[str] = Field(default_factory=list)  # numeric columns meta.NAME of clips, which join what is seen: data/side.py
    loader: Literal["auto", "dali", "plain"] = "auto"
    workers: int = Field(0, ge=0)  # threads that decode; 0: as many as suit the machine
    stream: StreamConfig | None = None  # of the training rows; null: any sample by its place in the index

    @field_validator("batch_size")
    @classmethod
    def some_samples(cls, value: int) -> int:
        if value < 1 and value != AUTO:
            raise ValueError(f"expected a number above 0, or auto; found {value}")
        return value

    @model_validator(mode="after")
    def stream_is_shuffled(self) -> Self:
        if self.stream and (self.sampler != "shuffle" or isinstance(self.dataset, list)):
            raise ValueError(
                "stream: reads one dataset once an epoch; take sampler: shuffle and a single dataset, or stream: null"
            )
        return self

    @field_validator("side")
    @classmethod
    def signals_once(cls, value: list[str]) -> list[str]:
        if twice := sorted({column for column in value if value.count(column) > 1}):
            raise ValueError(f"{', '.join(twice)}: named more than once; each column joins once")
        return value

    @field_validator("dataset", mode="before")
    @classmethod
    def path_or_paths(cls, value: Any) -> Any:
        paths = value if isinstance(value, list) else [value]
        if not paths or not all(isinstance(path, str | Path) for path in paths):
            raise ValueError(f"expected the folder of a packed dataset or a list of them, found {value!r}")
        return value


class TemporalConfig(Section):
    """Of a model of clips: what turns the features of frames into those of the clip, and how frames are encoded."""

    head: Annotated[Literal["", "mean", "lstm_attention", "transformer", "attention_mil"], YAML_1_1] = ""  # empty: the task's
    hidden: int = Field(256, gt=0)  # width of the LSTM, or of the layer before a transformer's outputs
    size: int = Field(512, gt=0)  # of a transformer: its width, layers, attention heads, width inside a layer
    layers: int = Field(4, gt=0)
    heads: int = Field(8, gt=0)
    feed: int = Field(2048, gt=0)
    differences: bool = False  # the head also sees how far each frame's features moved since the one before
    networks: Literal[1, 2] = 1  # 2: side by side, each weighted by what the other thinks of a sample (ReSup)
    chunk: int = Field(0, ge=0)  # frames encoded at a time; 0: all
    checkpointing: bool = False  # activations are computed again on the way back: less memory, more time

    @model_validator(mode="after")
    def heads_share_evenly(self) -> Self:
        if self.size % self.heads:
            raise ValueError(f"heads: {self.size} features (size) do not divide into {self.heads} heads")
        return self


class ModelConfig(Section):
    backbone: str = "resnet18"
    options: dict[str, Any] = Field(default_factory=dict)  # of timm's model, as channels: [32, 64, 128, 192] of a narrow ResNet
    pretrained: bool = False
    image_size: int = Field(224, ge=16, le=1024)
    dropout: float = Field(0.0, ge=0, lt=1)
    mirror: bool = False  # answers are the means over a picture and its mirror image, at twice the work; not in training
    embedding: int = Field(512, gt=0)  # width of the layer before a cosine head
    hidden: list[Annotated[int, Field(gt=0)]] = Field(default_factory=lambda: [1024, 512])  # widths before a shared head
    temporal: TemporalConfig = TemporalConfig()  # of a task on clips
    au_attention: bool = False  # of a shared head: its units see the features through a gate that they open themselves


class EarlyStopping(Section):
    """End when the metric has not risen by more than `min_delta` for `patience` epochs, not before `min_epochs` epochs.

    Only epochs whose model could be the result count: in an ArcFace run those with the cosine head.
    """

    patience: int = Field(10, gt=0)
    min_delta: float = Field(0.0, ge=0)
    min_epochs: int = Field(5, ge=0)


class PlateauConfig(Section):
    """The rate is multiplied by `factor` whenever the selecting figure has not improved for more than `patience` epochs."""

    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(7, ge=0)
    min_delta: float = Field(0.0, ge=0)


class OptimConfig(Section):
    """The rate rises over `warmup_epochs` to `lr` and falls as a cosine or on plateaus, never below `min_lr`."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd
    plateau: PlateauConfig | None = None  # null: a cosine

    epochs: int = Field(gt=0)
    steps: int | None = Field(None, gt=0)  # updates after which the run ends, for a trial; the schedule stays that of `epochs`
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_epochs: float = Field(2.0, ge=0)
    min_lr: float = Field(1e-5, ge=0)
    clip_norm: float | None = Field(1.0, gt=0)  # L2 over all parameters
    accumulate: int = Field(1, gt=0)  # micro-batches per update; the gradient is that of the whole batch
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the weights' moving average, which is then scored and kept; 0: off
    select_by: str = ""  # the figure by which the best epoch is chosen; empty: the task's
    keep: Literal["best", "last"] = "best"  # last: no epoch is chosen, so rows that are scored have chosen nothing
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def last_is_not_stopped(self) -> Self:
        if self.keep == "last" and self.early_stopping:
            raise ValueError("keep: last, but early_stopping chooses the epoch by the rows that are scored; take null for one")
        return self

    @model_validator(mode="after")
    def warmup_fits(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} is not below epochs ({self.epochs}); take fewer, e.g. 0.5")
        return self


class CalibrationConfig(Section):
    """What is fitted on the calib rows when a run ends: the temperature (one, one a class, or a given one), conformal sets."""

    mode: Annotated[Literal["global", "vector", "fixed", "none"], YAML_1_1] = "global"
    temperature: float = Field(1.0, ge=1e-2)  # of mode fixed
    coverage: float | None = Field(None, gt=0, lt=1)  # share of faces whose set holds their label; null: no conformal sets


class TrainConfig(Section):
    """How a step is taken. None of it changes what is learned, beyond rounding."""

    device: str = "auto"
    precision: Precision = "auto"
    compile: Compile = "auto"  # a mode of torch.compile; auto: default on a GPU, off on a CPU
    channels_last: bool = True
    log_every_s: float = Field(10.0, gt=0)
    checkpoint_every_s: float = Field(300.0, gt=0)  # besides the one at each epoch's end
    track: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(default_factory=lambda: ["tensorboard"])  # type: ignore[arg-type]


class RunConfig(Section):
    task: str
    name: str = ""  # of the run's folder, as in RN18_resnet18_seed1337_stageA_img224; empty: the config's own
    stage: str = "A"
    seed: int = Field(1337, ge=0)
    species: str = ""  # whose faces, for the package: human, cattle, mouse; empty: by the task's name
    subject: Literal["full", "human_face"] = "full"  # who a package looks for: human_face, or full, each picture is one face
    view: str = ""  # from where they are seen, for the package: frontal, from the side
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
        geo, dkd, epochs, augment = self.loss.d_geo, self.loss.dkd, self.optim.epochs, self.data.augment
        if geo and geo.schedule == "late_cosine" and geo.end_epoch >= epochs:
            raise ValueError(
                f"loss.d_geo: its weight is whole at epoch {geo.end_epoch}, but the last of optim.epochs={epochs} is "
                f"{epochs - 1}. The recipe scaled to {epochs}: --set loss.d_geo.start_epoch={epochs // 5} "
                f"--set loss.d_geo.end_epoch={epochs * 3 // 5}"
            )
        if dkd and dkd.warmup_epochs >= epochs:
            raise ValueError(
                f"loss.dkd.warmup_epochs: {dkd.warmup_epochs} is not below optim.epochs ({epochs}); take fewer, e.g. "
                f"{epochs // 12}"
            )
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
        """The seeds' form of a run's name; empty where `name` is."""
        made = "_pretrained" if self.model.pretrained else ""
        size = self.model.image_size
        return self.name and f"{self.name}_{self.model.backbone}_seed{self.seed}{made}_stage{self.stage}_img{size}"

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
        """Of all that decides what is learned: `train`, `calibration`, names and the loader's settings are left out."""
        return digest_of(self.model_dump(mode="json"))


def check_corrections(data: DataConfig, class_weights: object) -> None:
    """Refuse an imbalance corrected by the sampler and by the loss, unless asked for; `class_weights` may be off."""
    if data.sampler != "shuffle" and class_weights not in (None, False, "off", "none") and not data.allow_double_correction:
        raise ValueError(
            f"data.sampler: {data.sampler} and loss.class_weights correct the imbalance twice; drop one, "
            "or: --set data.allow_double_correction=true"
        )


def find_config(name: str) -> Path:
    """A YAML file by path, or a config of the package by its name: `smoke`, `ferplus_rn18`."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(str(resources.files("affect.configs")))
    known = {file.stem: file for file in sorted(shipped.glob("*/*.yaml"))}
    if path.name.removesuffix(".yaml") in known and len(path.parts) == 1:
        return known[path.name.removesuffix(".yaml")]
    raise InputError(f"{name}: no such file or config{nearest(name, known)}; configs: {', '.join(known)}")


def load_config(name: str, settings: list[str] | None = None) -> RunConfig:
    """Read a config file, apply `a.b=c` settings. Raises InputError with every problem at once."""
    path = find_config(name)
    value = read_yaml(path)
    for setting in settings or []:
        put(value, *parsed(setting))
    return validated(RunConfig, value, str(path))
