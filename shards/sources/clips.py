"""Reads clips listed in a CSV, a row a clip: video files or folders of frames, with a class, numbers, or both.

Columns: the clip's path; optionally split, group, label, source, weight, confidence, and a box (box_x, box_y, box_w, box_h:
pixels of the upright picture). Numbers named by --column become targets; all other columns become meta.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from affect.shards.checksum import file_sha256
from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError, first, nearest
from affect.shards.random_split import share_of
from affect.shards.sample import Box, Recording, Sample
from affect.shards.schema import SPLITS, ClipFacts, Output, TargetLayout
from affect.shards.sources import frames
from affect.shards.sources.clip_columns import (
    CLIPS,
    LABELS,
    Columns,
    box_of,
    column_pairs,
    is_number,
    meta_value,
    numbers_of,
    scalar_outputs,
    target_column,
)
from affect.shards.sources.frames import AllFrames, EndS, Fps, FrameFolder, Frames, RateHz, StartS, chosen
from affect.shards.sources.labels import LISTED, Labels
from affect.shards.sources.manifest import SPLIT_NAMES
from affect.shards.sources.missing_files import PROBED, none_is_there
from affect.shards.sources.pack_command import Argument, Option, output_name, pack_command, words
from affect.shards.sources.table import Row, Table, header
from affect.shards.sources.video import VideoFile


class ClipsSource:
    """The rows of `labels`, their clips below `root`.

    targets: column -> OUTPUT.NAME, or OUTPUT alone for an output of one number of that name; an empty cell is not labelled.
    output: the output of the classes in the label column; class_map, classes: see Labels. An empty label is not labelled.
    fps: of folders of frames. val: the share that becomes val where there is no split, by group, or else by clip.
    """

    label_protocol = "hard"

    def __init__(
        self,
        root: Path,
        labels: Path,
        clip: ClipFacts,
        targets: Mapping[str, str] | None = None,
        *,
        output: str = "state",
        class_map: ClassMap | None = None,
        classes: Sequence[str] | None = None,
        clip_column: str | None = None,
        group_column: str | None = None,
        label_column: str | None = None,
        fps: float | None = None,
        val: float = 0.1,
        delimiter: str = ",",
    ) -> None:
        if not root.is_dir():
            raise InputError(f"{root}: not a folder; expected the folder that the paths of {labels.name} start from")
        delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
        columns = header(labels, delimiter, (CLIPS[0], "group", LABELS[0]), "clip")
        asked = {column.casefold(): target_column(column, name) for column, name in (targets or {}).items()}
        self.columns = Columns.of(labels, columns, asked, clip_column, group_column, label_column)
        self.table = Table(labels, delimiter, columns, self.columns.clip, self.columns.label, None)
        self.root, self.clip, self.fps, self.val, self.filtered = root, clip, fps, val, Counter[str]()
        self.labels = Labels(class_map, classes) if self.columns.label else None
        self.classes: Output | None = None
        self.meta: dict[str, type] = {}
        self.files: list[Path] = []
        self._check()
        self.meta = self._kinds() | frames.META
        if self.labels:
            self.classes = Output(output, "classes", self.labels.close(labels))
        self.layout = TargetLayout((*scalar_outputs(self.columns.targets.values()), *([self.classes] if self.classes else [])))
        names = [o.name for o in self.layout.outputs]
        if len(set(names)) < len(names):
            raise InputError(f"--column ...={output}: {output!r} is the output of the label column; name another with --output")

    def samples(self) -> Iterator[Sample]:
        for row in self.table.rows():
            sample = self._sample(row)
            if sample is None:
                raise InputError(f"{row.where}: {row.wrong[0]}; the file has changed since it was checked")
            yield sample

    def fingerprint(self) -> dict[str, str]:
        """Digests of the CSV, and of the clips' names and sizes: the pixels are in the index."""
        digest = hashlib.sha256(f"{self.fps}".encode())
        for path in self.files:
            size = path.stat().st_size if path.is_file() else sum(1 for _ in path.iterdir()) if path.is_dir() else -1
            digest.update(f"{size}\n".encode())  # the names are in the CSV
        return {self.table.path.name: file_sha256(self.table.path), self.root.name: digest.hexdigest()}

    def _check(self) -> None:
        """Read every row once. Raises InputError listing everything that is wrong."""
        wrong, num_wrong, seen = list[str](), 0, dict[tuple[str, Box | None], str]()
        for row in self.table.rows():
            sample = self._sample(row)
            if sample is not None:
                twin = seen.setdefault((sample.path, sample.box), row.where)
                if twin != row.where:
                    row.wrong.append(f"{sample.path}: stands in {twin}, too; expected a row a clip")
                self.files.append(self._path(row))
            num_wrong += len(row.wrong)
            wrong += [f"{row.where}: {problem}" for problem in row.wrong[: LISTED - len(wrong)]]
        if num_wrong:
            more = f"\n  ... and {num_wrong - LISTED:,} more" if num_wrong > LISTED else ""
            raise InputError(f"wrong values: {num_wrong:,}\n{first(wrong, LISTED)}{more}")
        if not seen:
            raise InputError(f"{self.table.path}: found a header and no rows, expected a row a clip")
        if self.labels and self.labels.uncovered:
            raise InputError(self.labels.not_covered())
        probed = self.files[:PROBED]
        if not any(path.exists() for path in probed):
            raise InputError(none_is_there(self.table.path, probed, "clips", "Name the folder that the paths start from"))

    def _sample(self, row: Row) -> Sample | None:
        """Return the sample of a row; None, with the reasons in `row.wrong`, where it is wrong."""
        columns, path = self.columns, row.cells.get(self.columns.clip, "")
        if row.wrong:
            return None
        if not path:
            row.wrong.append(f"{columns.clip}: found nothing, expected the path of a clip")
        group = (row.cells[columns.group] or None) if columns.group else None
        split, box = self._split(row, group or path), box_of(row) if columns.box else None
        targets = numbers_of(row, columns.targets) | self._class(row)
        confidence = row.number("confidence", lambda value: 0 <= value <= 1, "a number from 0 to 1 (percents: divide by 100)")
        weight = row.number("weight", lambda value: 0 < value < math.inf, "a number above 0")
        if row.wrong:
            return None
        source = row.cells.get("source") or self.root.resolve().name
        meta = {name: meta_value(row.cells[name], kind) for name, kind in self.meta.items() if row.cells.get(name)}
        image = recording(self._path(row), self.clip, self.fps)
        return Sample(image, path, split, targets, source, group, weight, confidence, meta, box, origin=path)

    def _path(self, row: Row) -> Path:
        return self.root / row.cells[self.columns.clip].replace("\\", "/")

    def _split(self, row: Row, drawn_by: str) -> str:
        if "split" not in row.cells:
            return "val" if share_of(drawn_by) < self.val else "train"
        text = row.cells["split"].casefold()
        if text not in SPLIT_NAMES:
            row.wrong.append(f"split: found {text!r}{nearest(text, SPLIT_NAMES)}; expected one of {', '.join(SPLITS)}")
        return SPLIT_NAMES.get(text, "")

    def _class(self, row: Row) -> dict[str, float]:
        if self.labels is None or not row.cells[self.columns.label or ""]:
            return {}
        name = self.labels.of(row)
        return self.classes.one_hot(name) if self.classes and name else {}

    def _kinds(self) -> dict[str, type]:
        """The type of each meta column: float where every cell is a number or empty, else text."""
        kinds: dict[str, type] = dict.fromkeys(self.columns.meta, float)
        for row in self.table.rows():
            for name in self.columns.meta:
                if kinds[name] is float and row.cells[name] and not is_number(row.cells[name]):
                    kinds[name] = str
        return kinds


def recording(path: Path, facts: ClipFacts, fps: float | None) -> Recording:
    """Return a folder of frames, or else a video file, which may be missing."""
    return FrameFolder(path, facts, fps) if path.is_dir() else VideoFile(path, facts)


@pack_command("clips", quality=95, crop=True, parts=True)
def clips_source(
    root: Annotated[Path, Argument("the folder that the paths of the CSV start from", metavar="FOLDER")],
    labels: Annotated[Path, Option("CSV, a row a clip: clip, split, group, label, box_x, ..., numbers")],
    column: Annotated[
        list[str] | None,
        Option("a number that becomes a target: intensity=score, sum=pain.total; repeat", metavar="COLUMN=OUTPUT[.NAME]"),
    ] = None,
    frames: Frames = 0,
    rate_hz: RateHz = 0,
    all_frames: AllFrames = False,
    start_s: StartS = None,
    end_s: EndS = None,
    fps: Fps = None,
    output: Annotated[str, Option("name of the output of the classes in the label column")] = "state",
    class_map: Annotated[str, Option("classes of the ids in the label column: a JSON file")] = "",
    classes: Annotated[str, Option("class names in order, separated by commas; empty: those of the rows")] = "",
    clip_column: Annotated[str | None, Option("name of the column, if it is none of clip, path, video, file, filename")] = None,
    group_column: Annotated[
        str | None, Option("name of the column, if it is none of group, animal, subject, patient, person")
    ] = None,
    label_column: Annotated[
        str | None, Option("name of the column, if it is none of label, label_name, class_name, label_str")
    ] = None,
    val: Annotated[float, Option("share that becomes val where there is no split, by group", min=0, max=1)] = 0.1,
    delimiter: Annotated[str, Option("one character, or tab")] = ",",
) -> ClipsSource:
    """Clips listed in a CSV: video files, or folders of frames."""
    return ClipsSource(
        root,
        labels,
        chosen(frames, rate_hz, all_frames, start_s, end_s),
        column_pairs(column or []),
        output=output_name(output),
        class_map=ClassMap.load(class_map) if class_map else None,
        classes=words(classes) or None,
        clip_column=clip_column,
        group_column=group_column,
        label_column=label_column,
        fps=fps,
        val=val,
        delimiter=delimiter,
    )
