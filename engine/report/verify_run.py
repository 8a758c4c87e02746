"""`affect report --verify`: the digests that a run has recorded, computed again from the files that are here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from affect.engine.calibration.calibration import CALIBRATION
from affect.engine.config.digest import digest_of
from affect.engine.config.load import validated
from affect.engine.config.run import RunConfig
from affect.engine.package.graphs import MANIFEST
from affect.engine.report.run_figures import read_config, read_json
from affect.engine.runs.files import ABLATION, ALIGNMENT, BEST, CONFIG, FINGERPRINT, XVAL
from affect.engine.runs.provenance import ablation, named_files
from affect.shards.checksum import file_sha256
from affect.shards.schema import INDEX, INFO

State = Literal["ok", "differs", "not here"]


@dataclass(frozen=True)
class Check:
    """what: the digest that was computed again. of: the file, and where it differs both digests."""

    what: str
    state: State
    of: str


def verify(folder: Path) -> list[Check]:
    """Check a run. What it has not recorded is not checked."""
    made_from: dict[str, str] = read_json(folder / FINGERPRINT)
    raw = read_config(folder)
    run = validated(RunConfig, raw, str(folder / CONFIG))
    checks = [_equal("config", made_from["config"], digest_of(raw), folder / CONFIG)]
    checks.append(_index(made_from["index"], run))
    for key, (_, path) in named_files(run).items():
        if key in made_from:
            checks.append(_file(key, made_from[key], path))
    checks += _init(folder, made_from)
    checks += _ablation(folder, run, made_from)
    checks += _package(folder, made_from)
    checks += _evaluated(folder)
    return checks


def _equal(what: str, expected: Any, actual: Any, path: Path) -> Check:
    if actual == expected:
        return Check(what, "ok", str(path))
    return Check(what, "differs", f"{path}: found {str(actual)[:12]}, expected {str(expected)[:12]}")


def _file(what: str, expected: str, path: Path) -> Check:
    return _equal(what, expected, file_sha256(path), path) if path.is_file() else Check(what, "not here", str(path))


def _index(expected: str, run: RunConfig) -> Check:
    """Check the index of the dataset, or of several read as one."""
    data = run.data.dataset
    folders = data if isinstance(data, list) else [data]
    named = ", ".join(map(str, folders))
    if not all((folder / INDEX).is_file() and (folder / INFO).is_file() for folder in folders):
        return Check("dataset", "not here", named)
    digests = [file_sha256(folder / INDEX) for folder in folders]
    together = hashlib.sha256("\n".join(digests).encode()).hexdigest()  # as in shards/concat.py
    return _equal("dataset", expected, digests[0] if len(digests) == 1 else together, Path(named))


def _init(folder: Path, made_from: dict[str, str]) -> Iterator[Check]:
    """Check the checkpoint that training started from."""
    report = folder / ALIGNMENT
    if "init" in made_from and report.is_file():
        yield _file("init", made_from["init"], Path(read_json(report)["init_from"]["path"]))


def _ablation(folder: Path, run: RunConfig, made_from: dict[str, str]) -> Iterator[Check]:
    """Check that the recorded switches are those of the configuration."""
    if run.loss.terms or (folder / ABLATION).is_file():
        path = folder / ABLATION
        if not path.is_file():
            yield Check("switches", "not here", str(path))
            return
        recorded, now = read_json(path), json.loads(json.dumps(ablation(run, made_from)))
        now["switches"] = {name: on for name, on in now["switches"].items() if on or name in recorded.get("switches", {})}
        wrong = [key for key in now if recorded.get(key) != now[key]]
        what = f"{path}: {', '.join(wrong)} not as in {CONFIG} and {FINGERPRINT}"
        yield Check("switches", "differs", what) if wrong else Check("switches", "ok", str(path))


def _package(folder: Path, made_from: dict[str, str]) -> Iterator[Check]:
    path = folder / "package" / MANIFEST
    if not path.is_file():
        yield Check("package", "not here", str(path))
        return
    manifest = read_json(path)
    for name, fact in (manifest.get("files") or {}).items():
        yield _file(f"package {name}", fact["sha256"], path.parent / name)
    ours = {key: value for key, value in made_from.items() if key != "git_commit"}  # a resumed run may have two
    theirs = {key: value for key, value in manifest["fingerprint"].items() if key != "git_commit"}
    wrong = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    yield Check("package of this run", "differs" if wrong else "ok", f"{path}: {', '.join(wrong)}" if wrong else str(path))


def _evaluated(folder: Path) -> Iterator[Check]:
    """Check that figures on other sets are of this model, under this calibration."""
    for path in sorted(folder.glob(f"{XVAL}*/{FINGERPRINT}")):
        recorded = read_json(path)
        for key, name in (("model", BEST), ("calibration", CALIBRATION)):
            if key in recorded:
                yield _file(f"{path.parent.name} {key}", recorded[key], folder / name)
