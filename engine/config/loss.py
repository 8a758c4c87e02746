"""The `loss` section: settings of the tasks' own terms, and sections of the terms that are added by name."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from affect.engine.config.loss_terms import FIRST_TERMS, TermConfig, term_settings
from affect.engine.config.section import YAML_1_1, Section

T = TypeVar("T", bound=TermConfig)


def _validated_terms(value: dict[str, Any]) -> dict[str, Any]:
    """Validate the settings of each term by its kind, in the order of `term_settings`; a term that is null is off."""
    kinds: dict[str, Any] = {name: (kind | None, None) for name, kind in term_settings(value).items()}
    terms = create_model("Terms", __base__=Section, **kinds).model_validate(value)
    return {name: settings for name in kinds if (settings := getattr(terms, name)) is not None}


Terms = Annotated[dict[str, SerializeAsAny[TermConfig]], BeforeValidator(_validated_terms)]


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
    """The teacher of a student: a folder of `affect softlabels`, or a run that predicts every batch (`online`).

    features: a file of `affect features`, for proto_kd's target `teacher`; an online run computes them itself.
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


class AuConfig(Section):
    """Binary cross-entropy of action units, over the labelled ones.

    For doubtful labels, take a small weight and some smoothing.
    """

    weight: float = Field(1.0, ge=0)  # 0: the units are not learned
    pos_weight: Annotated[Literal["off", "balanced"], YAML_1_1] = "off"  # balanced: negatives / positives of the training rows
    pos_weight_max: float = Field(10.0, ge=1)
    smoothing: float = Field(0.0, ge=0, lt=1)  # a target y becomes (1 - x) y + x / 2
    from_epoch: int = Field(0, ge=0)  # before it the units have no weight
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
    sum_weight: float = Field(0.1, ge=0)  # weight of the term that makes the total the sum of the others; 0: off


class ResupConfig(Section):
    """Two networks, each trained on a sample as far as they agree on it and the other one finds its label credible."""

    warmup_epochs: float = Field(2.0, ge=0)  # over which the weights of samples go from 1 to their values


class LossConfig(Section):
    """Weights and settings of the loss terms."""

    cross_entropy: float = Field(1.0, ge=0)  # weight of the task's cross-entropy
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
    terms: Terms = Field(default_factory=dict)  # of a file these are keys beside the others: loss.kd, loss.dkd ...

    @model_validator(mode="before")
    @classmethod
    def terms_by_name(cls, value: Any) -> Any:
        """Collect the keys that are no other setting under `terms`."""
        if not isinstance(value, dict):
            return value
        others = {key: part for key, part in value.items() if key in cls.entries(declared=False)}
        off = {key for key, part in value.items() if part is None and key in FIRST_TERMS}
        return others | {"terms": {key: part for key, part in value.items() if key not in others and key not in off}}

    @model_serializer(mode="wrap")
    def as_in_a_file(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write terms beside the other settings."""
        value = handler(self)
        terms = value.pop("terms")
        return value | dict.fromkeys(FIRST_TERMS) | terms

    @classmethod
    def entries(cls, *, declared: bool = True) -> dict[str, Any]:
        others = {key: annotation for key, annotation in super().entries().items() if key != "terms"}
        return others | term_settings() if declared else others

    def settings(self, name: str, kind: type[T]) -> T:
        """Return the settings of a term that is on."""
        settings = self.terms[name]
        assert isinstance(settings, kind)
        return settings

    @model_validator(mode="after")
    def teacher_is_there_and_used(self) -> Self:
        teacher = self.teacher
        for name, settings in self.terms.items():
            if settings.learns_from == "logits" and not (teacher and (teacher.soft_labels or teacher.run)):
                raise ValueError(
                    f"{name}: needs a teacher: teacher.soft_labels, a folder of affect softlabels, or teacher.run and online"
                )
            if settings.learns_from == "features" and not (teacher and (teacher.features or teacher.run)):
                raise ValueError(
                    f"{name}: learns from a teacher's features and needs teacher.features, a file of affect features, "
                    "or teacher.run and online"
                )
        if teacher and not any(settings.learns_from for settings in self.terms.values()):
            raise ValueError("teacher: no term learns from it; add kd, dkd or kd_mse, or proto_kd with target: teacher")
        return self

    @model_validator(mode="after")
    def terms_agree(self) -> Self:
        if self.focal_gamma and self.arcface:
            raise ValueError("focal_gamma: with the ArcFace margin there is no focal loss here; take one: arcface: null")
        if self.focal_gamma and self.resup:
            raise ValueError("focal_gamma: both it and resup weight samples by the model's predictions; take one")
        if not self.cross_entropy and not self.terms:
            raise ValueError("cross_entropy: 0 leaves no loss")
        return self
