"""Reads tars from their first byte to their last, for storage that is remote or seeks slowly.

The index lists what is where, so the order stays a pure function of (seed, position), and a resumed run continues exactly:
shards come in a new random order each epoch, and a sample moves by at most `buffer` places from where it is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.sampler import Order

BLOCK = 8 * 2**20  # bytes asked of the storage at once


class StreamOrder(Order):
    """An order that sequential reading can keep up with; each row once an epoch."""

    def __init__(self, dataset: Dataset, rows: np.ndarray, *, seed: int, batch: int, buffer: int) -> None:
        super().__init__(rows, seed=seed, batch=batch)
        self.shard, self.buffer = dataset.coded("shard")[0][rows], buffer

    def read_order(self, epoch: int) -> np.ndarray:
        """(N,) the rows in the order in which they are read: shard after shard."""
        turn = self._random(epoch, 0).permutation(int(self.shard.max()) + 1)
        return self.rows[np.argsort(turn[self.shard], kind="stable")]

    def rows_of(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            place = np.arange(len(self.rows)) + self._random(epoch, 1).random(len(self.rows)) * self.buffer
            self._epochs[epoch] = self.read_order(epoch)[np.argsort(place, kind="stable")]
        return self._epochs[epoch]

    def _random(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch, purpose))))


class StreamReader:
    """Reads ahead in a thread; buffers `buffer` pictures or clips, and two batches more.

    tars: where the tars are, a folder or anything that fsspec opens (`s3://bucket/path`); the index is read from the dataset.
    """

    def __init__(self, dataset: Dataset, order: StreamOrder, tars: str = "") -> None:
        self.dataset, self.order, self.tars = dataset, order, tars or str(dataset.folder)
        self.limit = order.buffer + 2 * order.batch
        self._buffered: dict[tuple[int, int], list[np.ndarray]] = {}
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def reading(self, step: int) -> Iterator[None]:
        """Within the block samples must be requested in the order of step, step + 1, ..."""
        self.start(step)
        try:
            yield
        finally:
            self.close()

    def start(self, step: int) -> None:
        self.close()
        self._closed, self._error = False, None
        self._buffered.clear()
        self._thread = threading.Thread(target=self._run, args=(step,), daemon=True, name="stream reader")
        self._thread.start()

    def image(self, sample: int, epoch: int) -> np.ndarray:
        """Return the encoded bytes, (n,) uint8, of a clip its first frame's; waits until they are read. Each is returned once."""
        return self.frames(sample, epoch)[0]

    def frames(self, sample: int, epoch: int) -> list[np.ndarray]:
        """Return, as `image` does, the bytes of all frames of a clip."""
        with self._changed:
            self._changed.wait_for(lambda: (epoch, sample) in self._buffered or self._error)
            if self._error:
                raise self._error
            data = self._buffered.pop((epoch, sample))
            self._changed.notify_all()
            return data

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()
            self._thread = None

    def _run(self, step: int) -> None:
        try:
            for epoch, sample, data in self._pictures(step):
                with self._changed:
                    self._changed.wait_for(lambda: len(self._buffered) < self.limit or self._closed)
                    if self._closed:
                        return
                    self._buffered[epoch, sample] = data
                    self._changed.notify_all()
        except Exception as error:  # raised in the thread that waits for the sample
            with self._changed:
                self._error = error if isinstance(error, InputError) else InputError(f"{self.tars}: cannot be read: {error}")
                self._changed.notify_all()

    def _pictures(self, step: int) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        codes, names = self.dataset.coded("shard")
        epoch, done = divmod(step * self.order.batch, len(self.order.rows))
        while True:
            skip = set(self.order.rows_of(epoch)[:done].tolist())  # handed out before a resumed run began
            rows = [row for row in self.order.read_order(epoch).tolist() if row not in skip]
            tar, opened = None, -1
            try:
                for row in rows:
                    if codes[row] != opened:
                        if tar:
                            tar.close()
                        tar, opened = self._open(names[codes[row]]), codes[row]
                    assert tar is not None
                    offsets, sizes = self.dataset.places(row)
                    tar.seek(int(offsets[0]))
                    data = np.frombuffer(tar.read(int(offsets[-1] + sizes[-1] - offsets[0])), np.uint8)
                    yield epoch, row, [data[at : at + size] for at, size in zip(offsets - offsets[0], sizes, strict=True)]
            finally:
                if tar:
                    tar.close()
            epoch, done = epoch + 1, 0

    def _open(self, name: str) -> Any:
        if "://" not in self.tars:
            return open(f"{self.tars}/{name}", "rb", buffering=BLOCK)  # noqa: PTH123 (closed by the caller)
        import fsspec

        return fsspec.open(f"{self.tars.rstrip('/')}/{name}", "rb", block_size=BLOCK, cache_type="readahead").open()
