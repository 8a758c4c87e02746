"""One subject is one track; between detections the box goes with it."""

import itertools

import numpy as np
import pytest

from affect.engine.runtime.sources.open_source import open_source
from affect.engine.runtime.sources.stream import Stream, VideoFrame
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.vision.track import Tracker, assigned

RATE_HZ = 25


class Known:
    """Boxes by frame, as a detector that costs something."""

    def __init__(self, boxes):
        self.boxes, self.calls = boxes, []

    def detect(self, image, number=0):
        self.calls.append(number)
        return self.boxes.get(number, [])


def shots_of(images, rate_hz=RATE_HZ):
    return [VideoFrame("x", i, i / rate_hz, image) for i, image in enumerate(images)]


def ids(steps):
    return {found.track for step in steps for found in step}


@pytest.mark.parametrize("every", [1, 5, 9])
def test_a_moving_square_is_one_track_and_its_box_stays_on_it(every, moving):
    images, boxes = moving(40)
    listed = Known({i: [Box(*map(float, box))] for i, box in enumerate(boxes)})
    tracker = Tracker(listed, every)
    steps = [tracker.step(shot) for shot in shots_of(images)]
    assert ids(steps) == {0} and tracker.cuts == 0
    overlap = [step[0].box.iou(Box(*map(float, box))) for step, box in zip(steps, boxes, strict=True)]
    assert min(overlap) > 0.85


def test_a_leap_within_a_frame_is_followed(moving):
    """At a low rate a face may leave its own box between two frames."""
    images, boxes = moving(4, step=31)
    tracker = Tracker(Known({i: [Box(*map(float, box))] for i, box in enumerate(boxes)}))
    assert ids([tracker.step(shot) for shot in shots_of(images, 5)]) == {0}


def test_every_counts_frames_and_what_costs_nothing_is_asked_always(moving):
    images, boxes = moving(11)
    known = {i: [Box(*map(float, box))] for i, box in enumerate(boxes)}
    detector = Known(known)
    for tracker in (Tracker(detector, every=5), Tracker(Listed(known), every=5)):
        steps = [tracker.step(shot) for shot in shots_of(images)]
    assert detector.calls == [0, 5, 10] and [step[0].box for step in steps] == [box for (box,) in known.values()]


def test_points_and_size_follow(moving):
    """Between detections the five points go with the box, and a box grows with its subject."""
    import cv2

    patch = moving(1)[0][0][10:70, 5:65]
    images = []
    for i in range(5):
        image = np.full((240, 320, 3), 90, np.uint8)
        side = round(100 * 1.03**i)
        top, left = 120 - side // 2, 160 - side // 2
        image[top : top + side, left : left + side] = cv2.resize(patch, (side, side))
        images.append(image)
    points = np.array([[140, 100], [180, 100], [160, 120], [145, 140], [175, 140]], np.float32)
    tracker = Tracker(Known({0: [Box(110, 70, 100, 100, points=points)]}), every=10)
    box = [tracker.step(shot) for shot in shots_of(images)][-1][0].box
    assert box.w == pytest.approx(100 * 1.03**4, rel=0.04)
    assert box.points == pytest.approx((points - [160, 120]) * 1.03**4 + [160, 120], abs=2)


@pytest.mark.parametrize(("missed_s", "same"), [(0.3, True), (0.45, True), (0.7, False)])
@pytest.mark.parametrize("every", [1, 3])
def test_an_identity_survives_half_a_second(missed_s, same, every, moving):
    images, boxes = moving(48)
    there = [Box(*map(float, box)) for box in boxes]
    hidden = range(12, 12 + round(missed_s * RATE_HZ))
    tracker = Tracker(Known({i: [box] for i, box in enumerate(there) if i not in hidden}), every)
    steps = [tracker.step(shot) for shot in shots_of(images)]
    assert ids(steps) == ({0} if same else {0, 1})
    assert not any(found.seen for found in steps[15])  # no answer for what was not found, but a face to blur
    assert steps[15][0].box.iou(there[15]) > 0.8


@pytest.mark.parametrize("change", ["scene", "size", "time"])
def test_a_cut_ends_all_tracks_and_is_detected_in_at_once(change, moving):
    images, boxes = moving(20)
    listed = Known({i: [Box(*map(float, box))] for i, box in enumerate(boxes)})
    shots = shots_of(images)
    for i in range(7, 20):
        if change == "scene":
            shots[i] = VideoFrame("x", i, shots[i].time_s, 255 - images[i])
        elif change == "size":
            shots[i] = VideoFrame("x", i, shots[i].time_s, images[i][:-2])
        else:
            shots[i] = VideoFrame("y", i, (i - 7) / RATE_HZ, images[i])
    tracker = Tracker(listed, every=5)
    steps, ended = [], []
    for shot in shots:
        steps.append(tracker.step(shot))
        ended += tracker.ended
    assert ids(steps[:7]) == {0} and ids(steps[7:]) == {1} and tracker.cuts == 1 and ended == [0]
    assert steps[7][0].seen


def test_two_people_who_pass_keep_their_numbers():
    """Assignment over all pairs: the nearest pair first would leave one over."""
    image = np.full((100, 300, 3), 128, np.uint8)
    boxes = {i: [Box(10 + 6 * i, 20, 40, 40), Box(200 - 4 * i, 25, 40, 40)] for i in range(12)}
    tracker = Tracker(Known(boxes))
    steps = [tracker.step(VideoFrame("x", i, i / 25, image)) for i in boxes]
    assert all([found.box for found in step] == boxes[i] for i, step in enumerate(steps)) and ids(steps) == {0, 1}
    tracks, found = [Box(0, 0, 10, 10), Box(6, 0, 10, 10)], [Box(5, 0, 10, 10), Box(11, 0, 10, 10)]
    assert assigned(tracks, found) == {0: 0, 1: 1}


def test_nobody_forty_people_and_no_clock():
    image = np.full((120, 160, 3), 128, np.uint8)
    wall = [Box(20.0 * (i % 8), 24.0 * (i // 8), 18, 20) for i in range(40)]
    tracker = Tracker(Known({0: wall, 2: wall}), every=2)
    steps = [tracker.step(VideoFrame("x", i, i / 25, image)) for i in range(3)]
    assert [len(step) for step in steps] == [40, 40, 40] and len(ids(steps)) == 40
    assert Tracker(Known({})).step(VideoFrame("x", 0, 0.0, image)) == []
    assert [found.track for found in tracker.step(VideoFrame("photo", 0, None, image))] == [None] * 40


def test_who_leaves_the_picture_is_gone(moving):
    images = [np.roll(moving(1, side=60)[0][0], 12 * i, 1)[:, :100] for i in range(14)]
    tracker = Tracker(Known({0: [Box(10, 20, 60, 60)]}), every=100)
    steps = [tracker.step(shot) for shot in shots_of(images)]
    assert steps[3] and all(found.box.x + found.box.w / 2 < 100 for step in steps for found in step)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yes.mkv", "no.mkv", "please.mkv", "sorry.mkv", "single_face.mp4"])
@pytest.mark.parametrize("every", [1, 5])
def test_one_person_is_one_identity(name, every, videos, yunet):
    tracker = Tracker(yunet(), every)
    with Stream(open_source(videos / name)) as stream:
        steps = [tracker.step(shot) for shot in stream]
    assert ids(steps) == {0} and all(step and step[0].seen for step in steps)


@pytest.mark.slow
def test_every_fifth_detection_is_as_good_as_each(videos, yunet):
    detector = yunet()
    tracker, overlap = Tracker(yunet(), every=5), []
    with Stream(open_source(videos / "no.mkv")) as stream:  # the head shakes
        for shot in stream:
            (want,), (got,) = detector.detect(shot.image), tracker.step(shot)
            overlap.append(want.iou(got.box))
    between = [value for i, value in enumerate(overlap) if i % 5]
    assert np.mean(between) > 0.94 and min(between) > 0.8


def test_a_cut_between_two_real_videos_is_seen(videos):
    shots = []
    for name in ("yes.mkv", "single_face.mp4"):
        with Stream(open_source(videos / name)) as stream:
            shots += [shot.image[:360] for shot in itertools.islice(stream, 5)]
    tracker = Tracker(Known({}))
    cuts = []
    for shot in shots_of(shots):
        tracker.step(shot)
        cuts.append(tracker.cuts)
    assert cuts == [0] * 5 + [1] * 5
