"""Every task by its name; a new one is a file here and a line below."""

from affect.engine.tasks.cattle_pain import PAIN_CLIP, SCORE_CLIP
from affect.engine.tasks.emotion import EMOTION_STUDENT, EMOTION_TEACHER
from affect.engine.tasks.emotion_au import EMOTION_AU
from affect.engine.tasks.mouse_expression import MOUSE_CLIP, MOUSE_SET

TASKS = {task.name: task for task in (EMOTION_STUDENT, EMOTION_TEACHER, EMOTION_AU, PAIN_CLIP, SCORE_CLIP, MOUSE_SET, MOUSE_CLIP)}
