"""The `data` section: which rows are trained on, how they are read, and how pictures and clips are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from affect.engine.config.augmentation import AugmentConfig
from affect.engine.config.preprocess import MARGIN, with_clip_limit
from affect.engine.config.section import Section, Where

AUTO = -1
BatchSize = Annotated[int, BeforeValidator(lambda value: AUTO if value == "auto" else value)]


class ClipConfig(Section):
    """Which stored frames of a clip the model sees, in the order of time: `frames` of those in [start_s, end_s).

    uniform: spread evenly over all, the first and the last among them. window: every `stride`-th from a start that training
    draws anew each epoch; evaluation takes a window every `hop` stored frames and a last one that ends with the clip.
    """

    frames: int = Field(ge=1, le=1024)
    choice: Literal["uniform", "window"] = "uniform"
    stride: int = Field(1, ge=1)
    hop: int = Field(0, ge=0)  # stored frames from one window to the next; 0: frames * stride, windows that do not overlap
    start_s: float | None = Field(None, allow_inf_nan=False)  # seconds in the recording; null: open
    end_s: float | None = Field(None, allow_inf_nan=False)
    order: Literal["kept", "shuffled", "single"] = "kept"  # for controls: the frames in random order, or the middle one repeated

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s: {self.end_s:g} is not after start_s ({self.start_s:g})")
        if self.choice == "uniform" and (self.stride != 1 or self.hop):
            raise ValueError("stride, hop: are of windows; take choice: window, or leave them out")
        return self


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

    buffer: int = Field(2048, ge=1)  # pictures in memory, drawn from at random
    tars: str = ""  # a folder or s3://bucket/path with the dataset's tars; empty: the dataset's folder


class FoldsConfig(Section):
    """Folds of whole groups, in place of the column meta.fold: by their count, by the groups left out of each, or from a file."""

    by: str = "group"  # an index column; rows with the same value stay together
    count: int | None = Field(None, ge=2)
    leave: int | None = Field(None, ge=1)  # groups that validate in a fold
    stratify: str = ""  # an index column or an output of classes, of which every fold gets its share
    file: str = ""  # {test_animals, cv_folds: [{fold, train_animals, val_animals}]}

    @model_validator(mode="after")
    def one_way(self) -> Self:
        chosen = [name for name in ("count", "leave", "file") if getattr(self, name)]
        if len(chosen) != 1:
            raise ValueError(f"give one of count, leave, file; found {' and '.join(chosen) or 'none'}")
        if self.file and (self.stratify or self.by != "group"):
            raise ValueError("stratify, by: are for count and leave; a file lists the groups of each fold itself")
        return self


class DataConfig(Section):
    """Rows to train and validate on, how they are read, and what is done to pictures."""

    dataset: Path | list[Path]  # several are read as one, classes by name
    batch_size: BatchSize = 128  # samples per update, over all processes; auto: as many as memory holds
    # sqrt: a class as often as the root of its rows; balanced: all alike; weighted: by the column weight
    sampler: Literal["shuffle", "sqrt", "balanced", "weighted"] = "shuffle"
    allow_double_correction: bool = False  # correct imbalance by the sampler and by class weights in the loss
    sources: list[str] = Field(default_factory=list)  # only rows of these sources; empty: all
    strict_sources: bool = False  # a source in `sources` without a row to train on is an error
    fold: int | None = None  # its rows are validation, the others training; by `folds`, or the column meta.fold
    folds: FoldsConfig | None = None
    confidence_min: float = Field(0.0, ge=0, le=1)  # least confidence of training rows
    labelled: list[str] = Field(default_factory=list)  # outputs for which training rows must have a label
    where: Where = Field(default_factory=dict)  # index column -> the value or values that rows must have
    train_split: str = "train"
    val_split: str = "val"
    resize: float = Field(1.15, ge=1, le=2)  # evaluation: shorter side = resize * image_size, then the centre
    color: Literal["rgb", "gray"] = "rgb"
    margin: float = Field(MARGIN, ge=0, le=2)  # of a package: room around a detected face, as in the training pictures
    align: bool = False  # of a package: detected faces are turned upright, as in the training pictures
    clahe: ClaheConfig | None = ClaheConfig()
    augment: AugmentConfig = AugmentConfig()
    clip: ClipConfig | None = None  # which frames of clips are seen; null: pictures
    side: list[str] = Field(default_factory=list)  # numeric columns meta.NAME that the model of clips sees as well
    loader: Literal["auto", "dali", "plain"] = "auto"
    workers: int = Field(0, ge=0)  # threads that decode; 0: chosen by the machine
    stream: StreamConfig | None = None  # how training rows are read; null: each sample at random by its place in the index

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
