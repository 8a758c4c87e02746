"""Settings of the loss terms that a configuration switches on by a section of their name: `loss.kd`, `loss.dkd` ...

A term's file in engine/losses declares them together with the term, by `@loss_term(name, config=...)`. Those files import torch,
so they are imported when a configuration names a term that is not declared yet, and not before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from affect.engine.config.section import Section
from affect.engine.system.submodules import import_submodules

FOLDER = "affect.engine.losses"
FIRST_TERMS = ("kd", "dkd", "kd_mse", "proto_kd", "d_geo")  # their order is that of saved runs, where those off are null
SETTINGS: dict[str, type[TermConfig]] = {}


class TermConfig(Section):
    """Base of a term's settings; `weight` is the term's factor in the sum of losses."""

    weight: float = Field(1.0, gt=0)

    @property
    def learns_from(self) -> Literal["", "logits", "features"]:
        """What of a teacher the term needs; empty: no teacher."""
        return ""

    @property
    def files(self) -> dict[str, str]:
        """Setting -> path of the files that the term reads: their sha256 stands in the run's fingerprint."""
        return {}

    def check_epochs(self, key: str, epochs: int) -> None:
        """Raise a ValueError that begins with `key`, `loss.<name>`, where a schedule does not end within so many epochs."""


def declare_settings(name: str, kind: type[TermConfig]) -> None:
    """Make `loss.<name>` a section of the configuration."""
    SETTINGS[name] = kind


def term_settings(names: Iterable[str] | None = None) -> dict[str, type[TermConfig]]:
    """Return {name: kind of settings} of the declared terms, importing engine/losses first where one of `names` is not declared.

    names: None for all there are. Terms are in the order of FIRST_TERMS, then of their names.
    """
    if names is None or not SETTINGS.keys() >= set(names):
        import_submodules(FOLDER)
    first = [name for name in FIRST_TERMS if name in SETTINGS]
    return {name: SETTINGS[name] for name in (*first, *sorted(SETTINGS.keys() - set(first)))}
