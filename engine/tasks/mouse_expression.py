"""Expression of mice under stress from clips, as sets of frames or in their order, after docs/recipes/mouse.md."""

from dataclasses import replace

from affect.engine.tasks.spec import TaskSpec, Term

MOUSE_SET = TaskSpec(
    name="mouse_set",
    input="clip",
    outputs=("stress", "level"),
    head="mean",
    terms=(Term("cross_entropy", 1.0, on="stress"), Term("ordered_ce", 1.0, on="level")),
    select_by="accuracy",
    species="mouse",
)
MOUSE_CLIP = replace(MOUSE_SET, name="mouse_clip", head="transformer")
