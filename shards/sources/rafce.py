"""Reads RAF-CE, compound emotions and action units, as published: a folder of aligned faces and three text files.

Source of the classes: Du, Tao & Martinez, Compound facial expressions of emotion, PNAS 2014, as RAF-CE numbers them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from affect.shards.checksum import file_sha256
from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError, first
from affect.shards.images import SUFFIXES
from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.sources.pack_command import Argument, Option, pack_command
from affect.shards.sources.rafce_text import LISTED, UNIT, Units, parse_units, rows_of, stem_of

RECIPE_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 24, 25, 26, 43, 45)
SPLIT_IDS = {"0": "train", "1": "test", "2": "val"}
Null = Literal["unlabelled", "none"]


@dataclass(frozen=True)
class Row:
    units: Units
    text: str  # of the units, as it stands in the file
    emotion: str
    split: str


class RafCeSource:
    """`images`: a folder with `0001_aligned.jpg` or `0001.jpg`; `au`, `emotion`, `partition`: the three files.

    aus: `seed` (RECIPE_UNITS, those of docs/recipes/action_units.md), `all` that occur in train, or their numbers, `1,2,4`.
    min_positives: units with fewer positives in train are not packed.
    null: what `null` means: `unlabelled`, or `none` of the units.
    max_strays: the share of rows that may have a token that is no unit. A unit whose number is in such a token is not labelled in
        that row, nor is any unit of a row that has only such tokens.
    notes: lines about the rows, printed after packing.
    Raises: InputError listing everything that is wrong in the files.
    """

    def __init__(
        self,
        images: Path,
        au: Path,
        emotion: Path,
        partition: Path,
        *,
        aus: str = "seed",
        min_positives: int = 0,
        null: Null = "unlabelled",
        max_strays: float = 0.1,
    ) -> None:
        if not images.is_dir():
            raise InputError(f"{images}: not a folder; expected the one that holds 0001_aligned.jpg")
        self.images, self.null, self.files = images, null, (au, emotion, partition)
        if len({path.resolve() for path in self.files}) < len(self.files):
            raise InputError(
                "--au, --emotion, --partition: two of them are one file; give RAFCE_AUlabel, _emolabel, _partition.txt"
            )
        self.label_protocol = "hard" if null == "unlabelled" else "hard, null is no unit"
        self.meta: dict[str, type] = {"au_text": str, "au_sides": str}
        self.filtered = Counter[str]()
        names = ClassMap.load("rafce")
        self.emotion = Output("emotion", "classes", names.names)
        self.rows = _read(au, emotion, partition, {str(number): name for name, number in names.ids.items()})
        self.pictures, self.positives = _pictures(images), _positives(self.rows.values())
        self._check_pictures()
        self._check_units(au, max_strays)
        in_train = _positives(row for row in self.rows.values() if row.split == "train")
        self.wanted = {"seed": RECIPE_UNITS, "all": tuple(sorted(in_train))}[aus] if aus in ("seed", "all") else _listed(aus)
        self.units = tuple(unit for unit in self.wanted if in_train[unit] >= min_positives)
        if not self.units:
            most = ", ".join(f"AU{unit} ({count:,})" for unit, count in in_train.most_common(5)) or "none"
            raise InputError(f"{au}: no unit of --aus {aus} has {min_positives} positives in train; the most have: {most}")
        self.au = Output("au", "multilabel", tuple(f"AU{unit}" for unit in self.units))
        self.layout = TargetLayout((self.emotion, self.au))
        self.notes = self._notes()

    def samples(self) -> Iterator[Sample]:
        for name, row in self.rows.items():
            meta: dict[str, str | float] = {"au_text": row.text}
            if row.units.sides:
                meta["au_sides"] = " ".join(row.units.sides)
            targets, path = self.emotion.one_hot(row.emotion) | self._labels(row.units), self.pictures[name]
            yield Sample(path, path.name, row.split, targets, source="rafce", meta=meta)

    def fingerprint(self) -> dict[str, str]:
        """Digests of the pictures' names and sizes, whose pixels are in the index, and of the files."""
        digest = hashlib.sha256()
        for name in self.rows:
            digest.update(f"{self.pictures[name].name} {self.pictures[name].stat().st_size}\n".encode())
        return {"images": digest.hexdigest(), **{path.name: file_sha256(path) for path in self.files}}

    def _labels(self, units: Units) -> dict[str, float]:
        """The target columns of the units that are known to be present or absent."""
        if units.unreadable or (units == Units() and self.null == "unlabelled"):
            return {}
        return {f"au.AU{unit}": float(unit in units.present) for unit in self.units if unit not in units.doubted}

    def _check_pictures(self) -> None:
        absent = [f"{name}_aligned.jpg" for name in self.rows if name not in self.pictures]
        if absent:
            raise InputError(
                f"{self.images}: {len(absent):,} of {len(self.rows):,} pictures are not there:\n{first(absent, LISTED)}\n"
                "Name the folder of the aligned pictures, or take their rows out of the files"
            )

    def _check_units(self, au: Path, max_strays: float) -> None:
        strays = [f"{name}: {row.text!r}" for name, row in self.rows.items() if row.units.strays]
        if len(strays) > max_strays * len(self.rows):
            raise InputError(
                f"{au}: {len(strays):,} of {len(self.rows):,} rows hold what is no action unit, more than --max-strays "
                f"{max_strays:g} allows:\n{first(strays, LISTED)}\nExpected 1+4+25, L12+24 or null. Mend them, or allow more"
            )
        if not self.positives:
            raise InputError(f"{au}: no row names an action unit; expected rows as 1+4+25 and L12+24")

    def _notes(self) -> list[str]:
        """Lines on strays, nulls, units without a positive, units that are not packed, pictures that are in no file."""
        strays = {name: row for name, row in self.rows.items() if row.units.strays}
        nulls = sum(row.units == Units() for row in self.rows.values())
        by_count = dict.fromkeys([*(unit for unit, _ in self.positives.most_common()), *self.wanted])
        aside = [f"AU{unit} ({self.positives[unit]:,} rows)" for unit in by_count if unit not in self.units]
        never = [f"AU{unit}" for unit in self.units if not self.positives[unit]]
        others = len(set(self.pictures) - set(self.rows))
        tokens = sum(len(row.units.strays) for row in strays.values())
        listed = first(
            (f"{name}: {row.text!r}: {', '.join(map(repr, row.units.strays))}" for name, row in strays.items()), LISTED
        )
        notes = {
            f"no action unit: {tokens:,} tokens in {len(strays):,} rows\n{listed}": tokens,
            f"null: {nulls:,} rows, {'not labelled' if self.null == 'unlabelled' else 'none of the units'}": nulls,
            f"without a positive in any row: {', '.join(never)}": never,
            f"not packed: {', '.join(aside)}": aside,
            f"{self.images}: {others:,} pictures that are in none of the files": others,
        }
        return [note for note, there in notes.items() if there]


def _read(au: Path, emotion: Path, partition: Path, names: Mapping[str, str]) -> dict[str, Row]:
    """Read the rows by picture, in the order of the units' file. Raises InputError listing everything that is wrong."""
    texts, wrong = rows_of(au, "0001.jpg 1+4+25", lambda text: text)
    classes, wrong_classes = rows_of(emotion, f"0001.jpg 5, an emotion from 0 to {len(names) - 1}", names.get)
    splits, wrong_splits = rows_of(partition, "0001.jpg 0, of 0 train, 1 test, 2 val", SPLIT_IDS.get)
    faults = [*wrong, *wrong_classes, *wrong_splits]
    blocks = [f"wrong lines: {len(faults):,}\n{first(faults, 2 * LISTED)}"] if faults else []
    files = {au: texts.keys(), emotion: classes.keys(), partition: splits.keys()}
    for path, names_there in () if faults else files.items():  # a wrong line is missing, too: one message is enough
        missing = [name for name in dict.fromkeys(name for keys in files.values() for name in keys) if name not in names_there]
        if missing:
            blocks.append(f"{path}: {len(missing):,} pictures of the other files have no row:\n{first(missing, LISTED)}")
    if blocks:
        raise InputError("\n".join(blocks))
    return {name: Row(parse_units(text), text, classes[name], splits[name]) for name, text in texts.items()}


def _pictures(folder: Path) -> dict[str, Path]:
    """{name in the files: picture}; of two, the aligned one."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.casefold() in SUFFIXES and not path.name.startswith("."))
    aligned = [path for path in paths if path.stem.endswith("_aligned")]
    return {stem_of(path.name): path for path in [*reversed(paths), *reversed(aligned)]}


def _positives(rows: Iterable[Row]) -> Counter[int]:
    return Counter(unit for row in rows for unit in row.units.present)


def _listed(text: str) -> tuple[int, ...]:
    """Parse `1,2,4` or `AU1,AU2`. Raises InputError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    matches = [UNIT.fullmatch(word) for word in words]
    units = tuple(int(match[2]) for match in matches if match and not match[1])
    if not words or len(units) < len(words) or len(set(units)) < len(units):
        raise InputError(f"--aus {text}: expected seed, all, or numbers of action units, each once: 1,2,4")
    return units


@pack_command("rafce")
def rafce_source(
    images: Annotated[Path, Argument("the folder of 0001_aligned.jpg")],
    au: Annotated[Path, Option("RAFCE_AUlabel.txt")],
    emotion: Annotated[Path, Option("RAFCE_emolabel.txt")],
    partition: Annotated[Path, Option("RAFCE_partition.txt")],
    aus: Annotated[str, Option("action units: seed (18, the reference recipe's), all of train, or numbers: 1,2,4")] = "seed",
    min_positives: Annotated[int, Option("leave out units with fewer positives in train", min=0)] = 0,
    null: Annotated[Null, Option("meaning of null: nothing is known, or no unit")] = "unlabelled",
    max_strays: Annotated[float, Option("share of rows that may have a token that is no action unit", min=0, max=1)] = 0.1,
) -> RafCeSource:
    """RAF-CE: compound emotions and action units."""
    return RafCeSource(images, au, emotion, partition, aus=aus, min_positives=min_positives, null=null, max_strays=max_strays)
