"""What the commands of affect pack have in common."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from affect.shards.sample import Source

Out = Annotated[Path, typer.Option("--out", help="the folder of the packed dataset; must not be there yet")]
OnLeak = Annotated[Literal["error", "drop-train", "keep"], typer.Option(help="the same pixels or one group in two splits")]
MaxRejects = Annotated[float, typer.Option(min=0, max=1, help="share of unreadable pictures that is accepted")]
MaxSide = Annotated[int, typer.Option(min=0, help="reduce longer pictures to this many pixels; 0: keep them")]
Quality = Annotated[int, typer.Option(min=0, max=100, help="JPEG for what cannot keep its bytes, 1 to 100; 0: PNG, no loss")]
Calib = Annotated[float, typer.Option(min=0, max=1, help="share of val that becomes calib, by group or else by picture")]
Workers = Annotated[int, typer.Option(min=1, help="threads")]
Json = Annotated[bool, typer.Option("--json", help="one machine-readable line at the end")]

WORKERS = min(8, os.cpu_count() or 1)

pack_app = typer.Typer(no_args_is_help=True, help="Pack raw files into tar shards with an index.", rich_markup_mode=None)


def pack_source(
    source: Source, out: Path, on_leak: OnLeak, max_rejects: float, calib: float, max_side: int, quality: int, workers: int,
    as_json: bool,
) -> None:  # fmt: skip
    from affect.engine.system.log import say
    from affect.engine.system.progress import Progress
    from affect.shards.images import Storage
    from affect.shards.pack import pack

    with Progress("pack", None, "images") as progress:
        info = pack(
            source,
            out,
            on_leak=on_leak,
            max_rejects=max_rejects,
            calib=calib,
            storage=Storage(max_side or None, quality or None),
            workers=workers,
            advance=progress.advance,
            say=say,
        )
    print(
        f"{out}: " + ", ".join(f"{count:,} {split}" for split, count in info.counts.items()) + f"; labels: {info.label_protocol}"
    )
    left_out = {reason: count for reason, count in info.dropped.items() if count}
    if left_out:
        print("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()))
    for note in (*getattr(source, "notes", ()), *(_clip_notes(out) if info.clip else ())):
        print(note)
    near = info.near_duplicates
    print(
        f"near-duplicates (difference hashes within {near['distance']} of 64 bits): {near['train_like_held_out']:,} training "
        f"pictures are like a held-out one, {near['pairs_in_train']:,} pairs within train are alike"
    )
    for output in info.layout.outputs:
        print(f"{output.name} ({output.kind}): {', '.join(output.names)}")
    if as_json:
        print(json.dumps({"dataset": str(out), "counts": info.counts, "dropped": info.dropped}))


def _clip_notes(out: Path) -> list[str]:
    """What was odd about the recordings."""
    import numpy as np

    from affect.shards.dataset import Dataset

    dataset = Dataset(out)
    repeated, gaps, origins = (dataset.column(f"meta.{name}") for name in ("repeated", "gaps", "time_from"))
    counts = {
        "clips have fewer frames than were asked for, and repeat some (meta.repeated)": np.count_nonzero(repeated),
        "clips have gaps in their frame numbers (meta.gaps)": np.count_nonzero(gaps),
        "clips have no timestamps; times are by the video's frame rate": np.count_nonzero(origins == "rate"),
        "clips have no frame rate; a time is the number of the frame; name it with --fps": np.count_nonzero(origins == "numbers"),
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]
