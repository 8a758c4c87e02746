"""Compares `dataset.json`, DALI's indexes and the lists of what was left out with the index and the tars.

`SHA256SUMS` has the digest of each. Datasets packed before it was written are compared as far as the files follow from others.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import get_args

from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.schema import (
    CLIP_COLUMNS,
    DUPLICATES,
    INDEX,
    INDEX_COLUMNS,
    INFO,
    REJECTED,
    SPLITS,
    SUMS,
    Choice,
    DatasetInfo,
    Kind,
)
from affect.shards.tar import index_text

REJECTED_COLUMNS = ("path", "reason")
DUPLICATES_COLUMNS = ("path", "split", "twin", "twin_split", "what", "dropped")
LEAKS = ("same pixels", "same group")


def sums(folder: Path, info: DatasetInfo) -> str:
    """Return the digest of each file of a dataset but this one, in the form of `sha256sum`."""
    indexes = [Path(name).with_suffix(".idx").name for name in info.files if name != INDEX]
    names = sorted([INFO, REJECTED, DUPLICATES, *info.files, *indexes])
    known = {name: fact.sha256 for name, fact in info.files.items()}
    there = (name for name in names if (folder / name).is_file())
    return "".join(f"{known.get(name) or file_sha256(folder / name)}  {name}\n" for name in there)


def wrong_files(dataset: Dataset) -> list[str]:
    """Name each file that is missing, not as packing writes it, or of another digest."""
    return list(({line.partition(": ")[0]: line for line in _wrong_sums(dataset)} | _wrong_lists(dataset)).values())


def _wrong_sums(dataset: Dataset) -> list[str]:
    """Name each file whose digest is not in `SHA256SUMS`; where there is none, `dataset.json` if its form has changed."""
    folder = dataset.folder
    path = folder / SUMS
    if not path.exists():
        text = (folder / INFO).read_text()
        as_written = text == json.dumps(json.loads(text), indent=1)
        return [] if as_written else [f"{folder / INFO}: its form has changed since it was packed"]
    listed, lines = path.read_bytes().splitlines(keepends=True), sums(folder, dataset.info).encode().splitlines(keepends=True)
    names = [line.decode().rstrip("\n")[66:] for line in lines if line not in listed]
    if not names and listed != lines:
        return [f"{path}: its bytes have changed since it was packed, or files that it lists are missing"]
    return [f"{folder / name}: its bytes, or its line in {SUMS}, have changed since it was packed" for name in names]


def wrong_description(dataset: Dataset) -> list[str]:
    """Name each field of `dataset.json` that does not agree with the other files."""
    path, info, lists = dataset.folder / INFO, dataset.info, _lists(dataset.folder)
    names = [name for name in dataset.names if name not in INDEX_COLUMNS | CLIP_COLUMNS]
    targets, meta = names[: len(info.layout.columns)], names[len(info.layout.columns) :]
    splits, shards = (_counts(dataset, name) for name in ("split", "shard"))
    facts: list[tuple[str, object, object]] = [
        ("layout", (list(info.layout.columns), True), (targets, all(name.startswith("meta.") for name in meta))),
        ("layout: kinds", {output.kind for output in info.layout.outputs} - set(get_args(Kind)), set()),
        ("label_protocol", isinstance(info.label_protocol, str) and info.label_protocol != "", True),
        ("counts", info.counts, splits),
        ("counts: splits", set(info.counts) - set(SPLITS), set()),
        ("files", set(info.files), {*shards, INDEX}),
        ("clip", info.clip is not None, "time_s" in dataset.names),
        ("clip: choice", info.clip is None or info.clip.choice in get_args(Choice), True),
        ("dropped: rejected", lists[REJECTED] in (info.dropped.get("rejected"), None), True),
        ("dropped: duplicates", lists[DUPLICATES] in (info.dropped.get("duplicates"), None), True),
        ("dropped", all(isinstance(count, int) and count >= 0 for count in info.dropped.values()), True),
        ("fingerprint", all(isinstance(value, str) for value in info.fingerprint.values()), True),
    ]
    return [f"{path}: {name} does not agree with the other files" for name, found, expected in facts if found != expected]


def _counts(dataset: Dataset, column: str) -> dict[str, int]:
    """Return {text: how many rows have it} of a text column."""
    return dict(Counter(dataset.column(column).tolist()))


def _wrong_lists(dataset: Dataset) -> dict[str, str]:
    """Return a line for each DALI index and each list of what was left out that is missing or not as packing writes it."""
    wrong = {}
    for path in [dataset.folder / name for name in dataset.info.files if name != INDEX]:
        idx = path.with_suffix(".idx")
        try:
            as_expected = idx.read_bytes() == index_text(path).encode()
        except (OSError, tarfile.TarError, UnicodeError):
            as_expected = False
        if not as_expected:
            wrong[str(idx)] = f"{idx}: missing, or not the index of {path.name}"
    for list_path, count in ((dataset.folder / name, count) for name, count in _lists(dataset.folder).items()):
        if count is None:
            wrong[str(list_path)] = f"{list_path}: missing, or not as it was packed"
    return wrong


def _lists(folder: Path) -> dict[str, int | None]:
    """Count what was left out by list: rejected, dropped as duplicates; None where a list is not readable."""
    rejected, duplicates = _rows(folder / REJECTED, REJECTED_COLUMNS), _rows(folder / DUPLICATES, DUPLICATES_COLUMNS)
    whole = duplicates is not None and all(
        {row[1], row[3]} <= set(SPLITS) and row[4] in LEAKS and row[5] in ("True", "False") for row in duplicates
    )
    return {
        REJECTED: None if rejected is None else len(rejected),
        DUPLICATES: sum(row[5] == "True" for row in duplicates) if duplicates is not None and whole else None,
    }


def _rows(path: Path, columns: tuple[str, ...]) -> list[list[str]] | None:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
    except (OSError, ValueError, csv.Error):
        return None
    return rows if header == list(columns) and all(len(row) == len(columns) for row in rows) else None
