"""Parses the three label files of RAF-CE: a picture's name and a value on each line.

`0001.jpg 1+4+25`, `0001.jpg L12+24`, `0001.jpg null`; `0001.jpg 5`; `0001.jpg 0`. The names are those of the pictures
before they were aligned: `0001.jpg` is the picture `0001_aligned.jpg`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from affect.shards.errors import InputError, first
from affect.shards.images import SUFFIXES

UNIT = re.compile(r"(?:au)?([lrbt]?)([1-9]\d?)", re.IGNORECASE | re.ASCII)
BETWEEN = re.compile(r"[+,;\s]+")
NULL = ("null", "nul")
LISTED = 10  # faults of each kind

T = TypeVar("T")


@dataclass(frozen=True)
class Units:
    """The action units of a row; all empty where it is `null`.

    present: their numbers, ascending. sides: those that are on one side or at one place of the face (L left, R right, B bottom,
    T top), as `L12`. strays: tokens that are no unit. doubted: the numbers in strays, as 12 of `12?`: units that are unknown.
    """

    present: tuple[int, ...] = ()
    sides: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    doubted: tuple[int, ...] = ()

    @property
    def unreadable(self) -> bool:
        """Whether the row has strays and no unit."""
        return bool(self.strays) and not self.present


def parse_units(text: str) -> Units:
    """Parse `1+4+25`, `L12+24`, `AU1 AU2`, `au1, au2` or `null`; what is no unit becomes a stray."""
    if text.strip().casefold() in NULL:
        return Units()
    tokens = [token for token in BETWEEN.split(text) if token]
    matches = {token: UNIT.fullmatch(token) for token in tokens}
    known = [match for match in matches.values() if match]
    present = {int(match[2]) for match in known}
    sides = dict.fromkeys(f"{match[1].upper()}{match[2]}" for match in known if match[1])
    strays = tuple(token for token in tokens if not matches[token])
    numbers = {int(number) for token in strays for number in re.findall(r"\d+", token)}
    return Units(tuple(sorted(present)), tuple(sides), strays, tuple(sorted(numbers - present)))


def rows_of(path: Path, form: str, value: Callable[[str], T | None]) -> tuple[dict[str, T], list[str]]:
    """Return {picture: value} of one file, in its order, and the lines that are wrong.

    form: an example of a line. value: of the text behind the name; None where it is none.
    Raises: InputError where the file cannot be read as text, or no line of it is of that form.
    """
    rows, wrong, lines = dict[str, T](), list[str](), dict[str, int]()
    for number, line in enumerate(_text(path, form).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        picture, parsed = stem_of(name), value(text.strip())
        if PureWindowsPath(name).suffix.casefold() not in SUFFIXES or not text.strip() or parsed is None:
            wrong.append(f"{path}:{number}: found {line.strip()[:60]!r}, expected {form}")
        elif picture in rows:
            wrong.append(f"{path}:{number}: {name} stands there already, in line {lines[picture]}; expected a row a picture")
        else:
            rows[picture], lines[picture] = parsed, number
    if not rows:
        found_first = f":\n{first(wrong, 3)}" if wrong else ", it is empty"
        raise InputError(f"{path}: holds no row of the form {form}{found_first}")
    return rows, wrong


def stem_of(name: str) -> str:
    """Return `0001` for `0001.jpg`, `0001_aligned.jpg` and `aligned/0001_aligned.jpg`."""
    return PureWindowsPath(name).stem.removesuffix("_aligned")


def _text(path: Path, form: str) -> str:
    """The text, with spaces for tabs, and without the NULs that some programs fill up with."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}; expected lines of the form {form}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); expected a text of lines of the form {form}") from error
    return text.replace("\0", "").replace("\t", " ")
