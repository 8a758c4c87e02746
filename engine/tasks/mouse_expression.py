"""Expression of mice under stress from clips, after seed 003: sets of frames, or frames in their order."""

from dataclasses import replace

from affect.engine.tasks.spec import TaskSpec, Term

MOUSE_SET = TaskSpec(
    name="mouse_set",
    input="clip",
    outputs=("stress", "level"),
    head="mean",
    terms=(Term("cross_entropy", 1.0, on="stress"), Term("ordered_ce", 1.0, on="level")),
    select_by="accuracy",
)
MOUSE_CLIP = replace(MOUSE_SET, name="mouse_clip", head="transformer")
