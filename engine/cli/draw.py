"""affect draw: drawn faces in the files of a published dataset, to try its commands without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

FILES = {"au": "AUlabel", "emotion": "emolabel", "partition": "partition"}  # option -> file

draw_app = typer.Typer(
    no_args_is_help=True, help="Draw faces in the files of a published dataset, to try its commands.", rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    app.add_typer(draw_app, name="draw")


@draw_app.callback()
def draw() -> None:
    """Draw faces in the files of a published dataset, to try its commands."""


@draw_app.command()
def rafce(
    folder: Annotated[Path, typer.Argument(help="aligned/ and the three label files go here; must not exist yet")],
    num_images: Annotated[int, typer.Option(min=1)] = 3000,
    size: Annotated[int, typer.Option(min=32, max=512, help="pixels")] = 100,
    rarest: Annotated[int, typer.Option(min=1, help="rows of the rarest emotion")] = 6,
    null: Annotated[float, typer.Option(min=0, max=1, help="share of rows whose action units are null")] = 0.05,
    strays: Annotated[float, typer.Option(min=0, max=1, help="share of rows with a token that is no action unit")] = 0.005,
    label_noise: Annotated[float, typer.Option(min=0, max=1, help="chance of each action unit to be written wrongly")] = 0,
    seed: int = 1337,
) -> None:
    """RAF-CE: compound emotions, action units, partition."""
    from affect.engine.system.progress import Progress
    from affect.shards.synthetic.rafce_drawn import write_rafce

    with Progress("draw", num_images, "images") as progress:
        write_rafce(
            folder,
            num_images,
            seed=seed,
            size=size,
            rarest=rarest,
            null=null,
            strays=strays,
            label_noise=label_noise,
            advance=progress.advance,
        )
    files = " ".join(f"--{option} {folder}/RAFCE_{name}.txt" for option, name in FILES.items())
    print(f"{folder}: {num_images:,} faces. Next: affect pack rafce {folder}/aligned {files} --out DATASET")


@draw_app.command()
def cattle(
    folder: Annotated[Path, typer.Argument(help="the clips and the two JSONs go here; must not exist yet")],
    animals: Annotated[int, typer.Option(min=4)] = 20,
    clips: Annotated[int, typer.Option(min=4)] = 386,
    size: Annotated[int, typer.Option(min=32, max=512, help="pixels")] = 112,
    frames: Annotated[int, typer.Option(min=1, help="of a clip")] = 32,
    form: Annotated[Literal["jpg", "mp4"], typer.Option(help="folders of JPEGs, or videos")] = "jpg",
    seed: int = 1337,
) -> None:
    """Cattle after surgery: clips, seven facial features of 0 to 2, moments, folds of animals."""
    from affect.engine.system.progress import Progress
    from affect.shards.synthetic.cattle import write_cattle

    with Progress("draw", clips, "clips") as progress:
        done = write_cattle(folder, animals, clips, size, frames, seed, form, progress.advance)
    fps = " --fps 25" if form == "jpg" else ""
    print(
        f"{folder}: {clips:,} clips of {animals} animals. R2 of the noisy totals: {done.oracle_r2:.3f} from the latent "
        f"features, {done.moment_r2:.3f} from the mean of each moment\n"
        f"Next: affect pack pain {done.labels} --root {folder} --splits {done.splits}{fps} --out DATASET"
    )


@draw_app.command()
def mouse(
    folder: Annotated[Path, typer.Argument(help="the clips and labels.csv go here; must not exist yet")],
    order: Annotated[bool, typer.Option("--order", help="only the order of a clip's frames shows stress")] = False,
    shortcut: Annotated[
        bool, typer.Option("--shortcut", help="the background shows stress, but not in a second cohort, split test")
    ] = False,
    flip_labels: Annotated[float, typer.Option(min=0, max=1, help="share of training labels that are wrong")] = 0,
    clips: Annotated[int, typer.Option(min=4, help="of a cohort")] = 400,
    animals: Annotated[int, typer.Option(min=2, help="of a cohort; a quarter of them is val")] = 8,
    size: Annotated[int, typer.Option(min=32, max=512, help="pixels")] = 64,
    frames: Annotated[int, typer.Option(min=2, help="of a clip")] = 16,
    form: Annotated[Literal["jpg", "mp4"], typer.Option(help="folders of JPEGs, or videos")] = "jpg",
    seed: int = 1337,
) -> None:
    """Mice under stimulation: trials of five levels, or stress that only the order or the background shows."""
    from affect.engine.system.progress import Progress
    from affect.shards.errors import InputError
    from affect.shards.synthetic.mice import head_box, write_mice

    if order and shortcut:
        raise InputError("--order, --shortcut: only one of them can carry the label; give one")
    cue: Literal["order", "shortcut", "levels"] = "order" if order else "shortcut" if shortcut else "levels"
    with Progress("draw", clips * (1 + shortcut), "clips") as progress:
        done = write_mice(
            folder,
            clips,
            animals,
            cue=cue,
            flip_labels=flip_labels,
            size=size,
            frames=frames,
            form=form,
            seed=seed,
            advance=progress.advance,
        )
    box = ",".join(map(str, head_box(size)))
    print(
        f"{done}: {clips * (1 + shortcut):,} clips. Next: affect pack mouse {folder} --out DATASET\n"
        f"The background alone: affect pack mouse {folder} --background --box {box} --out DATASET"
    )
