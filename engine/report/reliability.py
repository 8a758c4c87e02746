"""Runs side by side, as Markdown and LaTeX, from their reliabilitymetrics.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from affect.engine.calibration.calibration import CALIBRATION
from affect.engine.report.render import NONE, Table, escaped, markdown, tabular
from affect.engine.runs.files import RELIABILITY
from affect.shards.class_maps import canonical
from affect.shards.errors import InputError

SAME = "†"
OVERALL = ("acc.", "macro-F1")
HONESTY = ("NLL", "NLL scaled", "ECE", "ECE scaled", "Brier", "Brier scaled", "T")
REFERENCE = "reference report"
REFERENCE_CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
REFERENCE_TEACHERS = {  # accuracy, macro-F1 | F1 of SEEDS_CLASSES | NLL, ECE raw | NLL, ECE at T = 5
    "RN18": ((0.7862, 0.7808), (0.7357, 0.6940, 0.7635, 0.8970, 0.7415, 0.8186, 0.8155), (4.0259, 0.2053), (0.8803, 0.1489)),
    "B3": ((0.7961, 0.7910), (0.7521, 0.7156, 0.7576, 0.9197, 0.7479, 0.8042, 0.8399), (3.2219, 0.1988), (0.7871, 0.0839)),
    "CNXT": ((0.7941, 0.7890), (0.7687, 0.7194, 0.7395, 0.9135, 0.7313, 0.8064, 0.8439), (3.1014, 0.2009), (0.7700, 0.0817)),
}
REFERENCE_NOTE = (
    f"{REFERENCE}: other data, so not to be compared with the rows above: 18,165 validation rows of seven classes; "
    "its T was clamped at 5.0, its Brier scores are not given."
)


@dataclass(frozen=True)
class Row:
    """A run. scored_on: rows with the same are compared. f1: canonical class -> F1. figures: column -> number.

    same_split: T was fitted on the split that is scored here, so that the scaled figures flatter it.
    """

    name: str
    scored_on: str
    f1: dict[str, float]
    figures: dict[str, float | None]
    temperature: tuple[float, ...] = ()
    same_split: bool = False


def write_tables(runs: Sequence[Path], out: Path) -> tuple[str, list[Path]]:
    """Write teachers.md and teachers.tex of the runs and the reference teachers; return the Markdown and both paths."""
    table = table_of(read_runs(runs))
    out.mkdir(parents=True, exist_ok=True)
    texts = {out / "teachers.md": markdown(table), out / "teachers.tex": latex(table)}
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return markdown(table), list(texts)


def read_runs(folders: Sequence[Path]) -> list[Row]:
    """Raises InputError naming every folder without the file."""
    missing = [folder for folder in folders if not (folder / RELIABILITY).is_file()]
    if missing:
        lines = "\n".join(f"  {folder}: {_remedy(folder)}" for folder in missing)
        raise InputError(f"tables: {len(missing)} of {len(folders)} folders have no {RELIABILITY}:\n{lines}")
    times = Counter(folder.resolve().name for folder in folders)
    names = [folder.resolve().name if times[folder.resolve().name] == 1 else str(folder) for folder in folders]
    return [_row(name, folder / RELIABILITY) for name, folder in zip(names, folders, strict=True)]


def _remedy(folder: Path) -> str:
    if not folder.is_dir():
        return "not a folder; name the folder of a run"
    if not (folder / "config.yaml").is_file():
        return "not a run, it has no config.yaml; name the folder of a run"
    return f"write it: affect calibrate {folder}"


def _row(name: str, path: Path) -> Row:
    try:
        value = json.loads(path.read_text())
        raw, scaled = value["raw"], value["temperature_scaled"] or {}
        scored_on = f"{value['split']}, {value['rows']:,} rows, {value['label_protocol']} labels"
        figures = {"acc.": raw["accuracy"], "macro-F1": raw["macro_f1"]}
        for column, key in (("NLL", "nll"), ("ECE", "ece"), ("Brier", "brier")):
            figures |= {column: raw[key], f"{column} scaled": scaled[key] if scaled else None}
        f1 = {canonical(label): float(f1) for label, f1 in raw["per_class_f1"].items()}
        temperature = tuple(map(float, scaled["temperature"])) if scaled else ()
        return Row(name, scored_on, f1, figures, temperature, _fitted_split(path.parent) == value["split"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not readable as {RELIABILITY} ({error!r}); write it anew: affect calibrate {path.parent}"
        ) from error


def _fitted_split(folder: Path) -> str | None:
    """Return the split on which the run's calibration was fitted, where it has one."""
    path = folder / CALIBRATION
    fitted_on = json.loads(path.read_text()).get("fitted_on") if path.is_file() else None
    return fitted_on["split"] if fitted_on else None


def reference_rows() -> list[Row]:
    """Return the teachers of the reference recipe (docs/recipes/teacher.md), as its report of 2025-12-24 prints them."""
    rows = []
    for name, (overall, f1, raw, scaled) in REFERENCE_TEACHERS.items():
        columns = (*OVERALL, "NLL", "ECE", "NLL scaled", "ECE scaled")
        figures: dict[str, float | None] = dict(zip(columns, (*overall, *raw, *scaled), strict=True))
        rows.append(Row(name, REFERENCE, dict(zip(REFERENCE_CLASSES, f1, strict=True)), figures, (5.0,)))
    return rows


def table_of(runs: Sequence[Row]) -> Table:
    """Tabulate the runs; below them the reference teachers, where a class is shared."""
    ours = {name for row in runs for name in row.f1}
    reference = [row for row in reference_rows() if ours & set(row.f1)]
    rows = [*runs, *reference]
    classes = list(dict.fromkeys(name for row in rows for name in row.f1))
    header = ["run", *OVERALL, *classes, *HONESTY]
    cells = [_cells(row, classes) for row in rows]
    best = {(i, 1 + len(OVERALL) + j) for j, name in enumerate(classes) for i in _best(rows, name)}
    return Table(header, cells, best, _caption(runs, bool(reference)), {len(runs): REFERENCE} if reference else {})


def _cells(row: Row, classes: Sequence[str]) -> list[str]:
    numbers = [
        *(row.figures[name] for name in OVERALL),
        *(row.f1.get(name) for name in classes),
        *(row.figures.get(name) for name in HONESTY[:-1]),
    ]
    texts = [NONE if number is None else _number(number) for number in numbers]
    ends = sorted({f"{t:.3g}" for t in (min(row.temperature), max(row.temperature))}, key=float) if row.temperature else [NONE]
    return [row.name, *texts, " to ".join(ends) + SAME * row.same_split]


def _number(value: float) -> str:
    return f"{value:.4f}"


def _best(rows: Sequence[Row], name: str) -> Iterable[int]:
    """The rows with the highest F1 of a class as printed, among those scored on the same; none where all are equal."""
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if name in row.f1:
            groups.setdefault(row.scored_on, []).append(i)
    for group in groups.values():
        printed = {i: float(_number(rows[i].f1[name])) for i in group}
        low, top = min(printed.values()), max(printed.values())
        yield from (i for i in group if low < printed[i] == top)


def _caption(runs: Sequence[Row], reference: bool) -> list[str]:
    scored: dict[str, list[str]] = {}
    for row in runs:
        scored.setdefault(row.scored_on, []).append(row.name)
    one = len(scored) == 1
    lines = [f"Scored on {what}" + ("." if one else f": {', '.join(names)}.") for what, names in scored.items()]
    return [
        "Class columns: F1, before scaling; bold: the best of those scored on the same rows.",
        *lines,
        *([] if one else ["Runs scored on different rows are not to be compared with each other."]),
        "NLL against the label distributions, ECE (15 bins) and Brier against the majority label; scaled: logits / T.",
        *([f"{SAME}: T was fitted on the split that is scored here."] if any(row.same_split for row in runs) else []),
        *([REFERENCE_NOTE] if reference else []),
    ]


def latex(table: Table) -> str:
    """A table of two parts, as one line of it all is wider than a page; needs booktabs."""
    split = len(table.header) - len(HONESTY)
    parts = [range(split), [0, *range(split, len(table.header))]]
    return "\n".join([
        "% \\input{teachers.tex} in a document with \\usepackage{booktabs}",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{escaped(' '.join(table.caption))}}}",
        "\\label{tab:teachers}",
        "\\scriptsize",
        "\\setlength{\\tabcolsep}{3pt}",
        "\n\n\\medskip\n".join(tabular(table, part) for part in parts),
        "\\end{table}",
        "",
    ])  # fmt: skip
