"""Interprets instructions of pickles that build plain values. A pickle is a program; nothing that it names is imported or run.

Numbers, texts, lists, tuples and dicts are built. Only names that numpy's arrays and pandas' frames need are accepted, and a call
of one becomes a `Call`: its name and arguments. Any other name and any other instruction is refused.

Parts of a value may be shared, so a few bytes can stand for 2^40 values. Nothing here walks through a value, and keys are flat:
hashing a key of tuples that share parts would take all of them, deaf to Ctrl-C.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MARK = object()
MOST_INSTRUCTIONS = 50_000_000  # a table of a million rows and ten columns of texts has twenty million; bounds memo and stack too
MOST_BITS = 128  # of a number: text of a longer one takes a time that grows with its square


class Refused(ValueError):
    """The pickle holds something that is no plain value."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Call:
    """A call that a pickle would make; its state may be set afterwards."""

    def __init__(self, name: Name, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None

    @property
    def kind(self) -> str:
        return KNOWN[str(self.name)]


def parse(data: bytes) -> Any:
    """Return the value of a pickle, with a `Call` for each call that it would make. Raises Refused."""
    machine = _Machine()
    for count, (code, argument, _) in enumerate(pickletools.genops(data)):
        if count == MOST_INSTRUCTIONS:
            raise Refused(f"more than {MOST_INSTRUCTIONS:,} instructions")
        if code.name == "STOP":
            return machine.stack.pop()
        machine.run(code.name, argument)
    raise Refused("it has no end")


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in VALUES:
            if isinstance(argument, int) and argument.bit_length() > MOST_BITS:
                raise Refused(f"a number of {argument.bit_length():,} bits")
            stack.append(argument)
        elif code in MAKES:
            stack.append(MAKES[code]())
        elif code in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if code == "MEMOIZE" else argument] = stack[-1]
        elif code in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(code[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif code in DOES:
            DOES[code](self, argument)
        elif code not in ("PROTO", "FRAME"):
            raise Refused(f"the instruction {code}")

    def marked(self) -> list[Any]:
        """Pop the values above the last mark, and the mark."""
        at = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is MARK), None)
        if at is None:
            raise Refused("it goes back to a mark that it has not set")
        above = self.stack[at + 1 :]
        del self.stack[at:]
        return above

    def named(self, argument: Any) -> None:
        """`module name` as text, or both on the stack."""
        if argument is None:
            name, module = self.stack.pop(), self.stack.pop()
        else:
            module, name = argument.split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it calls what has no name")
        known = Name(module, name)
        if str(known) not in KNOWN:
            raise Refused(f"it calls {known}")
        self.stack.append(known)

    def called(self, _: Any) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise Refused(f"it calls {type(name).__name__}")
        self.stack.append(Call(name, arguments))

    def built(self, _: Any) -> None:
        state, call = self.stack.pop(), self.stack[-1]
        if not isinstance(call, Call) or call.state is not None:
            raise Refused(f"it changes {call if isinstance(call, Name) else type(call).__name__}")
        call.state = state

    def extended(self, _: Any) -> None:
        items = self.marked()
        self.stack[-1].extend(items)

    def appended(self, _: Any) -> None:
        item = self.stack.pop()
        self.stack[-1].append(item)

    def filled(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise Refused(f"it sets items of {type(target).__name__}")
        target.update(_paired(items))

    def pair(self, _: Any) -> None:
        self.filled([self.stack.pop(-2), self.stack.pop()])

    def collected(self, make: Callable[[list[Any]], Any]) -> None:
        self.stack.append(make(self.marked()))


def _paired(items: list[Any]) -> dict[Any, Any]:
    """Make a dict of keys and values in turn. Raises Refused where a key is no text, number or flat tuple of them."""
    for key in items[::2]:
        for part in key if isinstance(key, tuple) else (key,):
            if not isinstance(part, KEYS):
                raise Refused(f"a key with {type(part).__name__} in it; expected text, numbers or flat tuples of them")
    return dict(zip(items[::2], items[1::2], strict=True))


KEYS = (str, bytes, int, float, bool, type(None), Call)  # a call: numpy's number
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8",
}  # fmt: skip
MAKES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict, "MARK": lambda: MARK,
}  # fmt: skip
DOES: dict[str, Callable[[_Machine, Any], object]] = {
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.marked(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.named,
    "REDUCE": _Machine.called,
    "NEWOBJ": _Machine.called,
    "BUILD": _Machine.built,
    "APPEND": _Machine.appended,
    "APPENDS": _Machine.extended,
    "SETITEM": _Machine.pair,
    "SETITEMS": lambda machine, _: machine.filled(machine.marked()),
    "LIST": lambda machine, _: machine.collected(list),
    "TUPLE": lambda machine, _: machine.collected(tuple),
    "DICT": lambda machine, _: machine.collected(_paired),
}

_INDEXES = ("Index", "RangeIndex", "Int64Index", "UInt64Index", "Float64Index", "NumericIndex")
_NAMES = {
    "frame": ("pandas.DataFrame", "pandas.core.frame.DataFrame"),
    "blocks": ("pandas.core.internals.managers.BlockManager", "pandas.core.internals.BlockManager"),
    "block": ("pandas._libs.internals._unpickle_block", "pandas.core.internals.blocks.new_block"),
    "index": ("pandas.core.indexes.base._new_Index",),
    "a kind of index": tuple(
        f"{module}.{name}"
        for module in ("pandas", "pandas.core.indexes.base", "pandas.core.indexes.range", "pandas.core.indexes.numeric")
        for name in _INDEXES
    ),
    "texts": ("pandas.arrays.ArrowStringArray", "pandas.core.arrays.string_arrow.ArrowStringArray"),
    "text type": ("pandas.StringDtype", "pandas.core.arrays.string_.StringDtype"),
    "arrow": ("pyarrow.lib._restore_array",),
    "arrow chunks": ("pyarrow.lib.chunked_array",),
    "arrow type": ("pyarrow.lib.type_for_alias",),
    "arrow buffer": ("pyarrow.lib.py_buffer",),
    "array": ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    "array of bytes": ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    "scalar": ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    "a kind of array": ("numpy.ndarray",),
    "type": ("numpy.dtype",),
    "slice": ("builtins.slice", "__builtin__.slice"),
    "bytes": ("_codecs.encode",),
    "buffer": ("builtins.bytearray", "__builtin__.bytearray"),
}
KNOWN = {name: kind for kind, names in _NAMES.items() for name in names}
