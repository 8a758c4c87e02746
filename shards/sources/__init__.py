"""One module per dataset: raw files become an iterator of `Sample`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from affect.shards.schema import ClipFacts, Output, Sample, TargetLayout


class Source(Protocol):
    """Raw files as samples. Iterated more than once; the order is always the same."""

    layout: TargetLayout
    label_protocol: str  # how a label came about: votes | majority-official | hard
    meta: dict[str, type]  # name -> str | float
    filtered: Counter[str]  # rows that a label rule left out, by reason; anew with each iteration

    def samples(self) -> Iterator[Sample]: ...

    def fingerprint(self) -> dict[str, str]: ...


def clip_of(source: Source) -> ClipFacts | None:
    """The attribute `clip` of a source whose samples are clips, all of them; None of a source of pictures."""
    return getattr(source, "clip", None)


def one_hot(output: Output, name: str) -> dict[str, float]:
    """The target columns of a hard label."""
    return {f"{output.name}.{n}": float(n == name) for n in output.names}


def falls_into_calib(whole: str, calib: float) -> bool:
    """Whether `--calib` moves a sample of val, known by its group, its origin or its pixels' sha256 in hex, to calib.

    The text that is hashed holds the word calib: sources that draw val by the same group draw another number.
    """
    return share_of(f"calib {whole}") < calib


def share_of(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: splits drawn by it never move."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
