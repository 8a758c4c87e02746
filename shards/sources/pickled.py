"""Reads pickles of plain values without running them: nested numbers and texts, numpy's arrays, pandas' frames."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affect.shards.errors import InputError
from affect.shards.sources.pickle_machine import Call, Name, Refused, parse

KINDS = "biufSU"  # of numpy's plain types: bool, whole, unsigned, real, bytes, text
MOST_ROWS = 10_000_000  # an index says in a few bytes how long it is
MOST_BYTES = 4 * 2**30
MOST_VALUES = 100_000_000  # shared parts counted wherever they are: what a text or a comparison of the value goes through
TEXT_LENGTH = 256  # so much of a text counts as a value
INSTEAD = "Store it as CSV or JSON where it was written, or as a frame of numbers and texts"


@dataclass(frozen=True)
class Frame:
    """A pandas DataFrame: name -> its values, and the label of each row."""

    columns: dict[str, list[Any]]
    index: list[Any]


def read_pickle(path: Path) -> Any:
    """Read plain values, arrays as lists, frames as `Frame`. Raises InputError naming anything else; nothing is run."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise Refused(f"{size:,} bytes, more than {MOST_BYTES:,}")
        value = plain(parse(path.read_bytes()), {})
        if _unfolded(value, {}) > MOST_VALUES:
            raise Refused(f"it unfolds to more than {MOST_VALUES:,} values")
        return value
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}") from error
    except Refused as reason:
        raise InputError(f"{path}: refused: {reason}. {INSTEAD}") from None
    except RecursionError:
        raise InputError(f"{path}: refused: values inside themselves, or too deep. {INSTEAD}") from None
    except BROKEN as error:
        raise InputError(f"{path}: not readable as a pickle: {error or type(error).__name__}. {INSTEAD}") from error


def plain(value: Any, read: dict[int, Any]) -> Any:
    """Return the value with every `Call` read. read: values read so far, by id, so that shared parts are read once."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) not in read:
        read[id(value)] = _read(value, read)
    return read[id(value)]


def _read(value: Any, read: dict[int, Any]) -> Any:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, list | tuple):
        return type(value)(plain(item, read) for item in value)
    if isinstance(value, dict):
        return {plain(key, read): plain(item, read) for key, item in value.items()}
    if isinstance(value, Call) and value.kind in READ:
        return READ[value.kind](value, read)
    raise Refused(f"{_what(value)} where a value should be")


def _unfolded(value: Any, counts: dict[int, int]) -> int:
    """Count the values inside a value, shared ones each time. counts: those known so far, by id."""
    if isinstance(value, str | bytes):
        return 1 + len(value) // TEXT_LENGTH
    if not isinstance(value, list | tuple | dict | Frame):
        return 1
    if id(value) not in counts:
        parts = [value.columns, value.index] if isinstance(value, Frame) else value
        count = 1 + sum(_unfolded(part, counts) for part in parts)
        counts[id(value)] = count + (sum(_unfolded(part, counts) for part in value.values()) if isinstance(value, dict) else 0)
    return counts[id(value)]


def array(value: Any, read: dict[int, Any]) -> np.ndarray:
    """Return an array of numbers, texts or plain values."""
    if isinstance(value, Call) and value.kind == "array of bytes":
        data, dtype, shape, order = value.arguments
        return _shaped(_bytes(data), _dtype(dtype), shape, order, read)
    if isinstance(value, Call) and value.kind == "array" and isinstance(value.state, tuple):
        _, shape, dtype, by_columns, data = value.state
        data = data if isinstance(data, list) else _bytes(data)
        return _shaped(data, _dtype(dtype), shape, "F" if by_columns else "C", read)
    if isinstance(value, Call) and value.kind == "texts":
        return _texts(value)
    raise Refused(f"{_what(value)} where an array should be")


def _shaped(data: bytes | list[Any], dtype: np.dtype, shape: tuple[int, ...], order: str, read: dict[int, Any]) -> np.ndarray:
    if dtype.kind != "O":
        if not isinstance(data, bytes):
            raise Refused(f"an array of {dtype} made of {_what(data)}")
        return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload]
    if not isinstance(data, list):
        raise Refused(f"an array of objects made of {_what(data)}")
    values = np.empty(len(data), object)
    values[:] = [plain(item, read) for item in data]
    return values.reshape(shape, order=order)  # type: ignore[call-overload]


def _dtype(call: Any) -> np.dtype:
    """A plain dtype, or that of objects."""
    text = call.arguments[0] if isinstance(call, Call) and call.kind == "type" else call
    order = call.state[1] if isinstance(call, Call) and call.state else "|"
    if not isinstance(text, str) or not ((text[:1] in KINDS and text[1:].isdecimal()) or text in ("O8", "O")):
        raise Refused(f"an array of {_what(text)}")
    return np.dtype(object) if text[0] == "O" else np.dtype((order if order in "<>" else "") + text)


def _bytes(value: Any) -> bytes:
    if isinstance(value, Call) and value.kind == "bytes" and value.arguments[1] in ("latin1", "latin-1"):
        return str.encode(value.arguments[0], "latin1")
    if isinstance(value, Call) and value.kind in ("buffer", "arrow buffer"):
        return _bytes(value.arguments[0]) if value.arguments else b""
    if not isinstance(value, bytes | bytearray):
        raise Refused(f"{_what(value)} where bytes should be")
    return bytes(value)


def _texts(call: Call) -> np.ndarray:
    """(N,) objects from pandas' texts in Arrow: offsets, and all texts as UTF-8."""
    state = call.state[0] if isinstance(call.state, tuple) else call.state
    (arrow,) = (value for value in state.values() if isinstance(value, Call) and value.kind.startswith("arrow"))
    chunks = arrow.arguments[0] if arrow.kind == "arrow chunks" else [arrow]
    texts = [text for chunk in chunks for text in _chunk(chunk)]
    values = np.empty(len(texts), object)
    values[:] = texts
    return values


def _chunk(call: Call) -> list[str | None]:
    kind, length, _, offset, (valid, starts, data), *_ = call.arguments[0]
    wide = {"large_string": "<i8", "string": "<i4"}.get(kind.arguments[0]) if isinstance(kind.arguments[0], str) else None
    if wide is None:
        raise Refused(f"an Arrow array of {_what(kind.arguments[0])}")
    if length > MOST_ROWS:
        raise Refused(f"an Arrow array of {length:,} rows, more than {MOST_ROWS:,}")
    edges = np.frombuffer(_bytes(starts), wide)[offset : offset + length + 1].tolist()
    text = _bytes(data) if data is not None else b""
    known = np.ones(length, bool)
    if valid is not None:
        known = np.unpackbits(np.frombuffer(_bytes(valid), np.uint8), bitorder="little")[offset : offset + length].astype(bool)
    pairs = zip(edges, edges[1:], known.tolist(), strict=False)
    return [text[start:end].decode() if there else None for start, end, there in pairs]


def _index(call: Call, read: dict[int, Any]) -> list[Any]:
    """The labels of an axis."""
    if call.kind != "index":
        raise Refused(f"{_what(call)} where an index should be")
    _, facts = call.arguments
    if "data" in facts:
        return list(array(facts["data"], read).tolist())
    labels = range(facts["start"], facts["stop"], facts["step"])
    if len(labels) > MOST_ROWS:
        raise Refused(f"an index of {len(labels):,} rows, more than {MOST_ROWS:,}")
    return list(labels)


def _frame(call: Call, read: dict[int, Any]) -> Frame:
    """Read a frame, whose columns are in blocks (columns, rows) of one type each."""
    state: dict[str, Any] = call.state if isinstance(call.state, dict) else {}
    manager = state.get("_mgr", state.get("_data"))
    if not isinstance(manager, Call) or manager.kind != "blocks" or not manager.arguments:
        raise Refused("a DataFrame of another version of pandas")
    blocks, (names, rows) = manager.arguments
    names, index = _index(names, read), _index(rows, read)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise Refused(f"a DataFrame with the column {_what(wrong[0])}, which is no name")
    columns: dict[str, list[Any]] = {}
    for block in blocks:
        values, places, _ = block.arguments
        values = array(values, read)
        at = range(*places.arguments) if isinstance(places, Call) else array(places, read).tolist()
        for place, column in zip(at, values.reshape(len(at), -1), strict=True):
            columns[names[place]] = column.tolist()
    if len(columns) != len(names) or any(len(values) != len(index) for values in columns.values()):
        raise Refused("a DataFrame whose blocks are not its columns, or two columns of one name")
    return Frame({name: columns[name] for name in names}, index)


def _scalar(call: Call, read: dict[int, Any]) -> Any:
    dtype, data = call.arguments
    return _shaped(_bytes(data), _dtype(dtype), (1,), "C", read)[0].item()


def _what(value: Any) -> str:
    if isinstance(value, Call | Name):
        return str(value.name if isinstance(value, Call) else value)
    return repr(value)[:40] if isinstance(value, str | int | float | bytes | None) else type(value).__name__


BROKEN = (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, MemoryError, OverflowError, SystemError)
READ: dict[str, Callable[[Call, dict[int, Any]], Any]] = {
    "frame": _frame,
    "index": _index,
    "array": lambda call, read: array(call, read).tolist(),
    "array of bytes": lambda call, read: array(call, read).tolist(),
    "texts": lambda call, read: array(call, read).tolist(),
    "scalar": _scalar,
    "bytes": lambda call, _: _bytes(call),
    "buffer": lambda call, _: _bytes(call),
}
