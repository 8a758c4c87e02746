"""Packs samples into tars, an index and `dataset.json`; the same input gives the same bytes.

Held-out splits are written first, so that a training picture that is also in one of them is recognised.
Everything is written to a folder beside the target and moved there at the end: the target is complete or absent. A packing that
was killed or interrupted continues from that folder when the same command is given again.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from affect.shards.clip import encode
from affect.shards.encoded import BadImage, Encoded, EncodedClip
from affect.shards.errors import InputError, check_new_folder, first
from affect.shards.images import Storage
from affect.shards.leaks import HeldOut, OnLeak
from affect.shards.random_split import falls_into_calib
from affect.shards.resume import Journal, Result, Torn, stamp
from affect.shards.sample import Sample, Source, check_source, clip_of
from affect.shards.schema import SPLITS, DatasetInfo
from affect.shards.tar_writer import SHARD_SAMPLES, Tally, Writer

IN_FLIGHT, IN_FLIGHT_BYTES = 256, 64 * 2**20  # samples read and encoded ahead of the writer, and the bytes of their pictures
CLIPS_IN_FLIGHT = 2  # for each worker: the size of an unpacked video is not known before


def pack(
    source: Source,
    out: Path,
    *,
    on_leak: OnLeak = "error",
    max_rejects: float = 0.001,
    calib: float = 0.0,
    storage: Storage = Storage(),  # noqa: B008
    workers: int = 2,
    shard_samples: int = SHARD_SAMPLES,
    advance: Callable[[int], None] = lambda count: None,
    say: Callable[[str], None] = lambda line: None,
) -> DatasetInfo:
    """Write `source` as a packed dataset to `out` and return its description.

    on_leak: the same pixels, or one group, in two splits: `error`; `drop-train` leaves the training copies out and lists
        them in duplicates.csv; `keep` only lists them.
    max_rejects: the share of samples that may be unreadable; they are listed in rejected.csv.
    calib: this share of val becomes the split calib, by group, else by origin, else by pixels.
    storage: how pictures that cannot keep their bytes are stored, and how large at most.
    say: called with a line where an interrupted packing is continued.
    Raises: InputError, with nothing left behind. After anything else the folder `.<name>.packing` stays, to be continued.
    """
    check_new_folder(out)
    if calib and not 0 < calib < 1:
        raise InputError(f"--calib {calib:g}: expected a share of val from 0 to below 1")
    check_source(source)
    building = out.with_name(f".{out.name}.packing")
    options = {"storage": asdict(storage), "on_leak": on_leak, "calib": calib, "shard_samples": shard_samples}
    packing = _Packing(source, options, on_leak, calib, storage, workers, advance)
    try:
        try:
            info = packing.run(building, shard_samples, max_rejects, say)
        except Torn as tar:
            say(f"{tar}: shorter than when it was written; packed anew")
            shutil.rmtree(building)
            info = packing.run(building, shard_samples, max_rejects, say)
        building.replace(out)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from error
    return info


@dataclass
class _Packing:
    """One run of `pack`."""

    source: Source
    options: dict[str, Any]
    on_leak: OnLeak
    calib: float
    storage: Storage
    workers: int
    advance: Callable[[int], None]

    def run(self, building: Path, shard_samples: int, max_rejects: float, say: Callable[[str], None]) -> DatasetInfo:
        """Write everything into `building`; it is removed where the input is wrong."""
        fingerprint = self.source.fingerprint()
        writer = Writer(building, self.source, shard_samples)
        journal = Journal(building, self._facts(fingerprint), say, writer.sync)
        try:
            there = journal.num_samples()
            if there:
                say(f"{building.name}: an interrupted packing is continued; {there:,} samples are there")
            writer.open()
            tally = self._write_samples(writer, journal)
            _judge(self.source, tally, self.on_leak, max_rejects, self.calib)
            info = writer.close(tally, fingerprint)
            journal.remove()
        except (InputError, OSError):
            writer.abandon()
            shutil.rmtree(building, ignore_errors=True)
            raise
        except KeyboardInterrupt:
            journal.commit()
            say("interrupted; the same command goes on from here")
            raise
        finally:
            writer.abandon()
            journal.stream.close()
        return info

    def _facts(self, fingerprint: dict[str, str]) -> dict[str, Any]:
        source = self.source
        names: list[Any] = [type(source).__name__, source.label_protocol, sorted(source.meta)]
        layout = [asdict(output) for output in source.layout.outputs]
        clip = clip_of(source)
        names += [asdict(clip)] if clip else []
        return {"source": [fingerprint, layout, names], "options": self.options, "version": version("affect-engine")}

    def _write_samples(self, writer: Writer, journal: Journal) -> Tally:
        tally, held_out = Tally(), HeldOut(self.on_leak)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for result in self._results(journal, pool):
                    self.advance(1)
                    self._place(result, writer, tally, held_out)
                    journal.add(result)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return tally

    def _place(self, result: Result, writer: Writer, tally: Tally, held_out: HeldOut) -> None:
        """Put a sample into a tar, or list it as rejected or as a duplicate."""
        sample, encoded = result.sample, result.encoded
        if isinstance(encoded, BadImage):
            tally.rejected.append((sample.path, str(encoded)))
            return
        sample = _carved(sample, encoded.sha256, self.calib, held_out)
        leak = held_out.check(sample, encoded.sha256)
        if leak:
            tally.leaks.append(leak)
            if leak.dropped:
                return
        tally.counts[sample.split] += 1
        tally.hashes["train" if sample.split == "train" else "held out"].append(encoded.dhash)
        writer.add(sample, encoded, result)

    def _results(self, journal: Journal, pool: ThreadPoolExecutor) -> Iterator[Result]:
        """Yield results in the order of the samples: first those in the journal, then those that are encoded now."""
        samples = _in_order(self.source)
        most = CLIPS_IN_FLIGHT * self.workers if clip_of(self.source) else IN_FLIGHT
        for sample in samples:
            result = journal.replay(sample, stamp(sample)[0])
            if result is None:
                yield from _encoded(chain([sample], samples), pool, self.storage, most)
                return
            yield result


def _carved(sample: Sample, sha256: bytes, calib: float, held_out: HeldOut) -> Sample:
    """Move a sample from val to calib, chosen by its group, else by its origin, else by its pixels.

    Without a group it follows an equal picture that came before, whatever the origins: the same pixels stay in one split.
    """
    if not calib or sample.split != "val":
        return sample
    _, twin_split = held_out.pixels.get(sha256, ("", ""))
    if sample.group is None and twin_split in ("val", "calib"):
        return replace(sample, split=twin_split)
    whole = next(name for name in (sample.group, sample.origin, sha256.hex()) if name is not None)
    return replace(sample, split="calib") if falls_into_calib(whole, calib) else sample


def _in_order(source: Source) -> Iterator[Sample]:
    """Yield the samples of held-out splits first, those of training last."""
    for sample in source.samples():
        if sample.split not in SPLITS:
            raise InputError(f"{sample.path}: split {sample.split!r} is not one of {', '.join(SPLITS)}")
        if sample.split != "train":
            yield sample
    yield from (sample for sample in source.samples() if sample.split == "train")


def _encoded(samples: Iterable[Sample], pool: ThreadPoolExecutor, storage: Storage, most: int) -> Iterator[Result]:
    """Decode, check and encode in threads, `most` ahead; hand the results on in the order of the samples."""

    def attempt(sample: Sample) -> Encoded | EncodedClip | BadImage:
        try:
            return encode(sample.image, storage, sample.box)
        except BadImage as reason:
            return reason

    waiting: deque[tuple[Sample, str, int, Future[Encoded | EncodedClip | BadImage]]] = deque()
    in_flight = 0

    def oldest() -> Result:
        sample, mark, _, future = waiting.popleft()
        return Result(sample, future.result(), mark)

    for sample in samples:
        mark, size = stamp(sample)
        while waiting and (len(waiting) >= most or in_flight + size > IN_FLIGHT_BYTES):
            in_flight -= waiting[0][2]
            yield oldest()
        waiting.append((sample, mark, size, pool.submit(attempt, sample)))
        in_flight += size
    while waiting:
        yield oldest()


def _judge(source: Source, tally: Tally, on_leak: OnLeak, max_rejects: float, calib: float) -> None:
    """Raise InputError where the source must not become a dataset."""
    if tally.total == 0:
        left_out = f" (left out by the label rule: {dict(source.filtered)})" if source.filtered else ""
        raise InputError(f"the source holds no sample{left_out}; expected pictures with labels")
    if len(tally.rejected) > max_rejects * tally.total:
        enough = math.ceil(1000 * len(tally.rejected) / tally.total) / 1000
        raise InputError(
            f"{len(tally.rejected)} of {tally.total} samples are unreadable, more than --max-rejects {max_rejects} allows:\n"
            + first((f"{path}: {reason}" for path, reason in tally.rejected), 20)
            + ("\nMend or remove these files" + (f", or allow more: --max-rejects {enough:g}" if enough < 1 else ""))
        )
    open_leaks = [leak for leak in tally.leaks if not leak.dropped]
    if open_leaks and on_leak != "keep":
        remedy = "--on-leak drop-train leaves the training copies out, --on-leak keep packs them all the same"
        if on_leak == "drop-train":
            remedy = "These are between held-out splits; mend the source, or --on-leak keep"
        lines = (f"{k.path} ({k.split}): {k.what} as {k.twin} ({k.twin_split})" for k in open_leaks)
        raise InputError(f"{len(open_leaks)} samples stand in two splits:\n{first(lines, 10)}\n{remedy}")
    if sum(tally.counts.values()) == 0:
        raise InputError("no sample is left after the duplicates were dropped")
    if calib and not tally.counts["calib"]:
        raise InputError(f"--calib {calib:g}: nothing of val ({tally.counts['val']} samples) fell into it; take more, or 0")
    if calib and not tally.counts["val"]:
        raise InputError(f"--calib {calib:g}: all of val ({tally.counts['calib']} samples) fell into it; take less")
