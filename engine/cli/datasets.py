"""affect pack; affect verify."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from affect.engine.cli.options import Json
from affect.engine.cli.packing import pack_app


def register(app: typer.Typer) -> None:
    app.add_typer(pack_app, name="pack")
    app.command()(verify)


def verify(
    dataset: Path,
    as_json: Json = False,
) -> None:
    """Read everything back; name every file that is not as it was packed."""
    from affect.engine.system.progress import Progress
    from affect.shards.dataset import Dataset
    from affect.shards.verify import verify

    total = Dataset(dataset).info.num_samples
    with Progress("verify", total, "samples") as progress:
        verify(dataset, progress.advance)
    print(f"{dataset}: {total:,} samples as they were packed")
    if as_json:
        print(json.dumps({"dataset": str(dataset), "samples": total, "ok": True}))
