"""Emotion from one face: docs/recipes/student.md and docs/recipes/teacher.md."""

from affect.engine.tasks.spec import TaskSpec, Term

EMOTION_STUDENT = TaskSpec(
    name="emotion_student",
    input="frame",
    outputs=("emotion",),
    head="linear",
    terms=(Term("cross_entropy", 1.0, on="emotion"),),
    select_by="macro_f1",
    species="human",
)
EMOTION_TEACHER = TaskSpec(
    name="emotion_teacher",
    input="frame",
    outputs=("emotion",),
    head="arcface",
    terms=(Term("arcface_ce", 1.0, on="emotion"),),
    select_by="macro_f1",
    species="human",
)
