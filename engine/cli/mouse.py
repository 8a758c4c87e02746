"""affect mouse-report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from affect.engine.report.ordinal import Score

TEXT, FIGURES = "mouse.md", "mouse.json"


def register(app: typer.Typer) -> None:
    app.command("mouse-report")(mouse_report)


def mouse_report(
    model: Annotated[Path, typer.Argument(metavar="CROSSVAL", help="of the temporal model: a folder of affect crossval")],
    set_model: Annotated[Path | None, typer.Option("--set-model", help="of the set model")] = None,
    shuffled: Annotated[Path | None, typer.Option(help="retrained with data.clip.order=shuffled")] = None,
    single: Annotated[Path | None, typer.Option(help="retrained with data.clip.order=single")] = None,
    before: Annotated[Path | None, typer.Option(help="retrained on frames before the stimulus: data.clip.end_s")] = None,
    background: Annotated[Path | None, typer.Option(help="retrained on a dataset packed with --background")] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="NAME=CROSSVAL", help="of the 2x2: baseline, ldl, temporal, both; repeat")
    ] = None,
    high: Annotated[int, typer.Option(min=1, help="the level from which a trial is stress")] = 3,
    out: Annotated[Path | None, typer.Option(help="default: mouse-report/ in the first folder")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one machine-readable line at the end")] = False,
) -> None:
    """A model of stress of mice, or of its level, beside motion and beside controls that say what else could have told."""
    from affect.engine.crossval.mouse_answers import clips_of, motion_of, scores_of
    from affect.engine.report import mouse
    from affect.engine.report.pain.texts import plain
    from affect.engine.report.render import markdown
    from affect.engine.run import write_json

    clips, held = clips_of(model, high)
    given = {
        mouse.MODEL: (model, None), mouse.AT_TEST: (model, "shuffled"), mouse.SET: (set_model, None),
        mouse.SHUFFLED: (shuffled, None), mouse.SINGLE: (single, None), mouse.BEFORE: (before, None),
        mouse.BACKGROUND: (background, None),
    }  # fmt: skip
    pairs = [scores_of(clips, folder, name, order) for name, (folder, order) in given.items() if folder]
    scores: list[Score] = [stress for stress, _ in pairs]
    if clips.dataset.has("meta.stimulus_s"):
        scores += motion_of(clips)
    if clips.dataset.has("meta.session_position"):
        scores.append(mouse.session_position_alone(clips.trials, clips.of("meta.session_position")))
    said, figures = mouse.mouse_report(clips.trials, scores, [level for _, level in pairs if level])
    if "stress" in held.values:  # and not the level alone
        groups = {"fold": held.fold.astype(str), "animal": held.group}
        for name, column in (("cohort", "source"), ("sex", "meta.sex")):
            if clips.dataset.has(column):
                groups[name] = clips.of(column).astype(str)
        names = clips.dataset.info.layout.output("stress").names
        table = mouse.stress_table(held.values["stress"], held.targets["stress"], (names[0], names[1]), groups)
        said += f"\n## {mouse.MODEL.capitalize()}, stress\n\n{markdown(table)}"
    if point:
        points = {
            name: scores_of(clips, Path(folder), name)[0].values for name, _, folder in (text.partition("=") for text in point)
        }
        said += f"\n## Seed 003's two changes\n\n{markdown(mouse.two_by_two(clips.trials, points))}"
    out = out or model / "mouse-report"
    out.mkdir(parents=True, exist_ok=True)
    (out / TEXT).write_text(said, encoding="utf-8")
    write_json(out / FIGURES, plain(figures))
    print(f"{said}\n{out / TEXT}")
    if as_json:
        print(json.dumps(plain(figures)))
