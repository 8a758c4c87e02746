"""Synthetic faces: repeatable, labelled by what was drawn, and out of reach of a linear model on pixels."""

import numpy as np
import pytest

from affect.shards.synthetic import faces
from affect.shards.synthetic.expressions import ACTION_UNITS, DRAWN, EMOTIONS, PRESENT, PROTOTYPES, Expression, expression_of
from affect.shards.synthetic.portrait import identity_of
from affect.shards.synthetic.random_streams import generator

SIZES = (48, 64, 97)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_same_arguments_give_the_same_bytes(emotion):
    (image, au), (again, au_again) = (faces.still(3, 5, emotion, 2) for _ in range(2))
    assert image.tobytes() == again.tobytes() and au == au_again


def test_every_argument_changes_the_picture():
    keys = [(0, 1, "fear", 0), (1, 1, "fear", 0), (0, 2, "fear", 0), (0, 1, "anger", 0), (0, 1, "fear", 1)]
    assert len({faces.still(*key)[0].tobytes() for key in keys}) == len(keys)


def test_identity_belongs_to_the_subject():
    first, second = identity_of(0, 1), identity_of(0, 2)
    assert identity_of(0, 1).mouth_width == first.mouth_width != second.mouth_width


@pytest.mark.parametrize("size", SIZES)
def test_still_shape_and_ranges(size):
    image, au = faces.still(0, 0, "happiness", 0, size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8 and image.std() > 10
    assert tuple(au) == ACTION_UNITS and all(0 <= value <= 1 for value in au.values())


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_prototype_units_are_present_in_most_stills(emotion):
    drawn = [faces.still(0, index % 10, emotion, index, 48)[1] for index in range(60)]
    for name in ACTION_UNITS:
        share = np.mean([au[name] >= PRESENT for au in drawn])
        assert share > 0.85 if name in PROTOTYPES[emotion] else share < 0.1, name


def test_contempt_takes_either_side():
    sides = {expression_of(generator(0, 0, 0, 0, index), "contempt").reach for index in range(20)}
    assert sides == {(0.0, 1.0), (1.0, 0.0)}


@pytest.mark.parametrize("size", SIZES)
def test_video_leaves_neutral_and_returns(size):
    frames, strength = faces.video(0, 0, "surprise", 30, size)
    assert frames.shape == (30, size, size, 3) and frames.dtype == np.uint8
    assert strength.shape == (30,) and strength.dtype == np.float32
    assert strength[0] == strength[-1] == 0 and 0.99 < strength.max() <= 1
    assert (strength[:6] == 0).all() and (strength[24:] == 0).all()


def test_video_repeats_and_neutral_stays_neutral():
    (frames, _), (again, _) = (faces.video(0, 0, "sadness", 12) for _ in range(2))
    assert frames.tobytes() == again.tobytes()
    assert not faces.video(0, 0, "neutral", 12)[1].any()


@pytest.mark.slow
def test_linear_model_on_pixels_stays_below_60_percent():
    linear = pytest.importorskip("sklearn.linear_model")
    emotion = np.arange(2000) % len(EMOTIONS)
    subject = np.where(np.arange(2000) < 1500, np.arange(2000) // 8 % 60, 1000 + np.arange(2000) // 8 % 30)
    stills = [faces.still(0, int(s), EMOTIONS[e], i)[0] for i, (s, e) in enumerate(zip(subject, emotion, strict=True))]
    gray = np.stack(stills).mean(3).reshape(2000, -1)
    gray = (gray - gray[:1500].mean(0)) / gray[:1500].std(0)
    fit = linear.LogisticRegression(C=3e-3, tol=1e-2, max_iter=200).fit(gray[:1500], emotion[:1500])
    assert 0.2 < fit.score(gray[1500:], emotion[1500:]) < 0.6  # at chance no expression would show at all


@pytest.mark.parametrize("name", DRAWN)
def test_every_unit_shows_in_a_posed_face(name):
    au = {"AU25": 0.9} if name in ("AU26", "AU27") else {}
    changed = []
    for subject in range(6):
        at_rest, shown = (faces.posed(0, subject, Expression(units), 64) for units in (au, au | {name: 0.9}))
        changed.append((np.abs(shown.astype(int) - at_rest).max(2) > 20).sum())
    assert min(changed) > 20 and np.mean(changed) > 40  # of 4,096 pixels


@pytest.mark.parametrize(
    ("expression", "where"),
    [
        (Expression({"AU12": 1.0}, reach=(0.0, 1.0)), "right"),
        (Expression({"AU12": 1.0}, reach=(1.0, 0.0)), "left"),
    ],
)
def test_one_side_of_a_smile_leaves_the_other_at_rest(expression, where):
    sides = {"left": 0, "right": 0}
    for subject in range(6):
        change = np.abs(faces.posed(0, subject, expression, 64).astype(int) - faces.posed(0, subject, Expression({}), 64))
        sides["left"] += (change[:, :28] > 20).sum()
        sides["right"] += (change[:, 36:] > 20).sum()
    assert sides[where] > 5 * (sum(sides.values()) - sides[where])


def test_another_drawing_has_another_version():
    """Fingerprints of datasets hold faces.DRAWING: raise it when these means of a still's quarters change."""
    image = faces.still(3, 5, "fear", 2, 64)[0].astype(float)
    quarters = [image[top : top + 32, left : left + 32].mean() for top in (0, 32) for left in (0, 32)]
    assert faces.DRAWING == 1 and np.abs(np.subtract(quarters, [131.27, 120.1, 74.2, 97.57])).max() < 0.1
