"""Short files, strict reading: every problem at once, with its key and the nearest valid name."""

import pytest

from affect.engine.config.load import find_config, load_config
from affect.engine.config.run import RunConfig
from affect.shards.errors import InputError

VALID = "task: emotion_student\ndata: {dataset: d}\noptim: {epochs: 3, lr: 1.0e-3, warmup_epochs: 1}\n"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", ["smoke", "demo", "ferplus_rn18", "smoke.yaml"])
def test_shipped_configs_load_by_name(name):
    assert isinstance(load_config(name), RunConfig)


def test_all_problems_at_once_with_the_nearest_name(write):
    path = write("task: emotion_studnt\ndata: {dataset: d, batchsize: 3, batch_size: 0}\noptim: {epochs: 2, lr: x}\nmodle: {}\n")
    with pytest.raises(InputError) as caught:
        load_config(path)
    message = str(caught.value)
    for part in (
        "data.batchsize: unknown key; did you mean 'batch_size'?", "modle: unknown key; did you mean 'model'?",
        "data.batch_size: ", "optim.lr: ", "task: unknown task 'emotion_studnt'; did you mean 'emotion_student'?",
    ):  # fmt: skip
        assert f"{path}: {part}" in message
    assert len(message.splitlines()) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected `key: value` lines, found NoneType"),
        ("- a\n- b\n", "found list"),
        ("a: [", "not readable as YAML"),
        ("task: emotion_student\n", "data: missing"),
        (VALID.replace("warmup_epochs: 1", "warmup_epochs: 3"), r"warmup_epochs: 3.0 is not below epochs \(3\)"),
        (VALID + "model: {backbone: 3}\n", r"model\.backbone: .*found 3"),
        (
            VALID.replace("dataset: d", "dataset: d, augment: {crop: {scale: [0.9, 0.5]}}"),
            r"data\.augment\.crop: scale: expected",
        ),
    ],
)
def test_one_problem_is_one_line(write, text, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(write(text))
    assert "validation error" not in str(caught.value)


def test_set_changes_one_value(write):
    settings = ["optim.lr=1e-3", "data.clahe=null", "model.backbone=resnet34", "data.sources=[a, b]", "train.compile=default"]
    run = load_config(write(VALID), settings)
    assert (run.optim.lr, run.data.clahe, run.model.backbone, run.data.sources) == (1e-3, None, "resnet34", ["a", "b"])


@pytest.mark.parametrize("setting", ["optim.lr", "=3", "optim.lr=[", "optim.rate=3", "optim.lr.x=3"])
def test_bad_settings_are_named(write, setting):
    with pytest.raises(InputError, match="optim|--set"):
        load_config(write(VALID), [setting])


def test_unknown_config_offers_the_nearest():
    with pytest.raises(InputError, match="did you mean 'smoke'"):
        find_config("smoek")


def test_digest_ignores_how_a_step_is_taken(write):
    run = load_config(write(VALID))
    unchanged = ("train.compile=default", "data.workers=3", "calibration.coverage=0.9", "species=sheep", "view=from the side")
    for setting, same in (*((setting, True) for setting in unchanged), ("optim.lr=0.5", False), ("seed=2", False)):
        assert (load_config(write(VALID), [setting]).digest == run.digest) is same


def test_a_dump_loads_again(write):
    run = load_config("ferplus_rn18")
    assert load_config(write(run.dump())) == run
