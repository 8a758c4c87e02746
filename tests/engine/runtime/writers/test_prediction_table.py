"""Tables are complete whatever ends the run: a row for every frame and face."""

import csv
import subprocess
import sys

import pandas as pd
import pytest

from affect.engine.runtime.result_row import COLUMNS as EVERY_ROW
from affect.engine.runtime.result_row import Row
from affect.engine.runtime.smoothing import Event
from affect.engine.runtime.writers.prediction_table import FIXED, GROUP, EventTable, Predictions
from affect.shards.errors import InputError

COLUMNS = ["emotion.sad", "emotion.happy"]
PROBS = {"emotion.sad": 0.25, "emotion.happy": 0.75}
FACE = Row("fer", 3, 0.12, "a.mp4", 0, 7, (10.04, 20.0, 30.0, 40.0), 0.91, 123.4, "happy", True, PROBS)
NOBODY = Row("fer", 4, 0.16, "a.mp4")


def test_both_files_say_the_same(tmp_path):
    with Predictions(tmp_path / "out", COLUMNS) as table:
        table.write([FACE, NOBODY])
        table.write([Row("au", 4, None, "a.mp4", 0, None, (0, 0, 5, 4), values={"emotion.sad": float("nan")})])
    assert table.rows == 3 and {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.parquet"}
    text, typed = pd.read_csv(table.paths[0]), pd.read_parquet(table.paths[1])
    assert list(text) == list(typed) == [*FIXED, *COLUMNS] and tuple(FIXED) == EVERY_ROW
    assert list(text)[:6] == ["package", "frame", "time_s", "source", "face", "track"]
    assert typed["face_px"].tolist()[::2] == [30, 4] and typed.loc[0, "emotion.happy"] == 0.75
    assert text.loc[0].to_dict() | {"x": 10.0} == typed.loc[0].to_dict() | {"x": 10.0, "det_score": 0.91, "blur": 123.4}
    assert text.loc[1, "face":].isna().all() and typed.loc[1, "face":].isna().all()
    assert csv.DictReader(table.paths[0].open()).__next__()["label"] == "happy"


def _write_and_stop(table, events, error):
    table.write([FACE] * (GROUP + 5))
    events.write("fer", [Event(7, "happy", 0.0, 1.25)])
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_written_is_kept_when_the_run_breaks_off(error, tmp_path):
    with pytest.raises(error), Predictions(tmp_path, COLUMNS) as table, EventTable(tmp_path) as events:
        _write_and_stop(table, events, error)
    assert len(pd.read_csv(table.paths[0])) == len(pd.read_parquet(table.paths[1])) == GROUP + 5
    assert (tmp_path / "events.csv").read_text() == "package,track,label,start_s,end_s\nfer,7,happy,0.0000,1.2500\n"
    assert not list(tmp_path.glob(".*"))


def test_without_a_frame_the_tables_are_empty(tmp_path):
    with Predictions(tmp_path, []) as table:
        pass
    table.close()
    assert len(pd.read_parquet(table.paths[1])) == 0 and list(pd.read_csv(table.paths[0])) == list(FIXED)


@pytest.mark.parametrize("columns", [["a.x", "a.x"], ["label"]])
def test_columns_of_one_name_are_refused(columns, tmp_path):
    with pytest.raises(InputError, match="two columns"):
        Predictions(tmp_path / "out", columns)
    assert not (tmp_path / "out").exists()


FULL = """
import resource, signal, sys
from pathlib import Path
from affect.engine.runtime.writers.prediction_table import Predictions
from affect.engine.runtime.result_row import Row
from affect.shards.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    with Predictions(Path(sys.argv[1]), []) as table:
        for i in range(10_000):
            table.write([Row("fer", i, i / 25, "a.mp4")])
except InputError as error:
    sys.exit(str(error))
"""


def test_without_any_room_nothing_is_left(tmp_path):
    source = FULL.replace("50_000", "0").replace("range(10_000)", "range(3)")
    ended = subprocess.run([sys.executable, "-c", source, str(tmp_path)], capture_output=True, text=True)
    assert ended.returncode == 1 and "cannot be written" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_is_said(tmp_path):
    ended = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert ended.returncode == 1 and "cannot be written" in ended.stderr and "Traceback" not in ended.stderr
    assert 500 < len((tmp_path / "predictions.csv").read_text().splitlines()) < 10_000


KILLED = """
import os, signal, sys, time
from pathlib import Path
from affect.engine.runtime.result_row import Row
from affect.engine.runtime.smoothing import Event
from affect.engine.runtime.writers.prediction_table import EventTable, Predictions
with Predictions(Path(sys.argv[1]), []) as table, EventTable(Path(sys.argv[1])) as events:
    events.write("fer", [Event(0, "fear", 0.0, 1.0)])
    for i in range(13):
        time.sleep(0.1)
        table.write([Row("fer", i, i / 25, "a.mp4")])
        events.write("fer", [])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_kill_loses_a_second(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == -9
    (table,), (events,) = tmp_path.glob(".predictions.csv.*"), tmp_path.glob(".events.csv.*")
    assert len(table.read_text().splitlines()) > 5 and len(events.read_text().splitlines()) == 2
