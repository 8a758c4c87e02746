"""The classes of a set meet the model's by name; what the model does not know is named, or left out when that is asked for."""

import numpy as np
import pytest

from affect.engine.evaluation.class_order import class_order
from affect.shards.class_maps import ClassMap
from affect.shards.errors import InputError
from affect.shards.schema import Output

MODEL = Output("emotion", "classes", ("Neutral", "Happy", "Sad"))


def of(*names):
    return Output("emotion", "classes", names)


def kept(*names):
    return ClassMap("kept", names, {name: i for i, name in enumerate(names)})


def test_by_name_and_synonym_never_by_position():
    match = class_order(MODEL, of("sadness", "neutral", "happiness"), {}, "set", None)
    target = np.array([[0.5, 0.3, 0.2]], np.float32)
    assert match(target).tolist() == target[:, [1, 2, 0]].tolist()  # to the bit


def test_a_set_may_lack_classes():
    match = class_order(MODEL, of("sad", "neutral"), {"sad": 1, "neutral": 1}, "set", None)
    assert match(np.eye(2)).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_an_unknown_class_without_rows_is_no_matter():
    match = class_order(MODEL, of("sad", "neutral", "contempt"), {"sad": 1, "contempt": 0}, "set", None)
    assert match(np.array([[0.5, 0.5, 0]])).tolist() == [[0.5, 0, 0.5]]


@pytest.mark.parametrize("class_map", [None, kept("sadness", "neutral", "contempt")], ids=["no map", "a map that keeps it"])
def test_an_unknown_class_is_named_with_its_rows_and_the_remedy(class_map):
    with pytest.raises(InputError, match=r"set: classes .* not know:\n  'Scorn': 7 rows\n.*--class-map FILE") as raised:
        class_order(MODEL, of("sad", "Scorn"), {"sad": 3, "Scorn": 7}, "set", class_map and kept("sadness", "Scorn"))
    assert '["Neutral", "Happy", "Sad"]' in str(raised.value)


def test_rows_led_by_a_class_left_out_have_no_label():
    match = class_order(MODEL, of("sad", "neutral", "contempt"), {"contempt": 3}, "set", kept("sadness", "neutral"))
    found = match(np.array([[0.6, 0.2, 0.2], [0.3, 0.3, 0.4], [np.nan, np.nan, np.nan], [0, 1, 0]]))
    assert found[0] == pytest.approx([0.25, 0, 0.75]) and found[3].tolist() == [1, 0, 0]
    assert np.isnan(found).any(1).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("evaluated", "message"),
    [
        (of("cow", "mouse"), "cow, mouse, of which the model knows none: Neutral, Happy, Sad"),
        (Output("emotion", "scalars", ("sad",)), "emotion is scalars, of the model classes"),
    ],
)
def test_nothing_in_common_is_one_message(evaluated, message):
    with pytest.raises(InputError, match=message):
        class_order(MODEL, evaluated, {}, "set", None)
