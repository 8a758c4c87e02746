"""Warns, once each, where a source is not what a package was trained on; the warnings go into the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import av

from affect.engine.config.preprocess import Preprocess
from affect.engine.runtime.results import Face, Frame
from affect.engine.runtime.session import Session
from affect.engine.runtime.sources.container import opened, video_of
from affect.engine.runtime.sources.stream import Source
from affect.engine.runtime.vision.detectors import Full
from affect.engine.runtime.vision.subject import Search, detects_people
from affect.engine.system.log import say

SMALL = 0.5  # share of the smallest usual training face, below which a face is small
SLOW = 0.9  # share of the frames a second that a clip model sees, below which a video is slow


class InputWarnings:
    """The warnings of one pass. small: package -> number of faces smaller than SMALL of those that it was trained on."""

    def __init__(self, engines: Sequence[Session], source: Source, search: Search) -> None:
        self.engines, self.search = tuple(engines), search
        self.notes: list[str] = []
        self.small: Counter[str] = Counter()
        for note in (*_other_species(engines, search), *_sets_of_a_video(engines, source)):
            self._warn(note)

    def check_sizes(self, frame: Frame) -> None:
        """Count the faces that are too small; warn of the first."""
        for engine in self.engines if frame.faces else ():
            if engine.manifest.face_px is None:
                continue
            low, high = engine.manifest.face_px
            small = [px for face in frame.faces if (px := crop_px(face, self.search, engine.package.preprocess)) < SMALL * low]
            if small and not self.small[engine.name]:
                usual = f"{low:g}" if low == high else f"{low:g} to {high:g}"
                self._warn(
                    f"{engine.name}: a face of {min(small):.0f} px in frame {frame.number}, trained on {usual} px: "
                    "predictions of faces so small are guesses; how many there are is in the summary"
                )
            self.small[engine.name] += len(small)

    def _warn(self, note: str) -> None:
        self.notes.append(note)
        say(f"warning: {note}")


def crop_px(face: Face, search: Search, preprocess: Preprocess) -> float:
    """Return the side of a model's crop in pixels of the source; of a picture that is cropped already its shorter side."""
    _, _, width, height = face.box
    if search.subject == "full" or isinstance(search.subject, Full):
        return min(width, height)
    return max(width, height) * (1 + 2 * search.crop_settings(preprocess)[0])


def _other_species(engines: Sequence[Session], search: Search) -> Iterator[str]:
    known = {engine.manifest.species: engine.name for engine in engines if engine.manifest.species}
    if len(known) > 1:
        yield f"{', '.join(f'{name} reads {species}' for species, name in known.items())}: one source shows one of them"
    unknown = [engine.name for engine in engines if not engine.manifest.species]
    if unknown and detects_people(search.subject):
        yield f"{unknown[0]}: does not say whose faces it reads, and {search.subject} finds those of people"


def _sets_of_a_video(engines: Sequence[Session], source: Source) -> Iterator[str]:
    with_sets = [engine for engine in engines if engine.conformal]
    if with_sets and source.moving:
        yield (
            f"{with_sets[0].name}: its sets hold for exchangeable stills; frames of a video are like each other, so the share "
            "of them that holds the right label may be another"
        )


def warn_if_slow(engines: Sequence[Session], source: Source) -> list[str]:
    """Warn of a video with fewer frames a second than a clip model sees; of one that cannot be read, not. Return the warnings."""
    rate = _rate_hz(source.name) if source.moving and not source.live else None
    notes = []
    for engine in engines:
        needed = (engine.manifest.clip or {}).get("rate_hz")
        if rate and needed and rate < SLOW * needed:
            notes.append(
                f"{engine.name}: sees {needed:.3g} frames a second, {source.name} has {rate:.3g}: "
                "its predictions of motion are guesses"
            )
            say(f"warning: {notes[-1]}")
    return notes


def _rate_hz(source: str) -> float | None:
    try:
        with opened(source) as container:
            stream = video_of(container)
            return float(stream.average_rate) if stream is not None and stream.average_rate else None
    except (av.FFmpegError, OSError):
        return None
