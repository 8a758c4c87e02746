"""The folder of the mouse recipe (docs/recipes/mouse.md): a table of frames, whose videos become clips, and folds of its rows.

dataset_df (csv, json or pkl): image, video, mouse, recording, treatment, label; optionally cohort, sex and a box.
fold0, fold1, ... (json or pkl): {train: [{indices, label}], test: [...]}, sets of rows of the table in any order. The videos of a
set are tested, or trained on, in the fold; a clip has the frames of its video in the order of their numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from affect.shards.checksum import file_sha256
from affect.shards.encoded import Encoded
from affect.shards.errors import InputError, first, nearest
from affect.shards.sample import Box, Clip, Image, Recording, Sample
from affect.shards.schema import ClipFacts, Output, TargetLayout
from affect.shards.sources import frames
from affect.shards.sources.frames import encoded_frame, frame_number, pick
from affect.shards.sources.missing_files import PROBED, none_is_there
from affect.shards.sources.mouse_table import BOX, Row, read_folds, read_table

LISTED = 10
CLASSES = ("baseline", "stress")
NEEDED = ("image", "video")
ONE_EACH = ("mouse", "recording", "treatment", "label", "cohort", "sex", *BOX)  # of a video


@dataclass
class Video:
    """One video of a cohort: its rows, by frame number once they are checked."""

    name: str
    path: str  # the name, behind its cohort's where that is another folder
    cohort: str
    rows: list[Row] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def cell(self, column: str) -> str:
        return self.rows[0].cells.get(column, "")

    @property
    def box(self) -> Box | None:
        if not self.cell(BOX[0]):
            return None
        x, y, width, height = (float(self.cell(column)) for column in BOX)
        return y, x, y + height, x + width


@dataclass(frozen=True)
class ListedFrames(Recording):
    """Pictures of a video with their frame numbers, ascending. fps: frame rate of the video in which the numbers count."""

    paths: tuple[Path, ...]
    numbers: tuple[int, ...]
    facts: ClipFacts
    fps: float | None

    @property
    def files(self) -> tuple[Path, ...]:
        return self.paths

    def clip(self, encode_frame: Callable[[Image], Encoded]) -> Clip:
        counted = np.array(self.numbers, np.float64) - self.numbers[0]
        step = np.diff(counted).min(initial=np.inf)
        times = counted / (self.fps or 1.0)
        chosen, repeated = pick(times, self.facts)
        encoded = {number: encoded_frame(self.paths[number], encode_frame) for number in dict.fromkeys(chosen)}
        gaps = math.floor(counted[-1] / step + 1e-9) - (len(counted) - 1) if len(counted) > 1 else 0
        meta = {"repeated": float(repeated), "gaps": float(gaps), "time_from": "fps" if self.fps else "numbers"}
        return Clip(tuple(encoded[number] for number in chosen), tuple(times[chosen].tolist()), meta)


class MouseSource:
    """The videos of the folder `root`, of further cohorts in `external`, and their frames.

    images: the folder that the column image starts from; None: the folder of each table. external: cohort -> a folder of the same
    form, whose videos are all in the split test. test_cohorts: values of the column cohort that are in the split test, too.
    classes: what the labels 0 and 1 mean; a label may also be one of them by name.
    """

    label_protocol = "hard"

    def __init__(
        self,
        root: Path,
        clip: ClipFacts,
        *,
        images: Path | None = None,
        external: Mapping[str, Path] | None = None,
        test_cohorts: Sequence[str] = (),
        classes: Sequence[str] = CLASSES,
        fps: float | None = None,
    ) -> None:
        self.root, self.clip, self.fps, self.filtered, self.notes = root, clip, fps, Counter[str](), list[str]()
        self.stress = Output("stress", "classes", tuple(classes))
        self.layout = TargetLayout((self.stress,))
        if root.resolve().name in (external or {}):
            raise InputError(f"--external {root.resolve().name}=...: that is the name of {root}; expected one name a cohort")
        self.images, self.files, self.videos = images, list[Path](), list[Video]()
        self.root_videos = self._read(root)
        self.videos += self.root_videos
        for name, folder in (external or {}).items():
            self.videos += self._read(folder, name)
        self.test = {*(external or {}), *test_cohorts}
        has = sorted({video.cohort for video in self.videos})
        for unknown in sorted(set(test_cohorts) - set(has)):
            raise InputError(f"--test-cohort {unknown}: no video is of it{nearest(unknown, has)}; there are: {', '.join(has)}")
        self.fold_of = self._folds()
        used = {column for video in self.videos for column in ("recording", "treatment", "sex") if video.cell(column)}
        self.meta: dict[str, type] = {**dict.fromkeys(sorted(used), str), "cohort": str, **frames.META}
        if self.fold_of:
            self.meta["fold"] = float
        self._some_there()

    def samples(self) -> Iterator[Sample]:
        for video in self.videos:
            meta: dict[str, str | float] = {name: video.cell(name) for name in self.meta if video.cell(name)}
            meta["cohort"] = video.cohort
            if video.name in self.fold_of and video.cohort not in self.test:
                meta["fold"] = float(self.fold_of[video.name])
            yield Sample(
                ListedFrames(tuple(map(self._path, video.rows)), tuple(video.numbers), self.clip, self.fps),
                video.path,
                "test" if video.cohort in self.test else "train",
                self._target(video.rows[0]),
                video.cohort,
                video.cell("mouse"),
                meta=meta,
                box=video.box,
            )

    def fingerprint(self) -> dict[str, str]:
        """A digest of the tables; the frames' pixels are in the index."""
        digest = hashlib.sha256(f"{self.fps}".encode())
        for path in self.files:
            digest.update(file_sha256(path).encode())
        return {self.root.resolve().name: digest.hexdigest()}

    def _path(self, row: Row) -> Path:
        return (self.images or row.folder) / row.cells["image"].replace("\\", "/")

    def _target(self, row: Row) -> dict[str, float]:
        name = self._class(row.cells["label"])
        return self.stress.one_hot(name) if name else {}

    def _class(self, text: str) -> str | None:
        """The class of a label; '' where there is none, None where the label is unknown."""
        names = self.stress.names
        if text in ("0", "1", "0.0", "1.0", "True", "False"):
            return names[text in ("1", "1.0", "True")]
        return next((name for name in ("", *names) if name.casefold() == text.casefold()), None)

    def _read(self, folder: Path, external: str = "") -> list[Video]:
        """Read the videos of a table, in order. external: their cohort. Raises InputError listing everything that is wrong."""
        path, rows = read_table(folder)
        self.files.append(path)
        videos: dict[str, Video] = {}
        wrong = [f"{row.where}: {column}: found nothing" for row in rows for column in NEEDED if not row.cells[column]]
        for row in rows:
            name, cohort = row.cells["video"], external or row.cells.get("cohort") or folder.resolve().name
            videos.setdefault(name, Video(name, f"{external}/{name}" if external else name, cohort)).rows.append(row)
            if self._class(row.cells["label"]) is None:
                expected = f"0, 1, {', '.join(self.stress.names)} or nothing"
                wrong.append(f"{row.where}: label: found {row.cells['label']!r}, expected {expected}; name them: --classes A,B")
        unordered = 0
        for video in videos.values():
            wrong += _clashes(video)
            unordered += _order(video, wrong)
        if wrong:
            raise InputError(f"{path}: wrong values: {len(wrong):,}\n{first(wrong, LISTED)}")
        if unordered:
            self.notes.append(f"{path.name}: {unordered} of {len(videos)} videos list frames out of order; sorted by number")
        return list(videos.values())

    def _folds(self) -> dict[str, int]:
        """{video: the fold in which it is tested}; empty where there are no folds, or a video is tested in two."""
        tested, paths = dict[str, list[int]](), list[Path]()
        rows, mouse = (
            {row.index: row for video in self.root_videos for row in video.rows},
            {v.name: v.cell("mouse") for v in self.root_videos},
        )
        for number, path, parts in read_folds(self.root):
            paths.append(path)
            used = {part: self._videos(path, part, sets, rows) for part, sets in parts.items()}
            trained, tested_mice = ({mouse[name] or name for name in used[part]} for part in ("train", "test"))
            if both := sorted(trained & tested_mice):
                raise InputError(f"{path}: {len(both)} mice are trained on and tested:\n{first(both)}\nA mouse is of one part")
            for name in sorted(used["test"]):
                tested.setdefault(name, []).append(number)
        self.files += paths
        for name, numbers in tested.items():
            if len(numbers) > 1:
                self.notes.append(
                    f"videos are tested in more than one fold ({name} in {', '.join(map(str, numbers))}), so there is no column "
                    "meta.fold; make folds of animals: --set data.folds.leave=1"
                )
                return {}
        left = [name for name in mouse if name not in tested]
        if paths and left:
            self.notes.append(f"{len(left)} videos are tested in no fold, and train in all:\n{first(left)}")
        return {name: numbers[0] for name, numbers in tested.items()}

    def _videos(self, path: Path, part: str, sets: list[Any], rows: Mapping[Any, Row]) -> set[str]:
        """The videos of sets of rows. Raises InputError where a row is missing or has another label."""
        videos: set[str] = set()
        for number, entry in enumerate(sets):
            where = f"{path}: {part} {number}"
            if not isinstance(entry, dict) or not isinstance(entry.get("indices"), list | tuple):
                raise InputError(f"{where}: found {str(entry)[:40]}, expected {{indices: [rows], label}}")
            if lacking := [index for index in entry["indices"] if index not in rows]:
                raise InputError(f"{where}: the table has no row {lacking[0]!r}; expected the labels of its {len(rows):,} rows")
            label_text = entry.get("label")
            set_class = "" if label_text is None else self._class(str(label_text))
            for index in entry["indices"]:
                label = rows[index].cells["label"]
                if set_class not in ("", self._class(label)):
                    raise InputError(f"{where}: label {entry['label']!r}, but row {index!r} is {label or 'not labelled'}")
                videos.add(rows[index].cells["video"])
        return videos

    def _some_there(self) -> None:
        probed = [self._path(video.rows[0]) for video in self.videos[:PROBED]]
        if not any(path.exists() for path in probed):
            remedy = "Name the folder that the paths start from: --images FOLDER"
            raise InputError(none_is_there(self.files[0], probed, "frames", remedy))


def _clashes(video: Video) -> list[str]:
    """Messages on columns in which a video has two values: then two videos have one name."""
    problems = []
    for column in ONE_EACH:
        values = dict.fromkeys(row.cells.get(column, "") for row in video.rows)
        if len(values) > 1:
            both = " and ".join(map(repr, list(values)[:3]))
            problems.append(f"video {video.name!r} has {column} {both}: two videos with one name, or a slip; name them apart")
    folders = dict.fromkeys(str(Path(row.cells["image"]).parent) for row in video.rows)
    if len(folders) > 1 and not problems:
        both = " and ".join(list(folders)[:3])
        problems.append(f"video {video.name!r} has frames in {both}: two videos with one name; name them apart")
    return problems


def _order(video: Video, wrong: list[str]) -> bool:
    """Sort the rows by frame number; return whether they were in another order."""
    numbered = [(frame_number(Path(row.cells["image"])), row) for row in video.rows]
    if nameless := [row for number, row in numbered if number is None]:
        wrong.append(f"{nameless[0].where}: image {nameless[0].cells['image']!r} has no frame number; expected frame_0012.jpg")
        return False
    ordered = sorted(((number or 0, row) for number, row in numbered), key=lambda pair: pair[0])
    for (number, row), (after, twin) in pairwise(ordered):
        if number == after:
            wrong.append(f"{twin.where}: frame {number} of video {video.name!r} stands twice, in {row.where}, too")
    before, video.rows = video.rows, [row for _, row in ordered]
    video.numbers = [number for number, _ in ordered]
    return before != video.rows
