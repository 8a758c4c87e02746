"""Finds pictures that look alike by a 64-bit difference hash of each.

Source: N. Krawetz, "Kind of Like That", hackerfactor.com, 2013 (dHash).
"""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np

# Bits of the 64. A picture stored anew as JPEG, or a little brighter, moves 0 to 2. In FER+ (48 px, val against train) the gray
# levels of pairs differ by 5, 9, 13, 20 and 35 (median) at distance 0 to 4: from 3 on most are two pictures.
DISTANCE = 2
FLAT = 8  # gray levels; below, the signs of the differences are noise, and all such pictures would look alike
NONE = 0  # hash of a flat picture, which looks like no other
NEIGHBOURS = 64  # most comparisons a picture and pair of bands: larger clusters are counted from below
PAIRS_OF_BANDS = list(combinations(range(4), 2))


def dhash(rgb: np.ndarray) -> int:
    """Return 64 bits: which of 9x8 gray cells are darker than their right neighbour; NONE for a flat picture.

    rgb: (H, W, 3) uint8.
    """
    cells = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    if int(cells.max()) - int(cells.min()) < FLAT:
        return NONE
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")


def near_duplicates(train: np.ndarray, held_out: np.ndarray) -> dict[str, int]:
    """Count training pictures that look like a held-out one, and pairs of training pictures that look alike.

    train, held_out: (N,), (M,) uint64 hashes. Two are alike within DISTANCE bits. Of four bands of 16 bits at least two are then
    equal, so only neighbours in the order of each pair of bands are compared: O(N log N), and O(N) memory.
    """
    hashes = np.concatenate([held_out, train])
    rows = np.flatnonzero(hashes != NONE)
    leaking, pairs = np.zeros(len(hashes), bool), 0
    for a, b in PAIRS_OF_BANDS:
        key = _band(hashes[rows], a) << np.uint64(16) | _band(hashes[rows], b)
        order = np.argsort(key, kind="stable")
        key, row = key[order], rows[order]
        near = np.arange(len(row))
        for step in range(1, NEIGHBOURS + 1):
            near = near[near + step < len(row)]
            near = near[key[near] == key[near + step]]
            if len(near) == 0:
                break
            first, second = row[near], row[near + step]  # stable: first < second
            differ = hashes[first] ^ hashes[second]
            alike = np.bitwise_count(differ) <= DISTANCE
            leaking[second[alike & (first < len(held_out)) & (second >= len(held_out))]] = True
            pairs += int((alike & (first >= len(held_out)) & _first_match(differ, a, b)).sum())
    return {"distance": DISTANCE, "train_like_held_out": int(leaking.sum()), "pairs_in_train": pairs}


def _band(hashes: np.ndarray, band: int) -> np.ndarray:
    return hashes >> np.uint64(16 * band) & np.uint64(0xFFFF)


def _first_match(differ: np.ndarray, a: int, b: int) -> np.ndarray:
    """Return whether (a, b) is the first pair of bands in which two hashes agree: each pair is counted there only."""
    first = np.ones(len(differ), bool)
    for c, d in PAIRS_OF_BANDS[: PAIRS_OF_BANDS.index((a, b))]:
        first &= (_band(differ, c) != 0) | (_band(differ, d) != 0)
    return first
