"""A journal of a packing, from which the same command continues after it was killed.

It has a record for each sample, in order: the result of encoding, except the picture's bytes, which are in the tars. Records are
written after the tars are on the disk. When the command is started again they are replayed: index, leaks and counts are computed
as they were the first time, and what the tars hold already is skipped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any, BinaryIO

import numpy as np

from affect.shards.encoded import BadImage, Encoded, EncodedClip
from affect.shards.errors import InputError
from affect.shards.sample import Clip, Recording, Sample
from affect.shards.tar import TarWriter

FACTS, RECORDS = "journal.json", "journal.jsonl"
COMMIT_SAMPLES, COMMIT_S = 1000, 2.0  # the most that is lost by a kill
MEANING = {"source": "the source", "options": "the options", "version": "the version of affect-engine"}


class Torn(Exception):
    """A tar is shorter than in its journal, so the packing cannot be continued."""


@dataclass
class Result:
    """A sample and its encoding. replayed: it is in its tar already, and zeros replace the picture's bytes."""

    sample: Sample
    encoded: Encoded | EncodedClip | BadImage
    stamp: str
    replayed: bool = False


class Journal:
    """The records of one building folder, which it owns while it is open.

    facts: must be equal to continue, by the keys of MEANING; otherwise everything is removed and packed anew.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], say: Callable[[str], None], sync: Callable[[], None]) -> None:
        self.folder, self.say, self.sync = folder, say, sync
        self.waiting: list[bytes] = []
        self.committed = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self.stream: BinaryIO = (folder / RECORDS).open("a+b")
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.stream.close()
            raise InputError(f"{folder}: another affect pack is writing there; wait for it, or name another --out") from None
        changed = _changed(folder, facts)
        if changed:
            if changed != ["journal"]:
                say(f"{folder.name}: {' and '.join(changed)} changed since it was interrupted; packed anew")
            self._clear()
            (folder / FACTS).write_text(json.dumps(facts, sort_keys=True))
        self.stream.seek(0)
        self.valid = 0  # bytes of records that have been replayed
        self.replaying = True

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != RECORDS:
                path.unlink()
        self.stream.truncate(0)

    def replay(self, sample: Sample, stamp: str) -> Result | None:
        """Return the result in the next record; None from the first record on that is missing or of another sample."""
        if not self.replaying:
            return None
        line = self.stream.readline()
        record = _record(line)
        if record[0] != stamp:
            self.replaying = False
            self.stream.truncate(self.valid)
            if record[0] is not None:
                self.say(f"{sample.path} is not as it was when it was packed; continued from there")
            return None
        self.valid += len(line)
        if len(record) == 2:
            return Result(sample, BadImage(record[1]), stamp, replayed=True)
        return Result(sample, _encoded(*record[1:]), stamp, replayed=True)

    def add(self, result: Result) -> None:
        """Add the record of a result whose picture has been written to its tar."""
        if result.replayed:
            return
        encoded = result.encoded
        record: list[Any] = [result.stamp, str(encoded)]
        if isinstance(encoded, Encoded):
            record = [result.stamp, encoded.extension, encoded.width, encoded.height, encoded.sha256.hex(), encoded.dhash]
            record += [len(encoded.data)]
        elif isinstance(encoded, EncodedClip):
            record = [result.stamp, encoded.extensions, encoded.width, encoded.height, encoded.sha256.hex(), encoded.dhash]
            record += [[len(data) for data in encoded.data], encoded.times_s, dict(encoded.meta)]
        self.waiting.append(json.dumps(record).encode() + b"\n")
        if len(self.waiting) >= COMMIT_SAMPLES or time.monotonic() - self.committed >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Write tars to the disk first, then records, so that every recorded sample is on the disk."""
        self.sync()
        self.stream.write(b"".join(self.waiting))
        self.stream.flush()
        self.waiting.clear()
        self.committed = time.monotonic()

    def num_samples(self) -> int:
        """How many records there are."""
        with (self.folder / RECORDS).open("rb") as stream:
            return sum(1 for line in stream if line.endswith(b"\n"))

    def remove(self) -> None:
        for name in (FACTS, RECORDS):
            (self.folder / name).unlink()


class ContinuedTar(TarWriter):
    """A tar whose first samples are written already: they are skipped, and what follows them is cut off."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines, self.at = path, [], 0
        if not path.exists():
            raise Torn(path)
        self.stream = path.open("r+b")
        self.there = path.stat().st_size
        self.passing, self.cut = False, False

    def pass_over(self, key: str, members: dict[str, bytes]) -> dict[str, int]:
        """Advance as `add` would with members of these sizes, without writing."""
        self.passing = True
        offsets = self.add(key, members)
        self.passing = False
        if self.at > self.there:
            raise Torn(self.path)
        return offsets

    def _write(self, data: bytes) -> None:
        if self.passing:
            self.at += len(data)
            return
        if not self.cut:
            self.stream.seek(self.at)
            self.stream.truncate()
            self.cut = True
        super()._write(data)


def stamp(sample: Sample) -> tuple[str, int]:
    """(a digest that a record of `sample` must have, bytes of its picture).

    It covers the size and times of a file, so that a file that was changed or was missing is read again; of a folder those of its
    files, of a recording those of its files. A picture that is generated adds nothing: the source's fingerprint covers it.
    """
    image = sample.image
    contents = image.frames if isinstance(image, Clip) else image.files if isinstance(image, Recording) else (image,)
    parts = [_seen(part) for part in contents]
    size, seen = sum(part[1] for part in parts), " ".join(part[0] for part in parts if part[0])
    known = (sample.path, sample.split, sample.targets, sample.source, sample.group, sample.weight, sample.confidence)
    text = repr((seen, *known, sample.meta, sample.box))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest(), size


def _seen(image: object) -> tuple[str, int]:
    """(a text that identifies a picture, its bytes)."""
    if isinstance(image, Path):
        try:
            stat = image.stat()
            names = sorted(entry.name for entry in os.scandir(image)) if S_ISDIR(stat.st_mode) else []
        except OSError as error:
            return str(error.errno), 0
        facts = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        entries = [_seen(image / name) for name in names]
        return " ".join([facts, *(f"{name} {part[0]}" for name, part in zip(names, entries, strict=True))]), stat.st_size
    if not isinstance(image, bytes | np.ndarray):
        return "", 0
    data = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else np.ascontiguousarray(image)
    return f"{zlib.crc32(data.data)} {data.shape}", data.nbytes


def _encoded(extension: Any, width: int, height: int, sha256: str, dhash: int, size: Any, *clip: Any) -> Encoded | EncodedClip:
    """The encoding of a record; a clip's has times and meta as well."""
    if not clip:
        return Encoded(bytes(size), extension, width, height, bytes.fromhex(sha256), dhash)
    data, (times_s, meta) = tuple(bytes(count) for count in size), clip
    return EncodedClip(data, tuple(extension), width, height, bytes.fromhex(sha256), dhash, tuple(times_s), meta)


def to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _record(line: bytes) -> list[Any]:
    """Parse a line of the journal; [None] for one that was cut off by a kill or a power failure."""
    try:
        return list(json.loads(line)) if line.endswith(b"\n") else [None]
    except (ValueError, TypeError):
        return [None]


def _changed(folder: Path, facts: dict[str, Any]) -> list[str]:
    """Name what differs from the interrupted packing; empty where it can be continued."""
    try:
        before = json.loads((folder / FACTS).read_text())
        return [MEANING[name] for name in facts if before.get(name) != json.loads(json.dumps(facts[name]))]
    except (OSError, ValueError, AttributeError):
        return ["journal"]
