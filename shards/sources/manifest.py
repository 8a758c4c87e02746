"""Reads manifests: one or several CSVs with a row for each face, its picture's path and its label.

Columns: a path; a label as a name or an id; optionally split, source, confidence, weight, neg_label, orig_image, face_id and
the face's box. A first pass checks all rows and reports everything that is wrong at once; no row is left out silently.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Annotated

from affect.shards.checksum import file_sha256
from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError, first, nearest
from affect.shards.random_split import share_of
from affect.shards.sample import Box, Sample
from affect.shards.schema import SPLITS, Output, TargetLayout
from affect.shards.sources.class_folders import SPLIT_FOLDERS
from affect.shards.sources.labels import LISTED, Labels
from affect.shards.sources.missing_files import PROBED, none_is_there, some_inside
from affect.shards.sources.pack_command import Argument, Option, output_name, pack_command, words
from affect.shards.sources.table import BOX, Row, Table, as_number

META = ("neg_label", "orig_image", "face_id")
SPLIT_NAMES = {**SPLIT_FOLDERS, "testing": "test"}


class ManifestSource:
    """The CSVs of `paths` in order, as one dataset; classes are matched by name, in any spelling of `class_maps.SYNONYMS`.

    root: where relative paths start; default: the folder of their CSV. Absolute paths are taken as they are.
    class_map: what ids mean. classes: the dataset's, in order; default: the class map's, else those of the rows, sorted.
    confidence_min: rows below are left out and counted.
    margin: added around the box on every side, as a share of its longer side. A picture that is named after its orig_image
        (`scene_f0.jpg` of `scene.jpg`) is already cut out: the box refers to the original and is not used.
    split: of CSVs without such a column. Without either, the share `val` of their rows becomes val, chosen by orig_image, so
        that the faces of one picture stay together, or else by path.
    leave_out: a row whose label is none of the classes is left out and counted, in place of an error.
    output: name of the output of these classes.
    """

    label_protocol = "hard"

    def __init__(
        self,
        paths: Sequence[Path],
        root: Path | None = None,
        class_map: ClassMap | None = None,
        classes: Sequence[str] | None = None,
        *,
        confidence_min: float = 0,
        margin: float = 0,
        split: str | None = None,
        val: float = 0.1,
        delimiter: str = ",",
        leave_out: bool = False,
        output: str = "emotion",
    ) -> None:
        if root is not None and not root.is_dir():
            raise InputError(f"{root}: not a folder; --root is the folder that the paths of the CSV start from")
        if split is not None and split.casefold() not in SPLIT_NAMES:
            raise InputError(f"--split {split}: unknown{nearest(split, SPLIT_NAMES)}; expected one of {', '.join(SPLITS)}")
        self.tables = [Table.open(path, {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)) for path in paths]
        columns = [set(table.columns) for table in self.tables]
        if split is not None and all("split" in names for names in columns):
            raise InputError(f"--split {split}: every CSV has its own column 'split'; leave the option out")
        if margin and not any(names.issuperset(BOX) for names in columns):
            raise InputError(f"--margin {margin:g}: no CSV has the columns {', '.join(BOX)}, so there is nothing to add it to")
        self.root, self.confidence_min, self.margin, self.val = root, confidence_min, margin, val
        self.split = SPLIT_NAMES[split.casefold()] if split is not None else None
        self.filtered = Counter[str]()
        self.meta: dict[str, type] = {name: str for name in META if any(name in names for names in columns)}
        self.labels = Labels(class_map, classes, leave_out)
        self.targets: dict[str, dict[str, float]] = {}  # class -> target columns; empty while the classes are gathered
        self._check()
        self.output = Output(output, "classes", self.labels.close(self.tables[0].path))
        self.layout = TargetLayout((self.output,))
        self.targets = {name: self.output.one_hot(name) for name in self.output.names}

    def samples(self) -> Iterator[Sample]:
        self.filtered.clear()
        for table in self.tables:
            for row in table.rows():
                sample = self._sample(row)
                if sample is None:
                    raise InputError(f"{row.where}: {row.wrong[0]}; the file has changed since it was checked")
                if sample.confidence < self.confidence_min:
                    self.filtered[f"confidence below {self.confidence_min:g}"] += 1
                elif not sample.targets:
                    self.filtered[f"label not in {self.labels.origin}"] += 1
                else:
                    yield sample

    def fingerprint(self) -> dict[str, str]:
        paths = [table.path for table in self.tables]
        names = Counter(path.name for path in paths)
        return {path.name if names[path.name] == 1 else path.as_posix(): file_sha256(path) for path in paths}

    def _check(self) -> None:
        """Read every row once. Raises InputError listing everything that is wrong."""
        wrong, num_wrong, blocks = list[str](), 0, list[str]()
        for table in self.tables:
            probed, num_rows = list[tuple[Path, str]](), 0
            for row in table.rows():
                num_rows += 1
                if self._sample(row) is not None and len(probed) < PROBED:
                    probed.append(self._picture(row))
                num_wrong += len(row.wrong)
                wrong += [f"{row.where}: {problem}" for problem in row.wrong[: LISTED - len(wrong)]]
            if num_rows == 0:
                blocks.append(f"{table.path}: found a header and no rows, expected a row a picture")
            if probed and not any(picture.exists() for picture, _ in probed):
                blocks.append(self._absent(table, probed))
        never = self.labels.never_positive()
        num_wrong, wrong = num_wrong + len(never), [*wrong, *never]
        if num_wrong:
            more = f"\n  ... and {num_wrong - LISTED:,} more" if num_wrong > LISTED else ""
            blocks.insert(0, f"wrong values: {num_wrong:,}\n{first(wrong[:LISTED], LISTED)}{more}")
        if self.labels.uncovered and not self.labels.leave_out:
            blocks.append(self.labels.not_covered())
        if blocks:
            raise InputError("\n".join(blocks))

    def _sample(self, row: Row) -> Sample | None:
        """Return the sample of a row; None, with the reasons in `row.wrong`, where it is wrong."""
        if row.wrong:
            return None
        image, path = self._picture(row)
        name, meta = self.labels.of(row), self._meta(row)
        box = self._box(row)
        origin = _origin(row, path, box)
        split = self._split(row, origin or path)
        confidence = row.number("confidence", lambda value: 0 <= value <= 1, "a number from 0 to 1 (percents: divide by 100)")
        weight = row.number("weight", lambda value: 0 < value < math.inf, "a number above 0")
        if row.wrong:
            return None
        source, targets = row.cells.get("source") or row.table.path.stem, self.targets.get(name, {})
        return Sample(image, path, split, targets, source, None, weight, confidence, meta, box, origin)

    def _picture(self, row: Row) -> tuple[Path, str]:
        """The file, and its path as the CSV has it."""
        text = row.cells[row.table.image]
        if Path(text).is_absolute():
            return Path(text), text
        if not text:
            row.wrong.append(f"{row.table.image}: found nothing, expected the path of a picture")
        elif PureWindowsPath(text).is_absolute():
            row.wrong.append(
                f"{row.table.image}: found {text!r}, which is not a path of this computer; expected one that is relative to a "
                "folder, named with --root FOLDER"
            )
        text = text.replace("\\", "/")
        return (self.root or row.table.path.parent) / text, text

    def _meta(self, row: Row) -> dict[str, str | float]:
        meta: dict[str, str | float] = {name: row.cells[name] for name in META if row.cells.get(name)}
        if "neg_label" in meta:
            meta["neg_label"] = self.labels.negative(row)
        return meta

    def _split(self, row: Row, drawn_by: str) -> str:
        if "split" not in row.cells:
            return self.split or ("val" if share_of(drawn_by) < self.val else "train")
        text = row.cells["split"].casefold()
        if text not in SPLIT_NAMES:
            row.wrong.append(f"split: found {text!r}{nearest(text, SPLIT_NAMES)}; expected one of {', '.join(SPLITS)}")
        return SPLIT_NAMES.get(text, "")

    def _box(self, row: Row) -> Box | None:
        cells = [row.cells.get(column, "") for column in BOX]
        if not any(cells) or _cut_already(row.cells[row.table.image], row.cells.get("orig_image", "")):
            return None
        top, left, bottom, right = (math.nan if (number := as_number(cell)) is None else number for cell in cells)
        height, width = bottom - top, right - left
        if not (0 < height < math.inf and 0 < width < math.inf):
            values = ", ".join(f"{column} {cell!r}" for column, cell in zip(BOX, cells, strict=True))
            row.wrong.append(f"found {values}; expected pixels, bottom > top and right > left")
        more = self.margin * max(height, width)
        return top - more, left - more, bottom + more, right + more

    def _absent(self, table: Table, probed: list[tuple[Path, str]]) -> str:
        """The message where no picture of a table exists, with a folder to try."""
        text = probed[0][1]
        relative = not Path(text).is_absolute()
        remedy = "Name the folder that the paths start from: --root FOLDER"
        if not relative:
            remedy = "These paths are absolute: make them relative to a folder and name it with --root FOLDER"
        base = (self.root or table.path.parent).resolve()
        for folder in (*base.parents[:3], *some_inside(base)) if relative else ():
            if (folder / text).exists():
                remedy = f"They are there with --root {folder}"
                break
        return none_is_there(table.path, [path for path, _ in probed], "pictures", remedy)


def _origin(row: Row, path: str, box: Box | None) -> str | None:
    """The picture that the face was cut from; None where it is a picture by itself, whose orig_image may be its own name."""
    original = row.cells.get("orig_image", "")
    if box is None and (not original or PureWindowsPath(path).stem == PureWindowsPath(original).stem):
        return None
    return original or path


def _cut_already(image: str, original: str) -> bool:
    """Whether the picture was cut out of `original`: its name is that of the original with a suffix."""
    return PureWindowsPath(image).stem.startswith(f"{PureWindowsPath(original).stem}_") if original else False


@pack_command("manifest")
def manifest_source(
    tables: Annotated[list[Path], Argument("image_path, label, split, ...; several are merged", metavar="CSV...")],
    root: Annotated[Path | None, Option("the folder that relative paths start from; default: the CSV's")] = None,
    class_map: Annotated[str, Option("classes of ids: fer, fer2013, ferplus, affectnet, rafdb, rafce or a JSON")] = "",
    classes: Annotated[str, Option("class names in order, separated by commas; empty: the class map's")] = "",
    output: Annotated[str, Option("name of the output of these classes")] = "emotion",
    confidence_min: Annotated[float, Option("leave out rows with a lower confidence", min=0, max=1)] = 0,
    margin: Annotated[float, Option("added around the face's box, as a share of its longer side", min=0)] = 0,
    split: Annotated[str | None, Option("split of CSVs without such a column")] = None,
    val: Annotated[float, Option("share that becomes val where there is no split", min=0, max=1)] = 0.1,
    delimiter: Annotated[str, Option("one character, or tab")] = ",",
) -> ManifestSource:
    """Faces listed in a CSV: paths, labels, boxes, confidences."""
    ids = ClassMap.load(class_map) if class_map else None
    return ManifestSource(
        tables,
        root,
        ids,
        words(classes) or None,
        confidence_min=confidence_min,
        margin=margin,
        split=split,
        val=val,
        delimiter=delimiter,
        output=output_name(output),
    )
