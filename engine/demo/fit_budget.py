"""Chooses what `affect demo` trains, so that it ends in time: picture size and epochs, by the speed measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from affect.engine.crossval.trial import Trial

BUDGET_S = 225.0  # of the whole demo; the rest of four minutes is for importing
REST = 0.7  # what follows training (calibration, export, a video) takes about this many times as long as packing


@dataclass(frozen=True)
class Candidate:
    """Settings beside those of configs/people/demo.yaml, and how many epochs they are trained at most and at least."""

    image_size: int
    most: int
    least: int

    @property
    def settings(self) -> list[str]:
        return [f"model.image_size={self.image_size}"]


# Accuracy on held-out people: at 64 px .963 after 8 epochs and .902 after 5, at 48 px .916 after 6 in 0.7 of the time of those 5.
CANDIDATES = (Candidate(64, most=8, least=7), Candidate(48, most=8, least=4))


@dataclass(frozen=True)
class Choice:
    """What is trained, and the reason in a sentence."""

    candidate: Candidate
    epochs: int
    reason: str

    @property
    def settings(self) -> list[str]:
        return [*self.candidate.settings, f"optim.epochs={self.epochs}"]


def fit_budget(
    left_s: Callable[[], float], measure: Callable[[Candidate], Trial], candidates: Sequence[Candidate] = CANDIDATES
) -> Choice:
    """Return the first candidate whose least epochs fit into the seconds left, with as many epochs as fit; else the last.

    left_s: the seconds left by now. measure: times a candidate; it is called for one after another until one fits.
    """
    tried = []
    for candidate in candidates:
        trial = measure(candidate)
        left = left_s()
        fits = int(left / trial.epoch_s)
        tried.append(f"{candidate.image_size} px {trial.batch / trial.step_s:,.0f} images/s, {trial.epoch_s:.1f} s an epoch")
        if fits >= candidate.least or candidate == candidates[-1]:
            epochs = min(max(fits, candidate.least), candidate.most)
            over = "" if fits >= candidate.least else "; no fewer would learn, so it takes longer"
            reason = f"{'; '.join(tried)}; {max(left, 0):.0f} s are left for training{over}"
            return Choice(candidate, epochs, reason)
    raise ValueError("no candidates")


def seconds_left(began: float, packing_s: float) -> float:
    """Return the seconds that training may take. began: on the monotonic clock. packing_s: measured, foretells what follows."""
    return BUDGET_S - (time.monotonic() - began) - REST * packing_s
