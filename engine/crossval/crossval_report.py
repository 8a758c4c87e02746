"""The report of a cross-validation: pain has its own, other outputs share one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affect.engine.crossval.fold_results import collect
from affect.engine.crossval.pain_report import pain_report
from affect.engine.crossval.pain_rows import is_pain
from affect.engine.crossval.pooled_report import pooled_report
from affect.engine.report.pain.texts import plain
from affect.engine.runs.folder import write_json

REPORT, TEXT, FIGURES = "report", "crossval.md", "crossval.json"


def report(out: Path) -> tuple[str, dict[str, Any]]:
    """Write STRATEGY/answers.npz and OUT/report; return what is printed, and the figures."""
    results = collect(out)
    folder = out / REPORT
    folder.mkdir(parents=True, exist_ok=True)
    outputs = next(iter(results.held_out.values())).outputs
    text, figures = pain_report(results, folder) if is_pain(outputs) else pooled_report(results)
    missing = sorted(set(results.folds) - {fold for folders in results.runs.values() for fold in folders})
    if missing:
        text += f"\nFolds {', '.join(map(str, missing))} are not there yet: these are figures of a part of the rows.\n"
    (folder / TEXT).write_text(text, encoding="utf-8")
    write_json(folder / FIGURES, plain(figures))
    return text, figures
