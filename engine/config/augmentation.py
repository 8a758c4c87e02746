"""The `data.augment` section: random changes to training views, every value with its range and unit."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from affect.engine.config.section import Section, Where


class CropConfig(Section):
    """Random resized crop: share of the area, aspect ratio (width / height)."""

    scale: tuple[float, float] = (0.7, 1.0)
    ratio: tuple[float, float] = (0.75, 1.333)

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: expected 0 < low <= high <= 1, found {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio: expected 0 < low <= high, found {list(self.ratio)}")
        return self


class JitterConfig(Section):
    """Colour: factors drawn from 1 - x to 1 + x; hue as a share of the circle, from -x to x. Gray pictures take the first two."""

    brightness: float = Field(0.2, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, le=1)
    saturation: float = Field(0.1, ge=0, le=1)
    hue: float = Field(0.02, ge=0, le=0.5)


class AffineConfig(Section):
    """About the centre: degrees from -x to x, shift as a share of the side, scale from low to high."""

    rotate: float = Field(15.0, ge=0, le=180)
    shift: float = Field(0.0, ge=0, le=1)
    scale: tuple[float, float] = (1.0, 1.0)

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale: expected 0 < low <= high, found {list(self.scale)}")
        return self


class BlurConfig(Section):
    """Gaussian, with the probability p; sigma in pixels."""

    p: float = Field(0.5, gt=0, le=1)
    sigma: tuple[float, float] = (0.3, 1.5)

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if not 0.1 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma: expected 0.1 <= low <= high, found {list(self.sigma)}")
        return self


class EraseConfig(Section):
    """A gray box, with the probability p: share of the area, aspect ratio (Zhong et al., Random Erasing, AAAI 2020)."""

    p: float = Field(0.25, gt=0, le=1)
    area: tuple[float, float] = (0.02, 0.2)
    ratio: tuple[float, float] = (0.3, 3.3)

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if not 0 < self.area[0] <= self.area[1] < 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"area, ratio: expected 0 < low <= high, found {list(self.area)}, {list(self.ratio)}")
        return self


class StrongerConfig(Section):
    """Rows of which there are few: their affine and jitter reach `by` times as far as those of the others."""

    where: Where = Field(min_length=1)
    by: float = Field(1.5, gt=1, le=4)


class AugmentConfig(Section):
    """Training views, in this order: crop, flip, affine, jitter, blur, CLAHE, erase; then mixup or cutmix of the batch."""

    crop: CropConfig | None = CropConfig()
    flip: float = Field(0.5, ge=0, le=1)  # probability
    affine: AffineConfig | None = None
    jitter: JitterConfig | None = None
    blur: BlurConfig | None = None
    erase: EraseConfig | None = None
    mixup: float = Field(0.0, ge=0)  # alpha of the Beta distribution; 0: off
    cutmix: float = Field(0.0, ge=0)
    stronger: StrongerConfig | None = None

    @model_validator(mode="after")
    def stronger_fits(self) -> Self:
        if not self.stronger:
            return self
        by, affine, jitter = self.stronger.by, self.affine, self.jitter
        if not affine and not jitter:
            raise ValueError("stronger: is of affine and jitter, and both are off; switch one on, or take stronger: null")
        if affine and sum(affine.scale) <= by * (affine.scale[1] - affine.scale[0]):
            raise ValueError(f"stronger.by: affine.scale {list(affine.scale)} {by:g} times as wide reaches 0; take less")
        if jitter and by * max(jitter.brightness, jitter.contrast, jitter.saturation, 2 * jitter.hue) > 1:
            raise ValueError(f"stronger.by: jitter {by:g} times as far reaches 0, or turns the hue around; take less")
        return self
