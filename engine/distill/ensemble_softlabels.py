"""`affect softlabels`: predictions of every row of a dataset by a trained run, or by several as one.

Axes: M runs, N rows of the dataset by sample number, C classes in the dataset's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affect.engine.calibration.calibration import Calibration
from affect.engine.calibration.temperature import FEW_ROWS, fit_temperature
from affect.engine.config.run import Precision
from affect.engine.data.selection import largest_share, open_dataset
from affect.engine.data.statistics import rows_by_source
from affect.engine.distill.members import Member, infer, open_members
from affect.engine.distill.mixture import Mode, combine, fit_weights
from affect.engine.distill.softlabels import ALIGNMENT, ENSEMBLE, Scale, refuse_existing, write_softlabels
from affect.engine.metrics.classification import reliability
from affect.engine.runs.files import BEST
from affect.engine.system.log import say
from affect.shards.checksum import file_sha256
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError

SCORED = ("val", "calib")
CARVE = "carve some out of val: affect pack ... --calib 0.3"
HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Options:
    """How the runs are combined and their logits are written.

    weights: one a run; empty: equal, or with `fit_weights` those of the least NLL on the calib rows.

    scale: `calibrated` divides each run's logits by its own temperature first; None: that for several runs, `raw` for one.
    out_of_fold: a row that runs were trained on gets the logits of the others only.
    flip: each run's logits are the mean over a picture and its mirror image.
    float32: logits are written as float32; otherwise as float16, within 2^-11 of each. precision: of the models' arithmetic.
    """

    mode: Mode = "logit"
    weights: tuple[float, ...] = ()
    fit_weights: bool = False
    scale: Scale | None = None
    out_of_fold: bool = False
    float32: bool = False
    precision: Precision = "off"
    flip: bool = False


@dataclass(frozen=True)
class _Rows:
    """Labels of the dataset. names: (C) classes. target: (N, C). scored: split -> its labelled rows, by sample number."""

    dataset: Dataset
    names: tuple[str, ...]
    target: np.ndarray
    scored: dict[str, np.ndarray]

    @classmethod
    def of(cls, dataset: Dataset, output: str) -> _Rows:
        target = dataset.targets(output)
        labelled = ~np.isnan(target).any(1)
        scored = {split: rows[labelled[rows]] for split in SCORED for rows in [_rows(dataset, split)]}
        return cls(dataset, dataset.info.layout.output(output).names, target, scored)

    def figures(self, logits: np.ndarray, chosen: np.ndarray | None = None) -> dict[str, dict[str, Any] | None]:
        """Return split -> accuracy, macro-F1, NLL, ECE ... of its rows, or of those `chosen` (N,); None where there are none."""
        figures: dict[str, dict[str, Any] | None] = {}
        for split, rows in self.scored.items():
            rows = rows if chosen is None else rows[chosen[rows]]
            figures[split] = reliability(logits[rows], self.target[rows], self.names) if len(rows) else None
        return figures


def soft_labels(runs: Sequence[Path], data: list[Path], out: Path, options: Options | None = None) -> dict[str, Any]:
    """Write the folder `out` that `softlabels.py` describes; return its ensemble_metrics.json.

    Every row of the dataset is predicted, whatever its split, in the evaluation view of each run. Figures are of the logits as
    written.
    """
    options = options or Options()
    refuse_existing(out)
    _check(runs, options)
    dataset = open_dataset(data)
    if not dataset.info.num_samples:
        raise InputError(f"{dataset.folder}: has no rows; pack pictures first")
    members = open_members(runs, dataset)
    rows = _Rows.of(dataset, members[0].output)
    if options.fit_weights and not len(rows.scored["calib"]):
        raise InputError(f"{dataset.folder}: --fit-weights: there are no labelled calib rows to fit on; {CARVE}")
    scale = _choose_scale(options.scale, members)
    unseen = _unseen(members, dataset) if options.out_of_fold else None
    if unseen is None:
        _warn_of_learned(members, rows)
    predictions, precision = infer(members, dataset, options.precision, flip=options.flip)
    logits = [member.scaled(z, scale) for member, z in zip(members, predictions, strict=True)]
    weights, weights_from = _choose_weights(options, logits, rows)
    combined = _rounded(combine(logits, _shares(weights, unseen), options.mode), float32=options.float32)
    calibration = _temperature(combined, rows)
    metrics = {
        "view": "evaluation and its mirror image" if options.flip else "evaluation",
        "scale": scale,
        "mode": options.mode,
        "weights": weights.tolist(),
        "weights_from": weights_from,
        "out_of_fold": options.out_of_fold,
        "precision": precision,
        **_figures_of(combined, calibration, rows),
        "members": [
            _member_facts(member, weight, rows.figures(z, None if unseen is None else unseen[m]))
            for m, (member, weight, z) in enumerate(zip(members, weights.tolist(), logits, strict=True))
        ],
    }
    facts = {ALIGNMENT: _alignment(members, rows, data), ENSEMBLE: metrics}
    write_softlabels(out, dataset, combined, largest_share(rows.target), rows.names, facts)
    return metrics


def _check(runs: Sequence[Path], options: Options) -> None:
    folders, weights = [run.resolve() for run in runs], options.weights
    twice = [run for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]
    if twice:
        raise InputError(f"{twice[0]}: is named twice; name each run once, and give it more weight: --weights")
    if options.fit_weights and (weights or len(runs) == 1):
        raise InputError("--fit-weights: finds the weights of several runs; name several, and leave --weights out")
    if weights and len(weights) != len(runs):
        raise InputError(f"--weights: found {len(weights)}, expected one for each of {len(runs)} runs")
    if weights and not (np.isfinite(weights).all() and min(weights) >= 0 and sum(weights) > 0):
        raise InputError(f"--weights: found {', '.join(f'{w:g}' for w in weights)}; expected numbers of 0 or more, not all 0")


def _rows(dataset: Dataset, split: str) -> np.ndarray:
    """Return the sample numbers of a split; none where the dataset has no such split."""
    return dataset.rows(split) if dataset.info.counts.get(split) else np.zeros(0, np.int64)


def _choose_scale(asked: Scale | None, members: list[Member]) -> Scale:
    scale: Scale = asked or ("calibrated" if len(members) > 1 else "raw")
    for member in members:
        if scale == "calibrated" and member.calibration.mode == "none":
            raise InputError(
                f"{member.folder}: has no temperature ({member.calibration.note}), and logits of several scales do not mix; "
                f"fit one: affect calibrate {member.folder}, or take them as they are: --scale raw"
            )
    what = "each run's logits divided by its own temperature" if scale == "calibrated" else "logits as the runs give them"
    why = "asked for" if asked else "several runs" if len(members) > 1 else "one run"
    say(f"softlabels: scale {scale}: {what} ({why})")
    return scale


def _unseen(members: list[Member], dataset: Dataset) -> np.ndarray:
    """Return (M, N) bool: run m was not trained on row n. Raises InputError where every run was trained on a row."""
    unseen = np.empty((len(members), dataset.info.num_samples), bool)
    for member, rows in zip(members, unseen, strict=True):
        if member.trained_on is None:
            raise InputError(
                f"{member.folder}: --out-of-fold: was trained on another dataset than {dataset.folder}; name that one"
            )
        rows[:] = ~member.trained_on
        if member.started:
            say(f"warning: {member.folder}: started from the weights of another run, whose training rows are not known")
    uncovered = int((~unseen.any(0)).sum())
    if uncovered:
        raise InputError(
            f"--out-of-fold: {uncovered:,} of {unseen.shape[1]:,} rows of {dataset.folder} are not covered: all of these runs "
            "were trained on them; add the runs of the other folds: affect train CONFIG --set data.fold=..."
        )
    return unseen


def _warn_of_learned(members: list[Member], rows: _Rows) -> None:
    """Warn of scored rows that a run was trained on: what is fitted or measured there is too good."""
    for member in members:
        for split, of in rows.scored.items():
            learned = 0 if member.trained_on is None else int(member.trained_on[of].sum())
            if learned:
                say(
                    f"warning: {member.folder}: was trained on {learned:,} of the {len(of):,} rows of {split}: what is fitted or "
                    "measured there is too good; add --out-of-fold, with the runs of all folds"
                )


def _choose_weights(options: Options, logits: list[np.ndarray], rows: _Rows) -> tuple[np.ndarray, str]:
    """Return (M,) weights of sum 1, and how they were chosen."""
    if options.fit_weights:
        calib = rows.scored["calib"]
        fitted = fit_weights([z[calib] for z in logits], rows.target[calib], options.mode)
        how = f"fitted on {len(calib):,} calib rows"
        few = f", fewer than {FEW_ROWS}: they may be far off" if len(calib) < FEW_ROWS else ""
        say(f"softlabels: weights {_listed(fitted)}, {how}{few}")
        return fitted, how
    weights, how = np.array(options.weights or [1.0] * len(logits)), "given" if options.weights else "equal"
    weights = weights / weights.sum()
    if len(logits) > 1:
        say(f"softlabels: weights {_listed(weights)}, {how}")
    return weights, how


def _listed(weights: np.ndarray) -> str:
    return ", ".join(f"{weight:.4g}" for weight in weights)


def _shares(weights: np.ndarray, unseen: np.ndarray | None) -> np.ndarray:
    """Return (M,) weights, or (M, N) where a row is predicted only by runs that have not seen it; of sum 1 over M."""
    if unseen is None:
        return weights
    shares = weights[:, None] * unseen
    total = shares.sum(0)
    if not total.all():
        raise InputError(f"--out-of-fold: {int((total == 0).sum()):,} rows are covered by runs of weight 0 only; give them more")
    return shares / total


def _rounded(logits: np.ndarray, *, float32: bool) -> np.ndarray:
    """Round logits to the type in which they are written."""
    largest = float(np.abs(logits).max())
    if not float32 and largest > HALF:
        raise InputError(f"softlabels: a logit of {largest:.3g} does not fit into float16; add --float32")
    return logits.astype(np.float32 if float32 else np.float16)


def _temperature(logits: np.ndarray, rows: _Rows) -> Calibration:
    calib = rows.scored["calib"]
    if not len(calib):
        calibration = Calibration.none(f"{rows.dataset.folder} has no labelled calib rows to fit a temperature on; {CARVE}")
        say(f"softlabels: {calibration.note}")
        return calibration
    return fit_temperature(logits[calib].astype(np.float32), rows.target[calib], rows.names, "global", split="calib")


def _figures_of(logits: np.ndarray, calibration: Calibration, rows: _Rows) -> dict[str, Any]:
    """Return figures of the combined logits, as they are and with the temperature, if there is one."""
    logits, fitted = logits.astype(np.float32), calibration.mode != "none"
    return {
        "temperature": calibration.temperature[0] if fitted else None,
        "calibration": calibration.to_json(),
        "combined": rows.figures(logits),
        "combined_scaled": rows.figures(calibration.apply(logits)) if fitted else None,
    }


def _member_facts(member: Member, weight: float, figures: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    return {
        "run": str(member.folder),
        "name": member.folder.resolve().name,
        "task": member.run.task,
        "checkpoint_sha256": file_sha256(member.folder / BEST),
        "weight": weight,
        "calibration": member.calibration.to_json(),
        **figures,
    }


def _alignment(members: list[Member], rows: _Rows, data: list[Path]) -> dict[str, Any]:
    """Return rows by split and source, and for each run how its classes map, what it sees and what it was trained on."""
    dataset = rows.dataset
    splits = {split: _rows(dataset, split) for split in dataset.info.counts}

    def of(member: Member) -> dict[str, Any]:
        seen = member.trained_on
        mapped = zip(rows.names, member.columns, strict=True)
        return {
            "run": str(member.folder),
            "classes": {name: member.names[column] for name, column in mapped},
            "preprocess": asdict(member.run.preprocess),
            "trained_on": None if seen is None else {split: int(seen[of].sum()) for split, of in splits.items()},
        }

    return {
        "dataset": [str(path) for path in data],
        "index_sha256": dataset.index_sha256,
        "manifest_sha256": dataset.info.fingerprint,
        "label_protocol": dataset.info.label_protocol,
        "rows": {"total": dataset.info.num_samples, "labelled": int((~np.isnan(rows.target).any(1)).sum())},
        "splits": {split: rows_by_source(dataset, of) for split, of in splits.items()},
        "members": [of(member) for member in members],
    }
