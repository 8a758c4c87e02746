"""Pickles: plain values come through, all else is refused by its name, and nothing is run."""

import datetime
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from affect.shards.errors import InputError
from affect.shards.sources.pickled import Frame, read_pickle


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def read(tmp_path):
    """read(bytes) -> what a pickle of these bytes holds."""

    def read(data):
        (tmp_path / "a.pkl").write_bytes(data)
        return read_pickle(tmp_path / "a.pkl")

    return read


TABLE = {"image": ["a/1.jpg", "a/2.jpg", None], "label": [0, 1, 1], "sharp": [1.5, 2.0, np.nan], "kept": [True, False, True]}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("texts", [object, "str"])
@pytest.mark.parametrize("rows", [slice(None), slice(1, None), slice(None, None, -1)], ids=str)
def test_a_frame_comes_through(rows, texts, protocol, read):
    frame = pd.DataFrame(TABLE).astype({"image": texts}).iloc[rows]
    frame_read = read(pickle.dumps(frame, protocol))
    assert isinstance(frame_read, Frame) and frame_read.index == frame.index.tolist() and list(frame_read.columns) == list(TABLE)
    for name, values in frame_read.columns.items():
        assert [None if value != value else value for value in values] == frame[name].astype(object).where(
            frame[name].notna(), None
        ).tolist()


def test_sets_of_a_fold_come_through(read):
    fold = {"train": [{"indices": np.arange(3), "label": np.int64(1)}], "test": ({"indices": [4], "label": None},)}
    want = {"train": [{"indices": [0, 1, 2], "label": 1}], "test": ({"indices": [4], "label": None},)}
    assert all(read(pickle.dumps(fold, protocol)) == want for protocol in (2, 3, 4, 5))


def nested_getattr():
    """builtins.getattr of a module, then a call of what it gives."""
    return b"\x80\x04cbuiltins\ngetattr\n(cos\n__dict__\nX\x06\x00\x00\x00systemtR(X\x04\x00\x00\x00exittR."


def dotted():
    """A name behind an innocent one, as protocol 4 may give it."""
    return b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."


def changed_class():
    """The state of a name that is known: setattr on what it stands for."""
    return b"\x80\x04cnumpy\nndarray\n}(X\x01\x00\x00\x00aX\x01\x00\x00\x00bub."


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (lambda mark: pickle.dumps(Call(os.system, f"touch {mark}")), "posix.system|nt.system"),
        (lambda mark: pickle.dumps([1, {"a": Call(eval, f"open({str(mark)!r}, 'w')")}]), "builtins.eval"),
        (lambda mark: pickle.dumps(Call(open, str(mark), "w")), r"_?io.open"),
        (lambda mark: pickle.dumps(Call(os.mkdir, str(mark)), 0), r"posix.mkdir|nt.mkdir"),
        (lambda mark: pickle.dumps(pd.DataFrame({"a": [Call(os.mkdir, str(mark))]})), r"posix.mkdir|nt.mkdir"),
        (lambda mark: nested_getattr(), "builtins.getattr"),
        (lambda mark: dotted(), r"numpy.ndarray.__class__"),
        (lambda mark: changed_class(), "it changes"),
        (lambda mark: pickle.dumps(np.zeros(3, [("a", "i4")])), "an array of V4|an array of"),
        (lambda mark: pickle.dumps(datetime.date(2020, 1, 1)), "datetime.date"),
        (lambda mark: pickle.dumps({1, 2}, 4), "EMPTY_SET"),
        (lambda mark: pickle.dumps(pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])})), "pandas._libs"),
        (lambda mark: b"\x80\x02\x82\x01.", "EXT1"),
        (lambda mark: b"(cos\nsystem\nS'exit'\no.", "os.system"),
        (lambda mark: b"(S'exit'\nios\nsystem\n.", "INST"),
    ],
)
def test_what_is_no_plain_value_is_refused_by_name_and_not_run(data, named, read, tmp_path):
    mark = tmp_path / "executed"
    with pytest.raises(InputError, match=f"(?s)a.pkl: refused:.*({named}).*CSV or JSON"):
        read(data(mark))
    assert not mark.exists()


def nest(depth):
    """Lists of which each holds the one before twice: 2^depth long if it were unfolded."""
    return b"\x80\x04" + b"]\x94" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(depth)) + b"."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not readable as a pickle"),
        (b"image,video\na,b\n", "a.pkl: (refused|not readable)"),
        (pickle.dumps([1, 2])[:-2], "a.pkl: (refused|not readable)"),
        (b"\x80\x04h\x07.", "not readable as a pickle"),
        (b"\x80\x04]\x94h\x00a.", "inside themselves"),
        (b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".", "too deep"),
        (b"\x80\x04.", "not readable as a pickle"),
        (b"\x80\x04(.", "refused"),
        (b"\x80\x04ca\nb\n.", "it calls a.b"),
        (b"\x80\x04cnumpy\nndarray\n.", "numpy.ndarray where a value should be"),
    ],
)
def test_what_is_broken_is_one_message(data, message, read):
    with pytest.raises(InputError, match=message):
        read(data)


def test_lists_that_hold_one_another_do_not_grow(read):
    value, depth = read(nest(20)), 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 20


def tuples(depth=40):
    """Instructions of t = (t, t), so often: a few bytes for 2^depth values."""
    return b")" + b"2\x86" * depth


def objects(depth=40):
    """Arrays of objects, each of which has the one before twice."""
    array = boxed(0, 0)
    for _ in range(depth):
        array = boxed(array, array)
    return array


def boxed(one, other):
    array = np.empty(2, object)
    array[0], array[1] = one, other
    return array


def nested_frames():
    """A frame of frames, of which each has the one before twice."""
    frame = pd.DataFrame({"a": [1]})
    for _ in range(40):
        frame = pd.DataFrame({"a": boxed(frame, frame)})
    return frame


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04}" + tuples() + b"K\x01s.", "refused: a key with tuple in it; expected text, numbers or flat tuples"),
        (b"\x80\x04(" + tuples() + b"K\x01d.", "refused: a key with tuple in it"),
        (b"\x80\x04" + tuples() + b"\x8c\x01a\x93.", "refused: it calls what has no name"),
        (b"\x80\x04c_codecs\nencode\n" + tuples() + b"\x8c\x06latin1\x86R.", "not readable as a pickle"),
        (b"\x80\x04" + tuples() + b".", "refused: it unfolds to more than 100,000,000 values"),
        (nest(60), "refused: it unfolds to more than"),
        (pickle.dumps(objects(), 4), "refused: it unfolds to more than"),
        (pickle.dumps(nested_frames(), 4), "refused: it unfolds to more than"),
        (pickle.dumps({"a": 1 << 500_000}), "refused: a number of 500,001 bits"),
        (pickle.dumps(np.str_("a")).replace(b"a\0\0\0", b"\xff\xff\xff\xff"), "not readable as a pickle: invalid maximum"),
    ],
    ids=["key", "keys", "name", "bytes", "tuples", "lists", "arrays", "frames", "number", "text"],
)
def test_a_few_bytes_for_2_to_the_40_values_are_refused_at_once(data, message, read):
    start = time.monotonic()
    with pytest.raises(InputError, match=message):
        read(data)
    assert time.monotonic() - start < 1


@pytest.mark.slow
def test_pack_mouse_refuses_keys_that_share_parts(tmp_path):
    """It hung, deaf to Ctrl-C: in a process, so that a test that fails comes to an end."""
    (tmp_path / "dataset_df.pkl").write_bytes(b"\x80\x04}" + tuples() + b"K\x01s.")
    command = [sys.executable, "-c", "from affect.engine.cli.main import main; main()"]
    command += ["pack", "mouse", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "dataset_df.pkl: refused: a key" in done.stderr and "Traceback" not in done.stderr


def test_flat_tuples_and_numbers_of_numpy_are_keys(read):
    value = {("a", 1, None): 1, np.int64(3): 2, 1.5: 3, True: 4}
    assert read(pickle.dumps(value, 4)) == value


def test_too_many_instructions_or_bytes_are_refused(read, monkeypatch):
    monkeypatch.setattr("affect.shards.sources.pickle_machine.MOST_INSTRUCTIONS", 100)
    with pytest.raises(InputError, match="refused: more than 100 instructions"):
        read(pickle.dumps(list(range(200))))
    monkeypatch.setattr("affect.shards.sources.pickled.MOST_BYTES", 100)
    with pytest.raises(InputError, match="refused: .* bytes, more than 100"):
        read(pickle.dumps(list(range(200))))


def test_an_index_is_not_made_as_long_as_it_says(read):
    data = pickle.dumps(pd.DataFrame({"a": [1]}), 4).replace(b"\x8c\x04stop\x94K\x01", b"\x8c\x04stop\x94J\xff\xff\xff\x7f")
    with pytest.raises(InputError, match="an index of 2,147,483,647 rows"):
        read(data)
