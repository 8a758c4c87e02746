"""A source that is not what a package was trained on gets one warning, not one in every frame."""

import numpy as np
import pytest

from affect.engine import Search, open_source
from affect.engine.runtime.input_warnings import warn_if_slow
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.writers.result_folder import run_source

DARK = np.full((120, 160, 3), 30, np.uint8)
CLIP = {"view": {"frames": 4}, "rate_hz": 20.0, "window_s": 0.2, "stored": None}


def shown(*sides, count=5):
    return Search(Listed({i: [Box(10, 10, side, side) for side in sides] for i in range(count)}))


def run(engines, search, out, count=5):
    return run_source(engines, open_source([DARK] * count, 25), out, search=search)


@pytest.mark.parametrize(("side", "small"), [(30, False), (21, False), (19, True)])  # with its margin 1.2 times that is cut out
def test_faces_much_smaller_than_trained_on_get_one_warning_and_are_counted(side, small, bright, tmp_path, capsys):
    summary = run([bright(face_px=[48, 96])], shown(side, 60), tmp_path / "out")
    said = capsys.readouterr().err
    assert said.count("warning: bright: a face of") == small and len(summary["notes"]) == small
    assert summary["packages"]["bright"]["faces_too_small"] == 5 * small
    assert not small or "a face of 23 px in frame 0, trained on 48 to 96 px" in summary["notes"][0]


def test_cropped_pictures_are_seen_as_they_are(bright, tmp_path):
    small = np.full((20, 60, 3), 30, np.uint8)
    summary = run_source([bright(face_px=[48, 48])], open_source([small]), tmp_path / "out")
    assert "a face of 20 px in frame 0, trained on 48 px" in summary["notes"][0]


def test_a_package_from_before_says_nothing(bright, tmp_path):
    from affect.engine.package.manifest import Manifest

    value = bright(face_px=[48, 96]).manifest.to_json()
    assert Manifest.from_json(value, "x").face_px == [48, 96]
    del value["face_px"], value["view"]
    old = Manifest.from_json(value, "x")
    assert old.face_px is None and old.view == ""
    assert not run([bright()], shown(2), tmp_path / "out")["notes"]


def test_packages_of_two_species_on_one_source(bright, tmp_path, capsys):
    summary = run([bright("people"), bright("mice", "mouse_set")], shown(60), tmp_path / "out")
    assert summary["notes"] == ["people reads human, mice reads mouse: one source shows one of them"]
    assert capsys.readouterr().err.count("warning:") == 1


def test_a_package_of_nobody_knows_whom_with_a_detector_of_people(bright, tmp_path):
    summary = run([bright("any", "score_frame")], Search("human_face"), tmp_path / "out")
    assert "any: does not say whose faces it reads, and human_face finds those of people" in summary["notes"]


@pytest.mark.parametrize(("rate", "slow"), [(10, True), (20, False), (30, False)])
def test_a_video_too_slow_for_a_model_of_clips(rate, slow, bright, write, tmp_path, capsys):
    path = write(tmp_path / "x.mp4", [DARK] * rate, rate=rate)
    notes = warn_if_slow([bright(clip=CLIP)], open_source(path))
    assert bool(notes) == slow and capsys.readouterr().err.count("warning: bright: sees 20 frames a second") == slow
    assert not warn_if_slow([bright(clip=CLIP | {"rate_hz": None})], open_source(path))
    (tmp_path / "no.mp4").write_bytes(b"no video")
    assert not warn_if_slow([bright(clip=CLIP)], open_source(tmp_path / "no.mp4"))
