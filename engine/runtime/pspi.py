"""A proxy of the pain index PSPI from action units of the Facial Action Coding System."""

from __future__ import annotations

from collections.abc import Mapping

PSPI_PROXY = "pspi_proxy"
PSPI_UNITS = (("AU4",), ("AU6", "AU7"), ("AU9", "AU10"), ("AU43",))


def pspi_proxy(present: Mapping[str, bool]) -> float | None:
    """Return AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43 of presence, 0 to 4; None where one of the four is not predicted.

    The pain index itself adds intensities from 0 to 5 and AU43 as 0 or 1, 0 to 16: presence is not intensity, so this is a
    proxy. Source: Prkachin and Solomon, Pain 2008.
    """
    if not all(any(unit in present for unit in units) for units in PSPI_UNITS):
        return None
    return float(sum(max(present.get(unit, False) for unit in units) for units in PSPI_UNITS))
