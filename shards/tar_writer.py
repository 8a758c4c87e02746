"""Writes a packed dataset: tars by split, the index, the lists of what was left out, `dataset.json`."""

from __future__ import annotations

import csv
import json
from array import array
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from affect.shards.checksum import file_sha256
from affect.shards.dhash import near_duplicates
from affect.shards.encoded import Encoded, EncodedClip
from affect.shards.leaks import Leak
from affect.shards.resume import ContinuedTar, Result, to_disk
from affect.shards.sample import Sample, Source, clip_of
from affect.shards.schema import DUPLICATES, INDEX, INFO, REJECTED, SPLITS, SUMS, DatasetInfo, FileFact, index_schema
from affect.shards.tar import TarWriter
from affect.shards.verify_files import DUPLICATES_COLUMNS, REJECTED_COLUMNS, sums

SHARD_SAMPLES, SHARD_BYTES = 10_000, 512 * 2**20
INDEX_ROWS = 10_000  # in memory until they are written


@dataclass
class Tally:
    """Counts of the samples of a source: packed, rejected, leaked."""

    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    leaks: list[Leak] = field(default_factory=list)
    hashes: dict[str, array[int]] = field(default_factory=lambda: {"train": array("Q"), "held out": array("Q")})  # dHash

    @property
    def total(self) -> int:
        return sum(self.counts.values()) + len(self.rejected) + sum(leak.dropped for leak in self.leaks)


class Writer:
    """Writes tars by split, and the index, into one folder."""

    def __init__(self, folder: Path, source: Source, shard_samples: int) -> None:
        self.folder, self.source, self.shard_samples = folder, source, shard_samples
        self.schema = index_schema(source.layout, source.meta, clips=clip_of(source) is not None)
        self.index: pq.ParquetWriter | None = None
        self.tars: dict[str, TarWriter] = {}
        self.names: list[str] = []
        self.shards: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []
        self.num_samples = 0

    def open(self) -> None:
        self.index = pq.ParquetWriter(self.folder / INDEX, self.schema, compression="zstd")

    def add(self, sample: Sample, image: Encoded | EncodedClip, result: Result) -> None:
        """Write a sample; only its row where it is in its tar already."""
        clip = image if isinstance(image, EncodedClip) else None
        assert (clip is None) == (clip_of(self.source) is None)
        targets, meta = self.source.layout.vector(sample.targets), sample.meta | dict(clip.meta if clip else {})
        pictures = image.members
        members = {**pictures, "y.f32": targets.tobytes()}
        if meta:
            members["json"] = json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()
        key = f"{self.num_samples:09d}"
        tar = self._tar(sample.split, result.replayed)
        offsets = tar.pass_over(key, members) if result.replayed and isinstance(tar, ContinuedTar) else tar.add(key, members)
        row = {name: getattr(sample, name) for name in ("path", "split", "group", "source", "weight", "confidence")}
        row |= {"sample": self.num_samples, "key": key, "shard": tar.path.name, "num_frames": len(pictures)}
        row |= {"width": image.width, "height": image.height, "sha256": image.sha256}
        row |= {"offset": [offsets[name] for name in pictures], "size": [len(data) for data in pictures.values()]}
        row |= {"time_s": clip.times_s} if clip else {}
        row |= dict(zip(self.source.layout.columns, targets.tolist(), strict=True))
        row |= {f"meta.{name}": meta.get(name) for name in self.source.meta}
        self.rows.append(row)
        self.num_samples += 1
        if len(self.rows) == INDEX_ROWS:
            self._flush()

    def _tar(self, split: str, replayed: bool) -> TarWriter:
        tar = self.tars.get(split)
        if tar and (len(tar.lines) >= self.shard_samples or tar.at >= SHARD_BYTES):
            to_disk(tar.stream)
            tar.close()
            tar = None
        if tar is None:
            path = self.folder / f"{split}-{self.shards[split]:06d}.tar"
            tar = self.tars[split] = ContinuedTar(path) if replayed else TarWriter(path)
            self.shards[split] += 1
            self.names.append(path.stem)
        return tar

    def sync(self) -> None:
        for tar in self.tars.values():
            if not tar.stream.closed:
                to_disk(tar.stream)

    def abandon(self) -> None:
        """Close what is open; on a full disk closing fails, too."""
        for tar in self.tars.values():
            with suppress(OSError):
                tar.abandon()
        if self.index:
            with suppress(OSError):
                self.index.close()

    def _flush(self) -> None:
        assert self.index
        self.index.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.rows.clear()

    def close(self, tally: Tally, fingerprint: dict[str, str]) -> DatasetInfo:
        for tar in self.tars.values():
            tar.close()
        self._flush()
        assert self.index
        self.index.close()
        for path in [*self.folder.glob("*.tar"), *self.folder.glob("*.idx")]:
            if path.stem not in self.names:
                path.unlink()  # left by an interrupted run whose source had more samples
        _write_csv(self.folder / REJECTED, REJECTED_COLUMNS, tally.rejected)
        leaks = ([getattr(leak, column) for column in DUPLICATES_COLUMNS] for leak in tally.leaks)
        _write_csv(self.folder / DUPLICATES, DUPLICATES_COLUMNS, leaks)
        tars_and_index = [*sorted(self.folder.glob("*.tar")), self.folder / INDEX]
        info = DatasetInfo(
            layout=self.source.layout,
            label_protocol=self.source.label_protocol,
            counts={split: tally.counts[split] for split in SPLITS if tally.counts[split]},
            dropped={**self.source.filtered, "rejected": len(tally.rejected), "duplicates": sum(k.dropped for k in tally.leaks)},
            fingerprint=fingerprint,
            files={path.name: FileFact(path.stat().st_size, file_sha256(path)) for path in tars_and_index},
            near_duplicates=near_duplicates(*(np.frombuffer(tally.hashes[k], np.uint64) for k in ("train", "held out"))),
            clip=clip_of(self.source),
        )
        info.write(self.folder / INFO)
        (self.folder / SUMS).write_text(sums(self.folder, info))
        return info


def _write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
