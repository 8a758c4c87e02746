"""Several packed datasets read as one: targets are matched by name, never by position."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from affect.shards.class_maps import canonical
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.index import codes_of
from affect.shards.leaks import held_out_elsewhere
from affect.shards.schema import LEAKED, DatasetInfo, Output, TargetLayout
from affect.shards.selection import equals

EXAMPLES = 3


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Merged(Dataset):
    """Datasets one after the other; a sample's number is that in its dataset plus the samples of the datasets before.

    Classes are the first dataset's, then what the others add, in any spelling; a class that a dataset does not have has the
    share 0 there. Units, scalars and outputs that a dataset does not have are NaN there: not labelled.

    Training rows whose pixels or group another dataset holds out are moved to the split `leaked`, so that nothing trains on them;
    `say` is called with their number. Two groups are the same where group and source have the same names. Duplicates within a
    dataset were handled when it was packed.
    """

    def __init__(self, folders: Sequence[Path | str], say: Callable[[str], None] = _to_stderr) -> None:
        self.parts = [Dataset(folder) for folder in folders]
        self.folder = Path(" + ".join(str(part.folder) for part in self.parts))  # for messages
        same = [str(p.folder) for i, p in enumerate(self.parts) if p.index_sha256 in {q.index_sha256 for q in self.parts[:i]}]
        if same:
            raise InputError(f"data.dataset: {same[0]} is a copy of another in the list; every sample would count twice")
        self.starts = np.cumsum([0, *(part.info.num_samples for part in self.parts)])
        self.info = self._merged_info()
        self._columns: dict[str, np.ndarray] = {}
        self._leaked = np.zeros(self.starts[-1], bool)
        self._move_leaked(say)

    def _merged_info(self) -> DatasetInfo:
        infos = [part.info for part in self.parts]
        return DatasetInfo(
            layout=TargetLayout(_merged_outputs(self.parts)),
            label_protocol=" + ".join(dict.fromkeys(info.label_protocol for info in infos)),
            counts=_sum([info.counts for info in infos]),
            dropped=_sum([info.dropped for info in infos]),
            fingerprint={f"{part.folder}/{name}": sha for part in self.parts for name, sha in part.info.fingerprint.items()},
            files={f"{part.folder}/{name}": fact for part in self.parts for name, fact in part.info.files.items()},
            clip=infos[0].clip if all(info.clip == infos[0].clip for info in infos) else None,
        )

    def _move_leaked(self, say: Callable[[str], None]) -> None:
        train, dataset = equals(self, "split", ("train",)), np.repeat(np.arange(len(self.parts)), np.diff(self.starts))
        pixels, groups = (held_out_elsewhere(codes, ~train, dataset) for codes in (self._pixels(), self._groups()))
        rows = np.flatnonzero(train & ((pixels >= 0) | (groups >= 0)))
        if len(rows) == 0:
            return
        same_pixels, count = int((pixels[rows] >= 0).sum()), len(rows)
        say(
            f"warning: {self.folder}: {count:,} training samples are held out in another of these datasets and not trained on: "
            f"{same_pixels:,} by their pixels, {count - same_pixels:,} by their group\n{self._examples(rows, pixels, groups)}"
        )
        self._leaked[rows] = True
        counts = {**self.info.counts, "train": self.info.counts["train"] - count, LEAKED: count}
        self.info = replace(self.info, counts={split: count for split, count in counts.items() if count})

    def _examples(self, rows: np.ndarray, pixels: np.ndarray, groups: np.ndarray) -> str:
        paths = [part.table(["path"]).column(0) for part in self.parts]

        def named(row: int) -> str:
            which, local = self._place(row)
            return f"{self.parts[which].folder}: {paths[which][local]}"

        twins = [("same pixels", pixels[row]) if pixels[row] >= 0 else ("same group", groups[row]) for row in rows[:EXAMPLES]]
        return "\n".join(f"  {named(row)}: {what} as {named(twin)}" for row, (what, twin) in zip(rows, twins, strict=False))

    def _pixels(self) -> np.ndarray:
        """(N,) codes of the pictures by their pixels."""
        columns = [part.table(["sha256"]).column(0) for part in self.parts]
        return codes_of(pa.chunked_array([chunk for column in columns for chunk in column.chunks]).dictionary_encode())[0]

    def _groups(self) -> np.ndarray:
        """(N,) codes of source and group together, -1 without a group."""
        (source, _), (group, names) = self.coded("source"), self.coded("group")
        _, codes = np.unique(source.astype(np.int64) * len(names) + group, return_inverse=True)
        return np.where(group < 0, -1, codes)

    @property
    def index_sha256(self) -> str:
        return hashlib.sha256("\n".join(part.index_sha256 for part in self.parts).encode()).hexdigest()

    @cached_property
    def _merged_names(self) -> list[str]:
        targets = {column for part in self.parts for column in part.info.layout.columns}
        names = dict.fromkeys(name for part in self.parts for name in part.names if name not in targets)
        return [*names, *self.info.layout.columns]

    @property
    def names(self) -> list[str]:
        """The index columns that any part has; targets have their merged names."""
        return self._merged_names

    def is_text(self, name: str) -> bool:
        self._check_columns([name])
        kinds = {part.is_text(name) for part in self.parts if part.has(name)}
        if len(kinds) > 1:
            raise InputError(f"{self.folder}: column {name} is text in one dataset and a number in another")
        return kinds == {True}

    def table(self, columns: list[str]) -> pa.Table:
        return pa.table({column: pa.array(self.column(column)) for column in columns})

    def column(self, name: str) -> np.ndarray:
        """Return what Dataset.column does; empty (None or NaN) for the samples of a dataset without such a column."""
        if name not in self._columns:
            self._columns[name] = self._column(name)
        return self._columns[name]

    def _column(self, name: str) -> np.ndarray:
        output, _, which = name.partition(".")
        if name == "sample":
            return np.arange(self.starts[-1])
        if name in self.info.layout.columns:
            return self.targets(output)[:, self.info.layout.output(output).names.index(which)]
        if self.is_text(name):
            codes, names = self.coded(name)
            return np.array([*names, None], object)[codes]
        return np.concatenate(
            [part.column(name) if part.has(name) else np.full(part.info.num_samples, np.nan, np.float32) for part in self.parts]
        )

    def coded(self, name: str) -> tuple[np.ndarray, list[str]]:
        self._check_columns([name])
        known: dict[str, int] = {}
        codes = []
        for part in self.parts:
            if not part.has(name):
                codes.append(np.full(part.info.num_samples, -1, np.int32))
                continue
            local, names = part.coded(name)
            texts = [f"{part.folder}/{text}" for text in names] if name == "shard" else names
            to = [known.setdefault(text, len(known)) for text in texts]
            codes.append(np.array([*to, -1], np.int32)[local])
        merged = np.concatenate(codes)
        if name == "split" and self._leaked.any():
            merged[self._leaked] = known.setdefault(LEAKED, len(known))
        return merged, list(known)

    def targets(self, output: str) -> np.ndarray:
        merged = self.info.layout.output(output)
        columns = {_key(merged, name): i for i, name in enumerate(merged.names)}
        values = np.full((int(self.starts[-1]), len(merged.names)), np.nan, np.float32)
        for part, start in zip(self.parts, self.starts[:-1], strict=True):
            layout = next((o for o in part.info.layout.outputs if o.name == output), None)
            if layout is None:
                continue
            local_targets = part.targets(output)
            here = values[start : start + len(local_targets)]
            if merged.kind == "classes":
                here[~np.isnan(local_targets).any(1)] = 0
            here[:, [columns[_key(layout, name)] for name in layout.names]] = local_targets
        return values

    def image(self, sample: int) -> np.ndarray:
        which, local = self._place(sample)
        return self.parts[which].image(local)

    def frames(self, sample: int, chosen: Sequence[int] | np.ndarray | None = None) -> list[np.ndarray]:
        which, local = self._place(sample)
        return self.parts[which].frames(local, chosen)

    def places(self, sample: int) -> tuple[np.ndarray, np.ndarray]:
        which, local = self._place(sample)
        return self.parts[which].places(local)

    def times_s(self, sample: int) -> np.ndarray:
        which, local = self._place(sample)
        return self.parts[which].times_s(local)

    def _place(self, sample: int) -> tuple[int, int]:
        """(number of the sample's dataset, number of the sample there)."""
        which = int(np.searchsorted(self.starts, sample, "right")) - 1
        return which, int(sample - self.starts[which])


def _merged_outputs(parts: list[Dataset]) -> tuple[Output, ...]:
    merged: dict[str, Output] = {}
    for part in parts:
        for output in part.info.layout.outputs:
            before = merged.setdefault(output.name, Output(output.name, output.kind, ()))
            if output.kind != before.kind:
                raise InputError(
                    f"{part.folder}: {output.name} is {output.kind}, in {parts[0].folder} {before.kind}: not to merge"
                )
            keys = [_key(output, name) for name in output.names]
            twice = [name for name, key in zip(output.names, keys, strict=True) if keys.count(key) > 1]
            if twice:
                raise InputError(f"{part.folder}: {output.name}: {' and '.join(twice)} are one class; pack it with a class map")
            known = {_key(before, name) for name in before.names}
            new = tuple(name for name, key in zip(output.names, keys, strict=True) if key not in known)
            merged[output.name] = Output(output.name, output.kind, before.names + new)
    return tuple(merged.values())


def _key(output: Output, name: str) -> str:
    """Return the key by which names are matched: of classes the canonical name, of units and scalars the name itself."""
    return canonical(name).casefold() if output.kind == "classes" else name


def _sum(counts: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(count.get(name, 0) for count in counts) for name in dict.fromkeys(n for count in counts for n in count)}
