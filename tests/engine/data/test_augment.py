"""The random numbers of a sample: the published generator, independent of everything but (seed, draw_id, sample)."""

import numpy as np
import pytest
import torch

from affect.engine.config.augmentation import AffineConfig, AugmentConfig, BlurConfig, CropConfig, EraseConfig, JitterConfig
from affect.engine.config.preprocess import Clahe
from affect.engine.data.augment import Mix, draw, draw_mix, philox, uniforms
from affect.engine.data.mixup import blend, both, mixed_inputs
from affect.engine.data.opencv import jittered, warped

KNOWN = {  # counter, key, output: the known-answer file of Random123 (philox 4x32, 10 rounds)
    "zeros": ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    "ones": ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    "pi": (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_philox_known_answers(case):
    counter, key, want = (np.array(part, np.uint32) for part in KNOWN[case])
    assert philox(counter, key).tolist() == want.tolist()


def test_a_sample_has_its_numbers_wherever_it_stands():
    sample, draw_id = np.array([5, 9, 2**40, 7]), np.array([0, 3, 3, 1])
    together = uniforms(1337, draw_id, sample, 24)
    for i in range(4):
        assert (uniforms(1337, draw_id[i : i + 1], sample[i : i + 1], 24) == together[i]).all()
    assert len(np.unique(together)) == together.size


def test_numbers_are_uniform_over_samples_and_epochs():
    u = uniforms(0, np.repeat(np.arange(4), 5000), np.tile(np.arange(5000), 4), 8)
    assert abs(u.mean() - 0.5) < 0.005
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 0.03
    assert u.min() >= 0 and u.max() < 1


def drawn(config, count=2000, height=48, width=48, clahe=None, size=64, seed=3):
    zeros = np.zeros(count, int)
    return draw(config, clahe, size, seed, zeros, np.arange(count), np.full(count, height), np.full(count, width))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (30, 90), (200, 50), (1, 1)])
def test_windows_lie_inside_and_keep_their_bounds(height, width):
    config = AugmentConfig(crop=CropConfig(scale=(0.5, 0.9)))
    made = drawn(config, height=height, width=width, clahe=Clahe(2.0, 2, p=0.25))
    top, left, h, w = made.window.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()
    assert (h >= 1).all() and (w >= 1).all()
    if height == width == 48:
        area, ratio = h * w / 48**2, w / h
        assert area.min() > 0.47 and area.max() < 0.93 and abs(area.mean() - 0.7) < 0.02
        assert ratio.min() > 0.7 and ratio.max() < 1.42
    assert abs(made.flip.mean() - 0.5) < 0.04 and abs((made.clahe_level == 0).mean() - 0.25) < 0.04


def test_switched_off_is_the_whole_picture():
    made = drawn(AugmentConfig(crop=None, flip=0), count=3, height=20, width=30, clahe=Clahe())
    assert made.window.tolist() == [[0, 0, 20, 30]] * 3 and not made.flip.any() and (made.clahe_level == 0).all()
    assert made.affine is made.jitter is made.blur is made.erase is None


FULL = AugmentConfig(
    affine=AffineConfig(rotate=15, shift=0.1, scale=(0.9, 1.1)),
    jitter=JitterConfig(),
    blur=BlurConfig(p=0.3),
    erase=EraseConfig(p=0.4),
)


def test_every_number_keeps_its_bounds():
    made = drawn(FULL, clahe=Clahe(2.0, 2, p=0.5, clip_jitter=0.5))
    assert set(made.clahe_level) == {-1, 0, 1, 2, 3, 4} and Clahe(2.0, 2, 1.0, 0.5).levels == (1.0, 1.5, 2.0, 2.5, 3.0)
    low, high = made.jitter.min(0), made.jitter.max(0)
    assert np.allclose(low, [0.8, 0.8, 0.9, -7.2], atol=0.02) and np.allclose(high, [1.2, 1.2, 1.1, 7.2], atol=0.02)
    assert abs((made.blur > 0).mean() - 0.3) < 0.04 and made.blur[made.blur > 0].min() >= 0.3 and made.blur.max() <= 1.5
    top, left, height, width = made.erase.T
    assert abs((height > 0).mean() - 0.4) < 0.04
    assert (top >= 0).all() and (top + height <= 64).all() and (left >= 0).all() and (left + width <= 64).all()
    scale = np.sqrt(np.linalg.det(made.affine[:, :, :2]))
    assert scale.min() > 1 / 1.11 and scale.max() < 1 / 0.89
    moved = made.affine @ np.array([32, 32, 1.0]) - 32  # where the centre comes from: at most the shift, turned and scaled
    assert np.abs(moved).max() < 0.1 * 64 * 2**0.5 / 0.9 + 1e-3 and np.abs(moved.mean(0)).max() < 0.5


def test_switching_one_on_moves_no_other():
    plain, full = drawn(AugmentConfig(), count=50), drawn(FULL, count=50)
    assert (plain.window == full.window).all() and (plain.flip == full.flip).all()


def test_a_stronger_draw_reaches_farther_and_moves_nothing_else():
    """Of the even samples twice as far: turns, shifts, scales and factors, each from its middle."""
    zeros, sides = np.zeros(400, int), np.full(400, 48)
    spread = np.where(np.arange(400) % 2, 1.0, 2.0)
    once, made = (draw(FULL, Clahe(), 64, 3, zeros, np.arange(400), sides, sides, reach) for reach in (None, spread))
    for name in ("window", "flip", "clahe_level", "blur", "erase"):
        assert (getattr(once, name) == getattr(made, name)).all()
    middle = np.array([1, 1, 1, 0])
    assert np.allclose((made.jitter - middle) / (once.jitter - middle), spread[:, None], rtol=1e-3)
    turned = [np.arctan2(one.affine[:, 0, 1], one.affine[:, 0, 0]) for one in (once, made)]
    sized = [np.linalg.det(one.affine[:, :, :2].astype(float)) ** -0.5 - 1 for one in (once, made)]
    assert np.allclose(turned[1], spread * turned[0], atol=1e-4) and np.allclose(sized[1], spread * sized[0], atol=1e-4)


def test_an_affine_of_nothing_is_the_same_picture(picture):
    config = AugmentConfig(affine=AffineConfig(rotate=0))
    assert (warped(picture(64, 64), drawn(config, count=1).affine[0]) == picture(64, 64)).all()


def test_a_quarter_turn_is_a_quarter_turn(picture):
    matrix = np.array([[0, 1, 0], [-1, 0, 64]], np.float32)  # point (x, y) comes from (y, 64 - x)
    assert (warped(picture(64, 64), matrix) == np.rot90(picture(64, 64), -1)).all()


@pytest.mark.parametrize(
    ("factors", "change"),
    [
        ((1, 1, 1, 0), lambda x: x),
        ((1.5, 1, 1, 0), lambda x: 1.5 * x),
        ((1, 0.5, 1, 0), lambda x: 64 + 0.5 * x),  # about mid-gray
        ((1, 1, 0, 0), lambda x: (x @ np.array([0.299, 0.587, 0.114]))[..., None]),
    ],
)
def test_jitter_against_its_meaning(picture, factors, change):
    x = picture(20, 20)
    want = np.broadcast_to(change(x.astype(float)), x.shape).clip(0, 255)
    assert np.abs(jittered(x, *factors) - want).max() < 1.5  # rounding, and a colour matrix of three digits


class TestMix:
    IMAGES = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    TARGETS = torch.eye(6)

    @pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
    def test_numbers_depend_on_seed_and_step_alone(self, settings):
        config = AugmentConfig(**settings)
        made = [draw_mix(config, 1, step, 8) for step in range(200)]
        assert made == [draw_mix(config, 1, step, 8) for step in range(200)]
        assert len({mix.share for mix in made}) > 5 and all(0 <= mix.share <= 1 for mix in made)
        boxes = sum(mix.box is not None for mix in made)
        assert 70 < boxes < 130 if len(settings) == 2 else boxes == (200 if "cutmix" in settings else 0)

    def test_off_is_off(self):
        assert draw_mix(AugmentConfig(), 1, 0, 8) is None

    def test_share_of_a_cut_is_the_share_of_its_pixels(self):
        mix = draw_mix(AugmentConfig(cutmix=1.0), 1, 3, 8)
        from_first = (
            mixed_inputs(torch.ones(2, 8, 8, 3, dtype=torch.uint8) * torch.tensor([1, 0])[:, None, None, None], mix)[0] == 1
        ).float()
        assert from_first.mean().item() == pytest.approx(mix.share)

    def test_targets_follow_the_pixels(self):
        mix = Mix(0.75, None)
        want = (0.75 * self.IMAGES.float() + 0.25 * self.IMAGES.flip(0).float()).round()
        assert (mixed_inputs(self.IMAGES, mix).float() - want).abs().max() <= 1
        assert blend(self.TARGETS, mix)[0].tolist() == [0.75, 0, 0, 0, 0, 0.25]
        assert both(torch.tensor([[1.0], [1.0], [0.0]])).tolist() == [[0.0], [1.0], [0.0]]
