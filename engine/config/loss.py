"""What a configuration says of the loss: the `loss` section."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from affect.engine.config.section import YAML_1_1, Section


class ArcFaceConfig(Section):
    """Plain cross-entropy before `from_epoch`, then a cosine head whose margin grows linearly and is whole at `full_epoch`."""

    scale: float = Field(30.0, gt=0)  # logits are scale * cosine
    margin: float = Field(0.35, ge=0, lt=math.pi / 2)  # radians
    from_epoch: int = Field(5, ge=0)
    full_epoch: int = Field(15, ge=0)

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.full_epoch < self.from_epoch:
            raise ValueError(f"full_epoch: {self.full_epoch} is before from_epoch ({self.from_epoch})")
        return self

    def margin_at(self, epoch: int) -> float:
        """Radians in an epoch, counted from 0."""
        if epoch >= self.full_epoch:
            return self.margin
        return self.margin * max(epoch - self.from_epoch, 0) / (self.full_epoch - self.from_epoch)


class TeacherConfig(Section):
    """What a student learns from: a folder of `affect softlabels`, or a run that is asked in every step (`online`).

    features: of `affect features`, for proto_kd's target `teacher`; an online run gives its own.
    """

    soft_labels: str = ""
    features: str = ""
    run: str = ""
    online: bool = False  # the run sees the student's own augmented views
    scale: Literal["raw", "calibrated"] = "calibrated"  # calibrated: divided by the temperature that was fitted with them
    standardize: bool = False  # each row of logits to mean 0 and deviation 1

    @model_validator(mode="after")
    def one_kind(self) -> Self:
        if self.run and not self.online:
            raise ValueError(
                "run: with online: true it is asked in every step; else write its soft labels first: "
                f"affect softlabels {self.run}"
            )
        if self.online and not self.run:
            raise ValueError("online: needs run, the folder of the teacher")
        if self.run and (self.soft_labels or self.features):
            raise ValueError("run: an online teacher takes the place of soft_labels and features; give one of them")
        return self


class KdConfig(Section):
    """Plain distillation, T^2 KL."""

    weight: float = Field(1.0, gt=0)
    temperature: float = Field(4.0, gt=0)


class DkdConfig(Section):
    """Decoupled distillation, T^2 (alpha TCKD + beta NCKD); the defaults are the paper's."""

    weight: float = Field(1.0, gt=0)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)
    temperature: float = Field(4.0, gt=0)
    warmup_epochs: int = Field(20, ge=0)

    def ramp_at(self, epoch: int) -> float:
        return min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0


class KdMseConfig(Section):
    """Mean squared distance of logits over T."""

    weight: float = Field(0.30, gt=0)
    temperature: float = Field(1.0, gt=0)


class ProtoKdConfig(Section):
    """KL over frozen prototypes, at temperature tau."""

    prototypes: str  # of `affect prototypes`
    weight: float = Field(0.12, gt=0)
    mode: Literal["cos"] = "cos"
    tau: float = Field(0.90, gt=0)
    target: Literal["grid", "teacher"] = "grid"
    anchors: str = "default"  # of target grid: where each class stands in valence and arousal; or a file
    sigma: float = Field(0.4, gt=0)  # of target grid: width, in units of valence
    temperature: float = Field(5.0, gt=0)  # of target grid: softens it
    teacher_tau: float = Field(0.90, gt=0)  # of target teacher


class DGeoConfig(Section):
    """Geometry of the features: positive classes tight, all classes apart."""

    weight: float = Field(0.012, gt=0)
    positive_classes: list[str] = Field(default_factory=lambda: ["happiness", "surprise"])
    hard_gate: float = Field(0.2, ge=0)
    margin: float = Field(0.5, ge=0)
    intra_class: bool = True
    momentum: float = Field(0.9, ge=0, lt=1)  # of the classes' mean features
    schedule: Literal["late_cosine", "constant"] = "late_cosine"
    start_epoch: int = Field(20, ge=0)  # of late_cosine: 0 before
    end_epoch: int = Field(60, ge=0)  # of late_cosine: whole from here on

    def ramp_at(self, epoch: int) -> float:
        if self.schedule == "constant":
            return 1.0
        share = min(max((epoch - self.start_epoch) / max(self.end_epoch - self.start_epoch, 1), 0.0), 1.0)
        return 0.5 * (1 - math.cos(math.pi * share))


class AuConfig(Section):
    """Binary cross-entropy of action units, over the labelled ones.

    Weak supervision, of labels that are doubtful: a small weight and some smoothing.
    """

    weight: float = Field(1.0, ge=0)  # 0: the units are not learned
    pos_weight: Annotated[Literal["off", "balanced"], YAML_1_1] = "off"  # balanced: negatives / positives of the training rows
    pos_weight_max: float = Field(10.0, ge=1)
    smoothing: float = Field(0.0, ge=0, lt=1)  # a target y becomes (1 - x) y + x / 2
    from_epoch: int = Field(0, ge=0)  # emotion alone before
    full_epoch: int = Field(0, ge=0)  # the weight grows linearly and is whole from here on

    def ramp_at(self, epoch: int) -> float:
        if epoch < self.from_epoch:
            return 0.0
        if epoch >= self.full_epoch:
            return 1.0
        return (epoch - self.from_epoch + 1) / (self.full_epoch - self.from_epoch + 1)


class ScalarsConfig(Section):
    """Squared errors of scalars."""

    moments: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)  # value of meta.moment -> weight of its rows
    weights: Annotated[Literal["off", "correlation"], YAML_1_1] = "off"  # correlation: of each scalar with the total
    sum_weight: float = Field(0.1, ge=0)  # that the total be the sum of the others; 0: off


class ResupConfig(Section):
    """Two networks, each trained on a sample as far as they agree on it and the other one believes its label."""

    warmup_epochs: float = Field(2.0, ge=0)  # over which the weights of samples go from 1 to what they are


class LossConfig(Section):
    cross_entropy: float = Field(1.0, ge=0)  # weight of the task's own terms
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # of two classes x is the distribution [1 - x / 2, x / 2]
    ordered: float = Field(1.0, ge=0)  # weight of the term of ordered classes (levels); 0: they are not learned
    neighbours: float = Field(0.0, ge=0)  # of ordered classes: a label becomes a Gaussian of this deviation, in levels; 0: off
    resup: ResupConfig | None = None  # of a model of two networks
    focal_gamma: float = Field(0.0, ge=0, le=10)  # cross-entropy times (1 - p)^gamma; 0: off
    au: AuConfig = AuConfig()  # of a task with action units
    scalars: ScalarsConfig = ScalarsConfig()  # of a task with scalars
    class_weights: Annotated[Literal["off", "balanced"], YAML_1_1] = "off"  # balanced: by the effective number of samples
    class_weights_beta: float = Field(0.9999, ge=0, lt=1)
    arcface: ArcFaceConfig | None = None  # of a task with a cosine head; null: its plain head alone
    teacher: TeacherConfig | None = None
    kd: KdConfig | None = None
    dkd: DkdConfig | None = None
    kd_mse: KdMseConfig | None = None
    proto_kd: ProtoKdConfig | None = None
    d_geo: DGeoConfig | None = None

    @property
    def distillation(self) -> dict[str, KdConfig | DkdConfig | KdMseConfig | ProtoKdConfig | DGeoConfig]:
        """Name -> settings of the terms that are on, beside the task's own."""
        terms = {"kd": self.kd, "dkd": self.dkd, "kd_mse": self.kd_mse, "proto_kd": self.proto_kd, "d_geo": self.d_geo}
        return {name: config for name, config in terms.items() if config is not None}

    @model_validator(mode="after")
    def teacher_is_there_and_used(self) -> Self:
        learn = [name for name in ("kd", "dkd", "kd_mse") if name in self.distillation]
        if learn and not (self.teacher and (self.teacher.soft_labels or self.teacher.run)):
            raise ValueError(
                f"{learn[0]}: needs a teacher: teacher.soft_labels, a folder of affect softlabels, or teacher.run and online"
            )
        copies = self.proto_kd is not None and self.proto_kd.target == "teacher"
        if copies and not (self.teacher and (self.teacher.features or self.teacher.run)):
            raise ValueError(
                "proto_kd.target: teacher needs teacher.features, a file of affect features, or teacher.run and online"
            )
        if self.teacher and not learn and not copies:
            raise ValueError("teacher: no term learns from it; add kd, dkd or kd_mse, or proto_kd with target: teacher")
        if self.focal_gamma and self.arcface:
            raise ValueError("focal_gamma: with the ArcFace margin there is no focal loss here; take one: arcface: null")
        if self.focal_gamma and self.resup:
            raise ValueError("focal_gamma: both it and resup weight samples by what the model thinks of them; take one")
        if not self.cross_entropy and not self.distillation:
            raise ValueError("cross_entropy: 0 leaves no loss")
        return self
