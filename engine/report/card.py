"""`affect card`: a package and how well it does, measured here, as CARD.md and card.json.

After Mitchell et al., Model Cards for Model Reporting, FAT* 2019. The notes hold what figures cannot show.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from affect.engine.package.model_package import ModelPackage
from affect.engine.report.render import NONE, Table, markdown
from affect.engine.runs.files import CONFIG
from affect.engine.runs.folder import write_json

CARD, CARD_JSON = "CARD.md", "card.json"
FIGURES = {  # key in metrics.json -> its name in the card
    "acc": "accuracy", "macro_f1": "macro-F1", "bacc": "balanced accuracy", "nll": "NLL", "ece": "ECE of the label",
    "ece_votes": "ECE of the shares of votes",
}  # fmt: skip


def write_card(model: str | Path, sets: Mapping[str, dict[str, Any]], out: Path, notes: str = "") -> Path:
    """Write CARD.md and card.json of a package into the folder `out`; return the first.

    sets: name of what it was evaluated on -> the metrics that `evaluate` returned. notes: Markdown: intended use, terms, where
    it fails; with a title they stand first.
    """
    card = card_of(ModelPackage.open(model), sets)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / CARD_JSON, card)
    (out / CARD).write_text(rendered(card, notes), encoding="utf-8")
    return out / CARD


def card_of(package: ModelPackage, sets: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    manifest = package.manifest
    return {
        "name": manifest.name,
        "task": manifest.task,
        "classes": list(manifest.layout.first_classes.names) if manifest.layout.first_classes else [],
        "intended_use": manifest.intended_use,
        "subject": manifest.subject,
        "preprocess": manifest.preprocess.to_json(),
        "trained_on": {"sources": manifest.sources, "label_protocol": manifest.label_protocol, "face_px": manifest.face_px},
        "fingerprint": manifest.fingerprint,
        "calibration": manifest.calibration,
        "files": manifest.files or {},
        "recipe": _recipe(package),
        "measured": {name: _measured(metrics) for name, metrics in sets.items()},
    }


def _recipe(package: ModelPackage) -> dict[str, Any] | None:
    """The whole configuration of the run that the package lies in; None where it has left its run."""
    path = package.model.resolve().parents[1] / CONFIG
    return yaml.safe_load(path.read_text()) if path.is_file() else None


def _measured(metrics: dict[str, Any]) -> dict[str, Any]:
    way = metrics[f"{len(metrics['per_class'])}way"]
    figures = {name: way[name] if name in way else metrics[name] for name in FIGURES}
    shown = ("rows", "label_protocol", "macro_f1_interval", "per_class", "confusion", "left_out", "apart")
    return figures | {name: metrics[name] for name in shown if name in metrics}


def rendered(card: dict[str, Any], notes: str = "") -> str:
    seen = card["preprocess"]
    files = "; ".join(
        f"`{name}` {fact['size'] / 1e6:.1f} MB, {fact['precision']}" for name, fact in card["files"].items() if "size" in fact
    )
    looks = f"{seen['size']} px, {seen['color']}, {'CLAHE' if seen['clahe'] else 'no CLAHE'}, a face's box with a margin of "
    titled = notes.lstrip().startswith("# ")
    parts = [
        notes.strip() if titled else f"# {card['name']}",
        f"`{card['task']}`: {', '.join(card['classes'])}. Sees {looks}{seen['margin']:g}{' upright' if seen['align'] else ''}. "
        f"{files}. Trained on {', '.join(card['trained_on']['sources'])} ({card['trained_on']['label_protocol']} labels). "
        f"{card['intended_use']}",
        "" if titled else notes.strip(),
        "## Measured",
        markdown(_figures(card)).strip(),
        *_apart(card),
        "### F1 of each class",
        markdown(_classes(card)).strip(),
        *(part for name, of in card["measured"].items() for part in _confusion(name, of, card["classes"])),
        *_lower(card),
        "## Made from",
        "\n".join(f"- {name}: `{value}`" for name, value in card["fingerprint"].items()),
        f"```yaml\n{yaml.safe_dump(card['recipe'], sort_keys=False)}```" if card["recipe"] else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(card: dict[str, Any]) -> Table:
    sets = card["measured"]
    cells = [["rows", *(f"{of['rows']:,}" for of in sets.values())]]
    for name, word in FIGURES.items():
        cells.append([word, *(f"{of[name]:.4f}" for of in sets.values())])
    interval = [of.get("macro_f1_interval") for of in sets.values()]
    cells.append(["macro-F1, 95 %", *(f"{low:.3f}–{high:.3f}" if low is not None else NONE for low, high in interval)])
    return Table(["", *sets], cells, set(), [])


def _apart(card: dict[str, Any]) -> list[str]:
    return [
        f"{name}: on the {of['apart']['rows']:,} rows that did not fit the temperature accuracy {of['apart']['accuracy']:.4f}, "
        f"macro-F1 {of['apart']['macro_f1']:.4f}, NLL {of['apart']['nll']:.4f}, ECE {of['apart']['ece']:.4f} of the label and "
        f"{of['apart']['ece_votes']:.4f} of the shares of votes."
        for name, of in card["measured"].items()
        if "apart" in of
    ]


def _classes(card: dict[str, Any]) -> Table:
    sets = card["measured"].values()
    cells = [
        [name, *(f"{of['per_class'][name]['f1']:.3f} ({of['per_class'][name]['support']:,})" for of in sets)]
        for name in card["classes"]
    ]
    return Table(["F1 (rows)", *card["measured"]], cells, set(), [])


def _confusion(name: str, of: dict[str, Any], classes: list[str]) -> list[str]:
    cells = [[true, *map(str, row)] for true, row in zip(classes, of["confusion"], strict=True)]
    return [f"### Confusion, {name}", markdown(Table(["true \\ predicted", *classes], cells, set(), [])).strip()]


def _lower(card: dict[str, Any]) -> list[str]:
    """Tabulate what bf16 and INT8 cost, as the export measured it."""
    lower = {name: fact for name, fact in card["files"].items() if "metric" in fact}
    lower |= {p: fact for of in card["files"].values() for p, fact in of.get("lower", {}).items()}
    cells = []
    for name, fact in lower.items():
        metric, agreement = fact["metric"], min(of["label_agreement"] for of in fact["parity"].values())
        cells.append([name, metric["name"], f"{metric['value']:.4f}", f"{metric['float32']:.4f}", f"{100 * agreement:.1f} %"])
    table = Table(["", "figure", "here", "float32", "labels that stay"], cells, set(), [])
    return ["## Lower precision", markdown(table).strip()] if cells else []
