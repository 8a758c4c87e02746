"""The order of samples: shuffled, or drawn by weight."""

from __future__ import annotations

import numpy as np

from affect.shards.errors import InputError


class Order:
    """The order of samples, a pure function of (seed, position).

    Positions run on over epoch ends; position p belongs to epoch p // N and names one of the N rows. Without `weights` each
    row comes once an epoch. With them an epoch is N draws with replacement, of which row i gets N w_i / sum(w), rounded
    down or up such that this is its mean: systematic sampling (Madow, Ann. Math. Statist. 1949) of the rows in a new random
    order each epoch (Hartley and Rao, 1962; in a fixed order neighbours would never be drawn together), then shuffled.
    Step k takes positions [k * batch, (k + 1) * batch), of which rank r of `world` gets the r-th part: the global sequence
    is the same for any number of ranks.
    """

    def __init__(
        self,
        rows: np.ndarray,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        weights: np.ndarray | None = None,
    ) -> None:
        """rows: (N,) sample numbers. weights: (N,), not negative, their sum above 0."""
        if len(rows) == 0:
            raise InputError("the order has no rows")
        if batch < 1 or batch % world:
            raise InputError(
                f"data.batch_size: {batch} samples per update cannot be shared by {world} processes; take a multiple"
            )
        if weights is not None:
            _check(weights, rows)
        self.rows, self.seed, self.batch, self.rank, self.world, self.shuffle = rows, seed, batch, rank, world, shuffle
        self.weights = weights
        self._epochs: dict[int, np.ndarray] = {}

    def first_step_of(self, epoch: int) -> int:
        """The first step that starts after all samples of the epochs before `epoch`."""
        return -(-epoch * len(self.rows) // self.batch)

    def step(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(samples, draw_ids): (batch / world,) int64 each, of step k for this rank.

        A draw_id is the number under which augmentation draws: the epoch; with weights the position, so that a row drawn twice
        in an epoch is augmented in two ways.
        """
        share = self.batch // self.world
        position = k * self.batch + self.rank * share + np.arange(share)
        epoch = position // len(self.rows)
        samples = np.empty(share, np.int64)
        for e in np.unique(epoch):
            here = epoch == e
            samples[here] = self.rows_of(int(e))[position[here] - e * len(self.rows)]
        return samples, epoch if self.weights is None else position

    def rows_of(self, epoch: int) -> np.ndarray:
        """(N,) the rows in the order of one epoch; the last two epochs are cached."""
        if not self.shuffle and self.weights is None:
            return self.rows
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            random = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch))))
            self._epochs[epoch] = self._drawn(random) if self.weights is not None else random.permutation(self.rows)
        return self._epochs[epoch]

    def _drawn(self, random: np.random.Generator) -> np.ndarray:
        """(N,) rows, each as often as its interval of [0, N), as long as its weight, holds a point of u, u + 1, u + 2, ..."""
        assert self.weights is not None
        turn = random.permutation(len(self.rows))
        ends = np.cumsum(self.weights[turn], dtype=np.float64)
        ends /= ends[-1]
        ends *= len(self.rows)  # the last is N exactly, and so is every row's of weight 0 after it
        ends -= random.random()
        counts = np.diff(np.ceil(ends, out=ends), prepend=0).astype(np.int32)
        return random.permutation(np.repeat(self.rows[turn], counts))


def class_balanced_weights(labels: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Return (N,) float64 weights by which a class of n rows is drawn in proportion to n^(1 - power).

    1 draws all classes equally often, 1/2 as the square root of n (Kang et al., Decoupling Representation and Classifier for
    Long-Tailed Recognition, ICLR 2020).
    labels: (N,) class numbers; a row below 0 has no label and is never drawn.
    """
    labelled = labels >= 0
    counts = np.bincount(labels[labelled])
    if len(counts) == 0:
        raise InputError("data.sampler: needs labels to balance, and no row has one; take: --set data.sampler=shuffle")
    return np.where(labelled, np.maximum(counts, 1.0)[np.where(labelled, labels, 0)] ** -power, 0.0)


def _check(weights: np.ndarray, rows: np.ndarray) -> None:
    if weights.shape != rows.shape:
        raise InputError(f"the order's weights: expected one for each of {len(rows)} rows, found shape {weights.shape}")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise InputError(f"sample {rows[bad[0]]}: weight {weights[bad[0]]}; expected a number of 0 or more")
    if not weights.any():
        raise InputError("the order's weights are all 0: nothing can be drawn")
