"""Pain of cattle from clips, on the 7-item bovine facial scale, after the reference recipe: docs/recipes/cattle_pain.md."""

from affect.engine.tasks.spec import TaskSpec, Term

PAIN_CLIP = TaskSpec(
    name="pain_clip",
    input="clip",
    outputs=("pain", "state"),
    head="lstm_attention",
    terms=(
        Term("scalar_mse", 1.0, on="pain"),
        Term("cross_entropy", 1.0, on="state"),
        Term("sum_consistency", 1.0, on="pain"),
    ),
    select_by="total_mae",
    species="cattle",
    specialist="pain_m2",
    moments=(("M2", 3.5), ("M3", 1.5)),
)
SCORE_CLIP = TaskSpec(
    name="score_clip",
    input="clip",
    outputs=("score",),
    head="lstm_attention",
    terms=(Term("scalar_mse", 1.0, on="score"),),
    select_by="mae",
)
