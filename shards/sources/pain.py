"""Reads cattle clips after surgery, scored with the 7-item bovine facial scale: a JSON of sequences, a JSON of animals' folds.

Each sequence has an animal, a moment (M0, M1 before; M2 at the peak; M3, M4 after analgesia), seven features of 0 to 2 and their
total. Whole animals are held out: the test animals in the split test, the others by the fold in which they validate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any

from affect.shards.checksum import file_sha256
from affect.shards.encoded import BadImage
from affect.shards.errors import InputError, first, nearest
from affect.shards.sample import Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout
from affect.shards.sources import frames
from affect.shards.sources.clips import recording
from affect.shards.sources.fold_files import Folds, read_json
from affect.shards.sources.frames import AllFrames, EndS, Fps, Frames, RateHz, StartS, chosen
from affect.shards.sources.labels import LISTED
from affect.shards.sources.missing_files import PROBED, none_is_there
from affect.shards.sources.pack_command import Argument, Option, pack_command

FEATURES = (
    "Orbital_tightening",
    "Tension_above_eyes",
    "Cheek_tightening",
    "Ears_frontal",
    "Ears_lateral",
    "Lip_jaw_profile",
    "Nostril_muzzle",
)
MOST = 2.0  # of a feature
TOTAL, NRS, VAS = "Total.Facial.scale", "NRS (1-10)", "VAS (0-100)"
STATES = {"M0": "no_pain", "M1": "no_pain", "M2": "acute", "M3": "residual", "M4": "residual"}  # by moment
PAIN = Output("pain", "scalars", (*FEATURES, "total"))
STATE = Output("state", "classes", tuple(dict.fromkeys(STATES.values())))
NEEDED = ("sequence_path", "animal", "moment", *FEATURES, TOTAL)
UNLABELLED = ("", "na", "n/a", "nan", "none", "null")
ROUNDING = 0.01  # of a total


@dataclass(frozen=True)
class Sequence:
    """One entry of the JSON, its numbers read; NaN: not scored."""

    path: str
    animal: str
    moment: str
    scores: tuple[float, ...]  # FEATURES, total
    meta: dict[str, str | float]
    num_frames: int | None


class PainSource:
    """The sequences of `labels` below `root`: folders of frames or video files, as `clip` says.

    splits: {test_animals, cv_folds: [{fold, train_animals, val_animals}]}. fps: of folders of frames.
    A score that is null or NaN is not labelled; a total that is not the sum of its features is packed, and counted in `notes`.
    """

    label_protocol = "rated"

    def __init__(self, labels: Path, root: Path, splits: Path, clip: ClipFacts, fps: float | None = None) -> None:
        if not root.is_dir():
            raise InputError(f"{root}: not a folder; --root is the folder that each sequence_path starts from")
        self.labels, self.root, self.clip, self.fps, self.filtered = labels, root, clip, fps, Counter[str]()
        self.split_file, self.folds = splits, Folds.read(splits)
        self.meta = {"moment": str, "sequence_id": str, "nrs": float, "vas": float, "fold": float, **frames.META}
        self.layout = TargetLayout((PAIN, STATE))
        self.sequences = _read(labels)
        self.folds.check({sequence.animal for sequence in self.sequences}, labels)
        self.paths = _places(root, [sequence.path for sequence in self.sequences])
        self._some_there()
        self.notes = [*self.folds.notes({sequence.animal for sequence in self.sequences}), *self._notes()]

    def samples(self) -> Iterator[Sample]:
        for sequence, path in zip(self.sequences, self.paths, strict=True):
            scores = dict(zip(PAIN.columns, sequence.scores, strict=True))
            fold = self.folds.fold_of.get(sequence.animal)
            meta = sequence.meta | ({} if fold is None else {"fold": float(fold)})
            yield Sample(
                recording(path, self.clip, self.fps),
                sequence.path,
                "test" if sequence.animal in self.folds.test else "train",
                scores | STATE.one_hot(STATES[sequence.moment]),
                self.root.resolve().name,
                sequence.animal,
                meta=meta,
            )

    def fingerprint(self) -> dict[str, str]:
        """Digests of the JSONs, and of the clips' sizes: the pixels are in the index."""
        digest = hashlib.sha256(f"{self.fps}".encode())
        for path in self.paths:
            size = path.stat().st_size if path.is_file() else sum(1 for _ in path.iterdir()) if path.is_dir() else -1
            digest.update(f"{size}\n".encode())
        named = {path.name: file_sha256(path) for path in (self.labels, self.split_file)}
        return {**named, self.root.name: digest.hexdigest()}

    def _some_there(self) -> None:
        probed = self.paths[:PROBED]
        if not any(path.exists() for path in probed):
            remedy = "Name the folder that the paths start from: --root FOLDER"
            raise InputError(none_is_there(self.labels, probed, "sequences", remedy))

    def _notes(self) -> list[str]:
        """Lines on what is unusual but packed."""
        sums = [(s, sum(s.scores[:-1])) for s in self.sequences if not any(map(math.isnan, s.scores))]
        odd = [f"{s.path}: total {s.scores[-1]:g}, sum {total:g}" for s, total in sums if abs(s.scores[-1] - total) > ROUNDING]
        unscored = sum(any(map(math.isnan, s.scores)) for s in self.sequences)
        counts = [(s, _count(path)) for s, path in zip(self.sequences, self.paths, strict=True) if s.num_frames]
        other = [
            f"{s.path}: {count} pictures, num_frames {s.num_frames}" for s, count in counts if count not in (None, s.num_frames)
        ]
        notes = {
            f"{len(odd)} of {len(self.sequences)} totals are not the sum of their features; kept as they are\n{first(odd)}": odd,
            f"{unscored} of {len(self.sequences)} sequences lack a score; what is missing is not labelled": unscored,
            f"{len(other)} folders hold another number of frames than num_frames says\n{first(other)}": other,
        }
        return [note for note, there in notes.items() if there]


def _read(path: Path) -> list[Sequence]:
    """Read the sequences. Raises InputError listing everything that is wrong."""
    entries, wrong, seen = _entries(path, "sequences"), list[str](), dict[str, int]()
    sequences = []
    for number, entry in enumerate(entries):
        problems: list[str] = []
        sequence = _sequence(entry, problems)
        if sequence is not None and seen.setdefault(sequence.path, number) != number:
            problems.append(f"sequence_path {sequence.path!r} stands in sequence {seen[sequence.path]}, too")
        wrong += [f"sequence {number}: {problem}" for problem in problems]
        if sequence is not None and not problems:
            sequences.append(sequence)
    if wrong:
        raise InputError(f"{path}: wrong values: {len(wrong):,}\n{first(wrong, LISTED)}")
    if not sequences:
        raise InputError(f"{path}: found no sequences, expected a list of them")
    return sequences


def _entries(path: Path, name: str) -> list[Any]:
    """The list `name` of a JSON."""
    form = f'{{"{name}": [...]}}'
    value = read_json(path, form)
    if not isinstance(value.get(name), list):
        raise InputError(f"{path}: found no list {name!r}{nearest(name, value)}; expected {form}")
    return list(value[name])


def _sequence(entry: Any, problems: list[str]) -> Sequence | None:
    """Return the sequence of an entry; None, with the reasons in `problems`, where it is wrong."""
    if not isinstance(entry, dict):
        problems.append(f"found {json.dumps(entry)[:40]}, expected an object with {', '.join(NEEDED)}")
        return None
    problems += [f"no {name!r}{nearest(name, entry)}" for name in NEEDED if name not in entry]
    if problems:
        return None
    path, animal, moment = (str(entry[name]).strip() for name in ("sequence_path", "animal", "moment"))
    moment = f"M{moment}" if moment.isdecimal() else moment.upper()
    problems += [f"{name}: found nothing" for name in ("sequence_path", "animal") if entry[name] in (None, "")]
    if moment not in STATES:
        problems.append(f"moment: found {entry['moment']!r}, expected one of {', '.join(STATES)}")
    scores = [_score(entry, name, MOST, problems) for name in FEATURES]
    scores.append(_score(entry, TOTAL, MOST * len(FEATURES), problems))
    meta: dict[str, str | float] = {"moment": moment}
    if entry.get("sequence_id") is not None:
        meta["sequence_id"] = str(entry["sequence_id"])
    for name, key, most in (("nrs", NRS, 10.0), ("vas", VAS, 100.0)):
        value = _score(entry, key, most, problems) if key in entry else math.nan
        if not math.isnan(value):
            meta[name] = value
    count = entry.get("num_frames")
    return Sequence(path, animal, moment, tuple(scores), meta, count if isinstance(count, int) else None)


def _score(entry: dict[str, Any], name: str, most: float, problems: list[str]) -> float:
    """A number from 0 to `most`; NaN where there is none."""
    value = entry[name]
    if value is None or (isinstance(value, str) and value.strip().casefold() in UNLABELLED):
        return math.nan
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.inf
    if not math.isnan(number) and not 0 <= number <= most:
        problems.append(f"{name}: found {json.dumps(value)[:40]}, expected a number from 0 to {most:g}, or null")
    return number


def _places(root: Path, texts: list[str]) -> list[Path]:
    """The paths of the sequences. Of paths of another computer, or from above the root, the first folders are left out.

    Equally many are left out of every path, so that no two become equal.
    """
    whole = [tuple(part for part in PureWindowsPath(text).parts if not part.endswith(("\\", "/"))) for text in texts]
    for cut in range(max(map(len, whole))):
        paths = [root.joinpath(*parts[min(cut, len(parts) - 1) :]) for parts in whole]
        if any(path.exists() for path in paths):
            return paths
    return [root.joinpath(*parts) for parts in whole]


def _count(folder: Path) -> int | None:
    """Count the pictures of a folder of frames; None where there is none."""
    try:
        return len(frames.listed(folder)[0]) if folder.is_dir() else None
    except BadImage:
        return None


@pack_command("pain", quality=95, crop=True, animals="cattle")
def pain_source(
    labels: Annotated[Path, Argument("sequence_label_mapping: the sequences and their scores", metavar="JSON")],
    root: Annotated[Path, Option("the folder that each sequence_path starts from")],
    splits: Annotated[Path, Option("train_val_test_splits: test_animals and cv_folds")],
    frames: Frames = 32,
    rate_hz: RateHz = 0,
    all_frames: AllFrames = False,
    start_s: StartS = None,
    end_s: EndS = None,
    fps: Fps = None,
) -> PainSource:
    """Cattle clips scored with the 7-item bovine facial scale; whole animals held out."""
    clip = chosen(0 if rate_hz or all_frames else frames, rate_hz, all_frames, start_s, end_s)
    return PainSource(labels, root, splits, clip, fps)
