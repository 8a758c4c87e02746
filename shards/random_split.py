"""Splits drawn from a name: a function of the text alone, so that a sample never moves."""

from __future__ import annotations

import hashlib


def falls_into_calib(whole: str, calib: float) -> bool:
    """Return whether `--calib` moves a sample of val, known by its group, its origin or its pixels' sha256 in hex, to calib.

    The text that is hashed holds the word calib: sources that draw val by the same group draw another number.
    """
    return share_of(f"calib {whole}") < calib


def share_of(text: str) -> float:
    """A number in [0, 1), uniform over texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
