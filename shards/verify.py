"""Reads a packed dataset back and names what has changed since it was packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from affect.shards.checksum import file_sha256
from affect.shards.clip import clip_sha256
from affect.shards.dataset import Dataset
from affect.shards.encoded import BadImage, frame_name
from affect.shards.errors import InputError
from affect.shards.images import decode, pixel_sha256
from affect.shards.schema import INDEX
from affect.shards.tar import BLOCK, header
from affect.shards.verify_files import wrong_description, wrong_files

REMEDY = "Take these files from a copy, or pack the dataset anew"


def verify(folder: Path, advance: Callable[[int], None] = lambda count: None) -> Dataset:
    """Compare every file with `dataset.json` and `SHA256SUMS`, every sample and its targets with the index.

    Raises: InputError naming each file that differs and, in a tar, the first member that does.
    """
    dataset = Dataset(folder)
    info = dataset.info
    if file_sha256(folder / INDEX) != info.files[INDEX].sha256:
        raise InputError(f"{folder / INDEX}: its bytes have changed since it was packed; pack the dataset anew")
    others = wrong_files(dataset)
    if described := wrong_description(dataset):
        raise InputError("\n".join(described + others) + f"\n{REMEDY}")
    shard, targets = dataset.column("shard"), _targets(dataset)
    wrong = []
    for name, fact in info.files.items():
        if name == INDEX:
            continue
        rows = np.flatnonzero(shard == name)
        damaged = _first_damage(dataset, name, rows, targets, advance)
        if file_sha256(folder / name) != fact.sha256:
            damaged = damaged or "in the json or the padding of a member"
            wrong.append(f"{folder / name}: its bytes have changed since it was packed: {damaged}")
        elif damaged:
            wrong.append(f"{folder / name}: does not agree with {INDEX}: {damaged}")
    if wrong or others:
        raise InputError("\n".join(wrong + others) + f"\n{REMEDY}")
    return dataset


def _targets(dataset: Dataset) -> np.ndarray:
    """(N, K) float32 in the order of the layout."""
    return np.concatenate([dataset.targets(output.name) for output in dataset.info.layout.outputs], axis=1)


def _first_damage(
    dataset: Dataset, name: str, rows: np.ndarray, targets: np.ndarray, advance: Callable[[int], None]
) -> str | None:
    """Describe the damage of the first damaged sample of a tar; None where there is none."""
    tar = np.memmap(dataset.folder / name, np.uint8, "r")
    damaged = None
    for sample in rows:
        damaged = damaged or _damage(dataset, int(sample), tar, targets[sample])
        advance(1)
    return damaged


def _damage(dataset: Dataset, sample: int, tar: np.ndarray, targets: np.ndarray) -> str | None:
    key, (offsets, sizes) = dataset.column("key")[sample], dataset.places(sample)
    hashes = []
    for number, (offset, size) in enumerate(zip(offsets.tolist(), sizes.tolist(), strict=True)):
        name = key if dataset.info.clip is None else f"{key}.{frame_name(number, len(offsets))}"
        if tar[offset - BLOCK : offset].tobytes() not in (header(f"{name}.{extension}", size) for extension in ("png", "jpg")):
            return f"the header of {name}'s image, byte {offset - BLOCK}"
        try:
            hashes.append(pixel_sha256(decode(tar[offset : offset + size])))
        except BadImage as reason:
            return f"the image of {name} (bytes {offset} to {offset + size}): {reason}"
    pixels = hashes[0] if dataset.info.clip is None else clip_sha256(hashes)
    if pixels != dataset.column("sha256")[sample]:
        return f"the pixels of {key} (bytes {offsets[0]} to {offset + size})"
    at = offset + size + (-size % BLOCK)
    if tar[at : at + BLOCK].tobytes() != header(f"{key}.y.f32", targets.nbytes):
        return f"the header of {key}.y.f32, byte {at}"
    if tar[at + BLOCK : at + BLOCK + targets.nbytes].tobytes() != targets.astype("<f4").tobytes():
        return f"the targets of {key} ({key}.y.f32, byte {at + BLOCK})"
    return None
