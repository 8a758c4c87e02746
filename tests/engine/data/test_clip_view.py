"""Which frames of a clip are seen: windows, strides, shuffled and single frames, and the settings that say so."""

import numpy as np
import pytest

from affect.engine.config.data import ClipConfig
from affect.engine.config.digest import digest_of
from affect.engine.config.load import load_config
from affect.engine.data.augment import DRAWS, START, uniforms
from affect.engine.data.clip_view import all_starts, drawn_starts, inside, reach, seen, turns
from affect.shards.errors import InputError

WINDOW = ClipConfig(frames=4, choice="window")


@pytest.mark.parametrize(
    ("config", "count", "start", "want"),
    [
        (ClipConfig(frames=4), 4, 0, [0, 1, 2, 3]),
        (ClipConfig(frames=4), 10, 0, [0, 3, 6, 9]),
        (ClipConfig(frames=4), 1, 0, [0, 0, 0, 0]),
        (ClipConfig(frames=4), 3, 0, [0, 1, 2, 2]),
        (ClipConfig(frames=1), 10, 0, [4]),
        (WINDOW, 10, 6, [6, 7, 8, 9]),
        (WINDOW, 3, 0, [0, 1, 2, 2]),
        (ClipConfig(frames=4, choice="window", stride=3), 10, 0, [0, 3, 6, 9]),
        (ClipConfig(frames=4, choice="window", stride=3), 9, 0, [0, 3, 6, 6]),
        (ClipConfig(frames=4, order="single"), 10, 0, [6, 6, 6, 6]),
        (ClipConfig(frames=4, order="single"), 2, 0, [1, 1, 1, 1]),
        (ClipConfig(frames=4, choice="window", order="single"), 10, 5, [7, 7, 7, 7]),
    ],
)
def test_a_view_of_a_clip(config, count, start, want):
    assert seen(config, count, start).tolist() == want


@pytest.mark.parametrize("frames", [2, 5, 32, 33])
def test_uniform_covers_both_ends_in_order(frames):
    for count in range(frames, 4 * frames):
        view = seen(ClipConfig(frames=frames), count, 0)
        assert view[0] == 0 and view[-1] == count - 1 and (np.diff(view) >= 1).all()
        assert np.ptp(np.diff(view)) <= 1


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 4, 5])
def test_windows_cover_the_clip_side_by_side(frames, stride):
    config = ClipConfig(frames=frames, choice="window", stride=stride)
    for count in range(1, 60):
        starts = all_starts(config, count)
        views = [seen(config, count, start) for start in starts]
        assert starts[0] == 0 and (np.diff(starts) > 0).all() and (np.diff(starts)[:-1] == frames * stride).all()
        if count >= reach(config):
            assert all(len(set(view)) == frames and (np.diff(view) == stride).all() and view[-1] < count for view in views)
        assert max(view[-1] for view in views) > count - 1 - stride  # none is left that a further window would show
        if count % (frames * stride) == 0:
            assert len(views) == count // (frames * stride)


def test_a_hop_is_kept_and_may_leave_gaps():
    hop = {"frames": 4, "choice": "window"}
    assert all_starts(ClipConfig(**hop, hop=2), 9).tolist() == [0, 2, 4, 5]
    assert all_starts(ClipConfig(**hop, hop=20), 60).tolist() == [0, 20, 40]
    assert all_starts(ClipConfig(frames=4), 60).tolist() == [0]


def test_starts_of_training_fill_their_range_and_move_no_other_number():
    sample, zeros = np.arange(5000), np.zeros(5000, int)
    starts = [drawn_starts(WINDOW, 1, zeros + epoch, sample, zeros + 10) for epoch in (0, 1)]
    assert np.bincount(starts[0]).min() > 500 and starts[0].max() == 6 and (starts[0] != starts[1]).mean() > 0.8
    assert (drawn_starts(WINDOW, 1, zeros, sample, sample % 5) == 0).all()  # too short, or just enough
    assert START >= DRAWS and (uniforms(1, zeros, sample, START + 1)[:, :DRAWS] == uniforms(1, zeros, sample, DRAWS)).all()


def test_shuffled_frames_are_the_same_ones_in_an_order_of_the_clips_own():
    config = ClipConfig(frames=6, order="shuffled")
    turn = turns(config, 3, np.arange(300))
    views = [seen(config, 11, 0, one).tolist() for one in turn]
    assert all(sorted(view) == [0, 2, 4, 6, 8, 10] for view in views) and len({tuple(view) for view in views}) > 200
    assert (turns(config, 3, np.array([7, 5])) == turn[[7, 5]]).all()


@pytest.mark.parametrize(
    ("bounds", "want"),
    [({"start_s": 0.7}, (7, 3)), ({"end_s": 0.3}, (0, 3)), ({"start_s": 0.25, "end_s": 0.6}, (3, 3)), ({"start_s": 5}, (10, 0)),
     ({"end_s": 0}, (0, 0)), ({"start_s": -1, "end_s": 9}, (0, 10))],
)  # fmt: skip
def test_bounds_are_half_open_and_compared_as_the_times_are_stored(bounds, want):
    times = (np.arange(10) / 10).astype(np.float32)  # 0.7 is .69999999 there
    assert inside(ClipConfig(frames=2, **bounds), times) == want


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{}", "data.clip.frames: missing"),
        ("{frames: 0}", "data.clip.frames: .*greater than or equal to 1"),
        ("{frames: 4, start_s: 2, end_s: 2}", r"data.clip: end_s: 2 is not after start_s \(2\)"),
        ("{frames: 4, stride: 2}", "data.clip: stride, hop: are of windows"),
        ("{frames: 4, end_s: .nan}", "data.clip.end_s: .*finite"),
        ("{frames: 4, chioce: window}", "did you mean 'choice'"),
    ],
)
def test_settings_without_a_meaning_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        load_config("smoke", ["data.dataset=x", f"data.clip={setting}"])


def test_a_run_of_pictures_has_the_digest_from_before_clips():
    run = load_config("smoke", ["data.dataset=x"])
    raw = run.model_dump(mode="json")
    del raw["data"]["clip"], raw["data"]["augment"]["stronger"]
    assert digest_of(raw) == run.digest != load_config("smoke", ["data.dataset=x", "data.clip={frames: 4}"]).digest
