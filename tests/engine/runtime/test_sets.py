"""Where a coverage is asked for a face has a set of labels, and is sure where that is one."""

import numpy as np
import pandas as pd
import pytest

from affect.engine import OFF, Search, open_source
from affect.engine.calibration.conformal import Conformal
from affect.engine.runtime.vision.boxes import Box, Listed
from affect.engine.runtime.writers.prediction_table import FIXED
from affect.engine.runtime.writers.result_folder import run_source
from affect.shards.errors import InputError

FACE = Box(20, 20, 30, 30, 0.9)
DARK = np.full((60, 60, 3), 30, np.uint8)


def fitted(threshold, output="emotion"):
    """Brightness says .8, .1, .1: a threshold below .8 gives one label, below .9 two, else three."""
    return {"conformal": Conformal(output, 0.9, threshold, 500, "calib").to_json()}


@pytest.mark.parametrize(
    ("threshold", "want"), [(0.0, ("dark",)), (0.85, ("dark", "middle")), (0.95, ("dark", "middle", "bright"))]
)
def test_a_face_has_its_set_and_is_sure_of_one_label(threshold, want, bright):
    engine = bright(calibration=fitted(threshold), coverage=0.9, sure=0.99)
    face = engine.predict(DARK)[0].faces[0]
    assert face.outputs["bright"]["emotion"].set == want and face.label == "dark" and face.sure == (len(want) == 1)


def test_without_a_coverage_the_threshold_rules(bright):
    face = bright(calibration=fitted(0.95), sure=0.7).predict(DARK)[0].faces[0]
    assert face.outputs["bright"]["emotion"].set == () and face.sure
    assert "emotion.set" not in bright(calibration=fitted(0.95)).predict(DARK).to_pandas()


def test_a_label_that_is_held_against_its_set_is_not_sure(bright):
    """The set is of the probabilities; hysteresis still says the label from before."""
    dark, light = (np.full((180, 240, 3), 128, np.uint8) for _ in range(2))
    dark[14:56, 14:56], light[14:56, 14:56] = 30, 220
    engine = bright(calibration=fitted(0.0), coverage=0.9, search=Search(Listed({i: [FACE] for i in range(40)})))
    faces = [frame.faces[0] for frame in engine.stream([dark] * 20 + [light] * 20, rate_hz=25)]
    held = [face for face in faces if face.outputs["bright"]["emotion"].set != (face.label,)]
    assert held and not any(face.sure for face in held) and all(face.outputs["bright"]["emotion"].set for face in faces)


def test_tables_have_the_set_as_their_last_column(bright, write, tmp_path):
    search = Search(Listed({i: [FACE] for i in range(1, 4)}))
    engine = bright(calibration=fitted(0.85), coverage=0.9, search=search, smoothing=OFF)
    path = write(tmp_path / "x.mp4", [DARK] * 4)
    summary = run_source([engine], open_source(path), tmp_path / "out", search=search)
    text, typed = (
        read(tmp_path / f"out/predictions.{kind}") for read, kind in ((pd.read_csv, "csv"), (pd.read_parquet, "parquet"))
    )
    assert list(text) == list(typed) == [*FIXED, "emotion.dark", "emotion.middle", "emotion.bright", "emotion.set"]
    assert text["emotion.set"].fillna("").tolist() == typed["emotion.set"].fillna("").tolist() == ["", *["dark|middle"] * 3]
    assert "its sets hold for exchangeable stills" in summary["notes"][0]
    table = engine.predict([DARK, DARK]).to_pandas()
    assert list(table) == list(text) and table["emotion.set"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("coverage", "calibration", "message"),
    [
        (0.8, fitted(0.5), "0.8 asked for, bright has sets for coverage 0.9 only; fit them: affect calibrate RUN --coverage 0.8"),
        (0.9, {}, "0.9 asked for, bright has sets for none"),
        (1.0, fitted(0.5), "coverage: found 1; expected a share above 0 and below 1"),
        (0.9, {"conformal": {"coverage": 0.9}}, "bright: conformal: not readable"),
    ],
)
def test_another_coverage_is_one_message(coverage, calibration, message, bright):
    with pytest.raises(InputError, match=message):
        bright(calibration=calibration, coverage=coverage)


def test_clips_have_no_sets(bright):
    clip = {"view": {"frames": 4}, "rate_hz": 10.0, "window_s": 0.4, "stored": None}
    with pytest.raises(InputError, match="bright sees clips, and conformal sets hold for stills"):
        bright(clip=clip, calibration=fitted(0.5), coverage=0.9)
