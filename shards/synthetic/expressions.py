"""Facial expressions of drawn faces as intensities of action units.

Source of PROTOTYPES: Ekman & Friesen, EMFACS-7, 1983; Ekman, Friesen & Hager, FACS Investigator's Guide, 2002, ch. 12.
Contempt is unilateral: Ekman & Friesen, A New Pan-Cultural Facial Expression of Emotion, 1986.
"""

from typing import NamedTuple

import numpy as np

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
ACTION_UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 43))
DRAWN = (*ACTION_UNITS, "AU16", "AU24", "AU27")  # the last three in `posed` faces alone
PROTOTYPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happiness": {"AU6": 0.8, "AU12": 1.0},
    "surprise": {"AU1": 0.9, "AU2": 0.9, "AU5": 0.8, "AU26": 1.0},
    "sadness": {"AU1": 1.0, "AU4": 0.7, "AU15": 1.0},
    "anger": {"AU4": 1.0, "AU5": 0.7, "AU7": 0.8, "AU23": 0.9},
    "disgust": {"AU9": 1.0, "AU10": 0.7, "AU15": 0.7},
    "fear": {"AU1": 0.9, "AU2": 0.7, "AU4": 0.7, "AU5": 0.9, "AU7": 0.6, "AU20": 0.9, "AU26": 0.7},
    "contempt": {"AU12": 0.9, "AU14": 1.0},
}
SUBTLE = {"AU6": 1.4, "AU7": 1.4, "AU23": 1.7}  # drawn so much stronger in `posed` faces, to show by themselves
PRESENT = 0.3  # an action unit counts as present from this intensity on
DROP_CHANCE = 0.08  # that a still lacks one unit of a prototype of three or more
EXTRA_CHANCE = 0.35  # that a still has one weak unit beside its prototype
EXPRESSIVENESS = (0.72, 1.0)  # uniform; of a whole expression


class Expression(NamedTuple):
    au: dict[str, float]  # intensity in 0..1 of every action unit
    reach: tuple[float, float] = (1.0, 1.0)  # share of AU12 and AU14 that arrives at the mouth corner on side -1, +1
    lips: tuple[float, float] = (1.0, 1.0)  # share of AU23 that thins the upper, lower lip


def expression_of(rng: np.random.Generator, emotion: str) -> Expression:
    """An expression of the emotion, each time a little different."""
    au, prototype = dict.fromkeys(ACTION_UNITS, 0.0), PROTOTYPES[emotion]
    expressiveness = rng.uniform(*EXPRESSIVENESS)
    for name, value in prototype.items():
        au[name] = min(value * expressiveness * rng.uniform(0.85, 1.15), 1.0)
    if len(prototype) > 2 and rng.random() < DROP_CHANCE:
        au[rng.choice(list(prototype))] = 0.0
    if rng.random() < EXTRA_CHANCE:
        extra = rng.choice(ACTION_UNITS[:-1])
        au[extra] = max(au[extra], rng.uniform(0.05, PRESENT))
    left = float(rng.integers(2))
    return Expression(au, (left, 1 - left) if emotion == "contempt" else (1.0, 1.0))
