"""What a packing that was killed had done, so that the same command goes on there.

A record stands for each sample of the source, in its order: what encoding it gave, all but the picture's bytes, which are in
the tars. Records are written after the tars are on the disk. When the command is started again they are replayed: index,
leaks and counts come about as they did the first time, tars are passed over as far as they are whole.
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
COMMIT_SAMPLES, COMMIT_S = 1000, 2.0  # so much is done again after a kill, at most
MEANING = {"source": "the source", "options": "the options", "version": "the version of affect-engine"}


class Torn(Exception):
    """A tar is shorter than its journal says: what is there cannot be continued."""


@dataclass
class Result:
    """What became of a sample. replayed: it is in its tar already, and so many bytes of zero stand for the picture's."""

    sample: Sample
    encoded: Encoded | EncodedClip | BadImage
    stamp: str
    replayed: bool = False


class Journal:
    """The records of one building folder, which it owns while it is open.

    facts: what must be equal to go on, by the keys of MEANING; other facts, and everything is removed and started anew.
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
        """What the next record says of `sample`; None from the first one on that is missing or of something else."""
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
        """Note a result whose picture has been handed to its tar."""
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
        """First the tars, then the records: what a record speaks of is on the disk."""
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
    """A tar whose first samples are there already: they are passed over, and what follows them is cut off."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines, self.at = path, [], 0
        if not path.exists():
            raise Torn(path)
        self.stream = path.open("r+b")
        self.there = path.stat().st_size
        self.passing, self.cut = False, False

    def pass_over(self, key: str, members: dict[str, bytes]) -> dict[str, int]:
        """`add` of members of the same sizes, without a byte written."""
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
    """(what must be equal for a record to be of `sample`, bytes of its picture).

    Of a file, its size and times: one that was mended, or was not there and is now, is read again; of a folder those of its
    files, of a recording those that it reads. Of a picture that is yet to be made, nothing: the source's fingerprint speaks
    for it.
    """
    image = sample.image
    contents = image.frames if isinstance(image, Clip) else image.files if isinstance(image, Recording) else (image,)
    parts = [_seen(part) for part in contents]
    size, seen = sum(part[1] for part in parts), " ".join(part[0] for part in parts if part[0])
    known = (sample.path, sample.split, sample.targets, sample.source, sample.group, sample.weight, sample.confidence)
    text = repr((seen, *known, sample.meta, sample.box))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest(), size


def _seen(image: object) -> tuple[str, int]:
    """(what tells a picture from another, its bytes)."""
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
    """What a record says of a picture, or of a clip, whose times and meta stand behind."""
    if not clip:
        return Encoded(bytes(size), extension, width, height, bytes.fromhex(sha256), dhash)
    data, (times_s, meta) = tuple(bytes(count) for count in size), clip
    return EncodedClip(data, tuple(extension), width, height, bytes.fromhex(sha256), dhash, tuple(times_s), meta)


def to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _record(line: bytes) -> list[Any]:
    """A line of the journal; [None] of one that was being written when everything ended, by a kill or without power."""
    try:
        return list(json.loads(line)) if line.endswith(b"\n") else [None]
    except (ValueError, TypeError):
        return [None]


def _changed(folder: Path, facts: dict[str, Any]) -> list[str]:
    """What differs from the packing that lies there, in words; empty where it can be continued."""
    try:
        before = json.loads((folder / FACTS).read_text())
        return [MEANING[name] for name in facts if before.get(name) != json.loads(json.dumps(facts[name]))]
    except (OSError, ValueError, AttributeError):
        return ["journal"]
