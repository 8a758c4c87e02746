"""Writes tars, the same bytes for the same input, and DALI's index of them."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import BinaryIO

BLOCK = 512
MAGIC = "v1.2"  # version of the index that `fn.readers.webdataset` reads


def header(name: str, size: int) -> bytes:
    """Return the 512 bytes of a tar header, without times and owners."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def index_text(path: Path) -> str:
    """Return DALI's index of a tar, from the tar."""
    samples: dict[str, list[str]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, extension = member.name.split(".", 1)
            samples.setdefault(key, []).append(f"{extension} {member.offset_data} {member.size} {member.name}")
    return _index([" ".join(parts) for parts in samples.values()])


def _index(lines: list[str]) -> str:
    return "\n".join([f"{MAGIC} {len(lines)}", *lines, ""])


class TarWriter:
    """Writes samples one after another and notes where each member's bytes begin."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: BinaryIO = path.open("wb")
        self.lines: list[str] = []
        self.at = 0

    def add(self, key: str, members: dict[str, bytes]) -> dict[str, int]:
        """Write the members `<key>.<extension>`; return extension -> offset of its bytes in the tar."""
        offsets, parts = {}, []
        for extension, data in members.items():
            name = f"{key}.{extension}"
            self._write(header(name, len(data)))
            offsets[extension] = self.at
            parts.append(f"{extension} {self.at} {len(data)} {name}")
            self._write(data + bytes(-len(data) % BLOCK))
        self.lines.append(" ".join(parts))
        return offsets

    def close(self) -> None:
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self.at % tarfile.RECORDSIZE))
        self.stream.close()
        self.path.with_suffix(".idx").write_text(_index(self.lines))

    def abandon(self) -> None:
        self.stream.close()

    def _write(self, data: bytes) -> None:
        self.stream.write(data)
        self.at += len(data)
