"""The evaluation view: a value that travels with the model."""

import cv2
import numpy as np
import pytest

from affect.engine.config.preprocess import Clahe, Preprocess, fit, resize, too_large


@pytest.mark.parametrize(("height", "width"), [(48, 48), (100, 60), (33, 97), (480, 640), (1, 1), (7, 300)])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_any_shape_becomes_the_models_square(picture, height, width, color):
    result = Preprocess(64, color=color, clahe=Clahe(tiles=2))(picture(height, width))
    assert result.shape == (64, 64, 3) and result.dtype == np.uint8 and result.flags.c_contiguous
    assert color == "rgb" or (result[..., 0] == result[..., 2]).all()


def test_gray_arrays_and_gray_pictures_agree(picture):
    gray = picture(50, 70)[..., 0]
    for color in ("rgb", "gray"):
        preprocess = Preprocess(32, color=color, clahe=Clahe(tiles=1))
        assert (preprocess(gray) == preprocess(np.stack([gray] * 3, axis=2))).all()


def test_resize_is_opencvs_within_a_level(picture):
    image = picture(48, 61)
    want = cv2.resize(image, (64, 70), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(resize(image, 70, 64) - want).max() <= 1


def test_far_too_large_is_averaged_first():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit(stripes, 64, 64).astype(int) - 127).max() < 8
    assert np.abs(resize(stripes, 64, 64).astype(int) - 127).max() > 60  # linear sampling alone aliases
    assert too_large(400, 400, 64, 64) and not too_large(128, 400, 64, 64)


def test_centre_crop_and_resize_factor(picture):
    image = picture(100, 100)
    assert (Preprocess(64, resize=1.0)(image) == resize(image, 64, 64)).all()
    assert (Preprocess(50, resize=2.0)(image) == image[25:75, 25:75]).all()


def test_json_round_trip():
    for value in (Preprocess(64), Preprocess(224, 1.0, "gray", Clahe(3.0, 4, 0.5))):
        assert Preprocess.from_json(value.to_json()) == value


def test_clip_limit_means_little_on_small_tiles():
    assert Clahe(2.0, 8).count_limit(64) == 1  # 8x8 tiles of 8 px: nothing is clipped gently
    assert Clahe(2.0, 2).count_limit(64) == 8 and Clahe(2.0, 8).count_limit(224) == 6
