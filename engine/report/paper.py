"""The paper's tables, from metrics.json, sweep.json and fingerprints: a run on other sets, and a run without its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from affect.engine.config.sweep import VAL
from affect.engine.report.mcnemar import mcnemar_table
from affect.engine.report.reliability import write_tables
from affect.engine.report.render import NONE, Table, document, markdown
from affect.engine.report.run_figures import (
    CHOSEN_MARK,
    EPOCH_MARK,
    KEYS,
    Figures,
    chosen_on,
    external,
    is_run,
    is_sweep,
    mark,
    read_json,
    switches,
    validation,
)
from affect.engine.runs.files import METRICS, PREDICTIONS, RELIABILITY, SWEEP
from affect.shards.errors import InputError

XVAL_MAIN, ABLATION_LITE, MCNEMAR = "xval_main", "ablation_lite", "mcnemar"
HEADS = ("acc.", "macro-F1", "bACC")


@dataclass(frozen=True)
class Variant:
    """A run, or runs that differ in their seeds. figures: set -> one a run. chosen: the sets that chose it, and their places."""

    name: str
    figures: dict[str, list[Figures]]
    chosen: dict[str, str]
    terms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """A sweep.json. chosen: the name of a variant."""

    folder: Path
    variants: list[Variant]
    named: bool
    chosen: str | None

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        value = read_json(folder / SWEEP)
        try:
            chosen = {name: value["sets"][name] for name in value["select_on"]}
            variants = [_variant(point, chosen, folder / SWEEP) for point in value["points"]]
            return cls(folder, [v for v in variants if v.figures], not value["grid"], value["chosen"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder / SWEEP}: not readable ({error!r}); write it anew: affect sweep") from error


def _variant(point: dict[str, Any], chosen: dict[str, str], path: Path) -> Variant:
    runs = [run for run in point["runs"] if "figures" in run]
    per_run: dict[str, list[Figures]] = {}
    for run in runs:
        for name, value in run["figures"].items():
            per_run.setdefault(name, []).append(Figures.of(value, f"{path}: {run['folder']}: {name}"))
    return Variant(point["name"], per_run, chosen, tuple(runs[0]["switches"]) if runs else ())


def variant_of(run: Path) -> Variant:
    """Read a run as a variant."""
    validated = validation(run)
    figures = ({VAL: [validated]} if validated else {}) | {name: [per_run] for name, per_run in external(run).items()}
    return Variant(run.resolve().name, figures, chosen_on(run), tuple(switches(run)))


def write_all(folders: Sequence[Path], out: Path, main: Path | None = None) -> tuple[str, list[Path]]:
    """Write every table that the folders hold figures for; return the Markdown and the files.

    folders: runs, sweeps, and folders of `affect evaluate`. main: the run of xval_main; else the first with figures on
    other sets, else what a sweep has chosen.
    """
    sweeps = [Sweep.read(folder) for folder in folders if is_sweep(folder)]
    runs = [folder for folder in folders if not is_sweep(folder)]
    variants = [variant_of(folder) for folder in runs if is_run(folder) or external(folder)]
    texts, paths = [], []
    beside = [folder for folder in runs if (folder / RELIABILITY).is_file() or not (external(folder) or _is_evaluation(folder))]
    beside += [run for sweep in sweeps for run in sorted(sweep.folder.iterdir()) if (run / RELIABILITY).is_file()]
    beside = list({folder.resolve(): folder for folder in reversed(beside)}.values())[::-1]  # a link and its run are one
    if beside:
        text, written = write_tables(beside, out)
        texts, paths = [text], written
    subject = _named(main) if main else _main(variants, sweeps)
    if subject:
        others = {name: place for sweep in sweeps for v in sweep.variants for name, place in v.chosen.items()}
        texts.append(_write(xval_table(subject, others), out / XVAL_MAIN, paths))
    compared = [v for v in _compared(variants, sweeps) if VAL in v.figures]
    if len(compared) > 1:
        texts.append(_write(ablation_table(compared), out / ABLATION_LITE, paths))
    tested = mcnemar_table([*beside, *(folder for folder in runs if _is_evaluation(folder) and not is_run(folder))])
    if tested:
        texts.append(_write(tested, out / MCNEMAR, paths))
    return "\n".join(texts), paths


def _is_evaluation(folder: Path) -> bool:
    return (folder / METRICS).is_file() and (folder / PREDICTIONS).is_file()


def _write(table: Table, path: Path, paths: list[Path]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".md", markdown(table)), (".tex", document(table, path.name))):
        path.with_suffix(suffix).write_text(text, encoding="utf-8")
        paths.append(path.with_suffix(suffix))
    return markdown(table)


def _named(main: Path) -> Variant:
    per_run = _main([], [Sweep.read(main)]) if is_sweep(main) else variant_of(main)
    if not per_run or not per_run.figures:
        raise InputError(f"--main {main}: has no figures on any set; evaluate it: affect evaluate RUN --data DATASET")
    return per_run


def _main(variants: Sequence[Variant], sweeps: Sequence[Sweep]) -> Variant | None:
    chosen = [variant for sweep in sweeps for variant in sweep.variants if variant.name == sweep.chosen]
    return next((variant for variant in [*variants, *chosen] if variant.figures.keys() - {VAL}), None)


def _compared(variants: Sequence[Variant], sweeps: Sequence[Sweep]) -> list[Variant]:
    """The points of the sweeps with names of their own, else those of all sweeps, else the runs."""
    named = [sweep for sweep in sweeps if sweep.named] or sweeps
    return [variant for sweep in named for variant in sweep.variants] or list(variants)


def xval_table(variant: Variant, others: dict[str, str]) -> Table:
    """A row a set: validation, then the others. others: further sets that chose a setting, also of the sweeps."""
    sets = [name for name in (VAL, *variant.figures) if name in variant.figures]
    names, chosen = list(dict.fromkeys(sets)), {**others, **variant.chosen}
    validated = variant.figures.get(VAL)
    cells, marks = [], set()
    for name in names:
        per_run = variant.figures[name]
        sign = mark(name, per_run[0], chosen)
        marks.add(sign)
        numbers = [f"{mean(figures.way[key] for figures in per_run):.4f}" for key in KEYS]
        numbers += [f"{mean(figures.present[key] for figures in per_run):.4f}" for key in KEYS]
        rows = NONE if per_run[0].rows is None else f"{per_run[0].rows:,}"
        cells.append([name + sign, rows, *numbers, _drop(validated, per_run) if validated and name != VAL else NONE])
    ways = sorted({figures.classes for per_run in variant.figures.values() for figures in per_run})
    title = f"{'/'.join(map(str, ways))}-way"
    groups = [("", 2), (title, 3), ("present-only", 3), ("", 1)]
    seeds = len(variant.figures[names[0]])
    caption = [
        f"{variant.name} across datasets" + (f", mean of {seeds} seeds." if seeds > 1 else "."),
        f"{title}: over all classes; present-only: among the classes that occur. Drop: points of present-only macro-F1 below "
        f"{VAL}.",
        *_legend(marks),
    ]
    return Table(["set", "rows", *HEADS, *HEADS, "drop"], cells, set(), caption, groups=groups)


def _drop(validated: Sequence[Figures], there: Sequence[Figures]) -> str:
    return signed(mean(f.present["macro_f1"] for f in validated) - mean(f.present["macro_f1"] for f in there))


def signed(share: float) -> str:
    """A difference of two shares in points."""
    return f"{100 * share:+.2f}".replace("-", "−")


def _legend(marks: set[str]) -> list[str]:
    return [
        *([f"{CHOSEN_MARK}: used to choose the settings, so flattered."] if CHOSEN_MARK in marks else []),
        *([f"{EPOCH_MARK}: used to choose the epoch."] if EPOCH_MARK in marks else []),
    ]


def ablation_table(variants: Sequence[Variant]) -> Table:
    """A row a variant, over all classes of validation; against the one with the most terms, the first of equals."""
    whole = max(variants, key=lambda variant: len(variant.terms))
    full = _means(whole)
    cells = []
    for variant in variants:
        spread = _spread(variant)
        numbers = [f"{value:.4f}" + spread[key] for key, value in _means(variant).items()]
        against = [NONE if variant is whole else signed(value - full[key]) for key, value in _means(variant).items()]
        cells.append([variant.name, *numbers, *against])
    first = variants[0].figures[VAL]
    rows = {figures.rows for variant in variants for figures in variant.figures[VAL]}
    best = {(i, 1 + j) for j, key in enumerate(KEYS) for i in _best(variants, key)} if len(rows) == 1 else set()
    marks = {mark(VAL, None, variant.chosen) for variant in variants}
    seeds = max(len(variant.figures[VAL]) for variant in variants)
    groups = [("", 1), (f"{first[0].classes}-way on {VAL}{''.join(sorted(marks))}", 3), (f"Δ to {whole.name}", 3)]
    scored = " and ".join(f"{count:,}" for count in sorted(count for count in rows if count)) or "the"
    caption = [
        f"Variants on {scored} rows of {VAL}, over all {first[0].classes} classes; Δ in points; bold: the best.",
        *([f"Mean ± deviation over {seeds} seeds."] if seeds > 1 else []),
        *(["Variants scored on different rows are not to be compared with each other."] if len(rows) > 1 else []),
        *_legend(marks),
    ]
    return Table(["variant", *HEADS, *HEADS], cells, best, caption, groups=groups)


def _means(variant: Variant) -> dict[str, float]:
    return {key: mean(figures.way[key] for figures in variant.figures[VAL]) for key in KEYS}


def _spread(variant: Variant) -> dict[str, str]:
    per_run = variant.figures[VAL]
    return {key: f" ± {stdev(figures.way[key] for figures in per_run):.4f}" if len(per_run) > 1 else "" for key in KEYS}


def _best(variants: Sequence[Variant], key: str) -> list[int]:
    """The highest as printed; none where all are equal."""
    printed = [f"{_means(variant)[key]:.4f}" for variant in variants]
    return [i for i, text in enumerate(printed) if text == max(printed) != min(printed)]
