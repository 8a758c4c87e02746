"""Emotion and action units of one face, after the reference recipe: docs/recipes/action_units.md."""

from affect.engine.tasks.spec import Criterion, TaskSpec, Term

EMOTION_AU = TaskSpec(
    name="emotion_au",
    input="frame",
    outputs=("emotion", "au"),
    head="shared",
    terms=(Term("cross_entropy", 1.0, on="emotion"), Term("au_bce", 1.0, on="au")),
    select_by="macro_f1",
    species="human",
    watch_gap=True,
    criteria=(
        Criterion("validation accuracy", "way.acc", "0.5199", low=0.55),
        Criterion("macro-F1", "way.macro_f1", "0.4255", low=0.50),
        Criterion("AU-F1", "outputs.au.macro_f1", "0.0000", low=0.50),
        Criterion("train-validation gap", "gap", "0.4462", high=0.25),
        Criterion("F1 of Sadly surprised", "per_class.Sadly surprised.f1", "0.00", low=0.20),
        Criterion("F1 of Fearfully disgusted", "per_class.Fearfully disgusted.f1", "0.00", low=0.15),
        Criterion("F1 of Happily fearful", "per_class.Happily fearful.f1", "0.00", low=0.20),
        Criterion("F1 of Happily sad", "per_class.Happily sad.f1", "0.00", low=0.20),
    ),
)
