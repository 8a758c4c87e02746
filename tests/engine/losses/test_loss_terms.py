"""A loss term is one file: its settings, its name in the configuration and the ablation record derive from what it declares."""

import subprocess
import sys

import pytest
import torch

import affect.engine.losses
from affect.engine.config import loss_terms
from affect.engine.config.load import load_config
from affect.engine.losses import base
from affect.engine.runs.provenance import ablation
from affect.shards.errors import InputError

from ..stubs import batch_of, loss_of

SQUARES = """
from affect.engine.config.loss_terms import TermConfig
from affect.engine.losses.base import LossTerm, loss_term


class SquaresConfig(TermConfig):
    power: float = 2.0

    def check_epochs(self, key, epochs):
        if epochs > 9:
            raise ValueError(f"{key}: forgets after 9 epochs")


@loss_term("squares", config=SquaresConfig)
class Squares(LossTerm):
    def __init__(self, term, run, rows, width):
        super().__init__(term.on)
        self.power = run.loss.settings("squares", SquaresConfig).power

    def forward(self, output, batch, teacher_output):
        return (output.outputs[self.on].abs() ** self.power).sum(1).mul(batch.weight).sum()
"""


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """A folder of losses with one file more."""
    (tmp_path / "squares.py").write_text(SQUARES)
    monkeypatch.setattr(affect.engine.losses, "__path__", [*affect.engine.losses.__path__, str(tmp_path)])
    yield
    base.TERMS.pop("squares", None)
    loss_terms.SETTINGS.pop("squares", None)
    sys.modules.pop("affect.engine.losses.squares", None)


def test_a_file_in_losses_is_a_key_of_the_configuration_and_a_term_of_the_loss(squares):
    run = load_config("smoke", ["loss.squares={power: 3, weight: .5}"])
    assert run.loss.terms["squares"].power == 3 and run.model_dump(mode="json")["loss"]["squares"] == {"weight": 0.5, "power": 3}
    assert run.digest != load_config("smoke").digest
    target, logits = torch.eye(8), torch.full((8, 8), 2.0)
    loss = loss_of(target, ["loss.squares={power: 3, weight: .5}"])
    batch = batch_of(target)
    losses = loss(logits, {"emotion": logits}, batch, loss.counts(batch))
    assert losses.parts["squares"].item() == 8 * 2**3 and losses.total.item() == pytest.approx(
        losses.parts["cross_entropy"].item() + 0.5 * 64
    )
    record = ablation(run, {"config": run.digest, "git_commit": "unknown"})
    assert record["switches"]["squares"] and record["settings"]["squares"]["power"] == 3 and not record["switches"]["kd"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss.squares.powr=3", "loss.squares.powr: unknown key; did you mean 'power'"),
        ("loss.square={}", "loss.square: unknown key; did you mean 'squares'"),
        ("loss.squares.power=x", "loss.squares.power: .*found 'x'"),
        ("loss.squares={}", "loss.squares: forgets after 9 epochs"),
    ],
)
def test_its_problems_are_named_as_those_of_other_sections(squares, setting, message):
    with pytest.raises(InputError, match=message):
        load_config("smoke", [setting, "optim.epochs=10"])


def test_its_presence_changes_no_other_run(squares):
    before = load_config("student_kd").digest
    loss_terms.term_settings()
    assert load_config("student_kd").digest == before and "squares" not in load_config("student_kd").model_dump()["loss"]


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'kd': declared in affect.engine.losses.distillation and in"):
        base.loss_term("kd")(base.LossTerm)


@pytest.mark.slow
def test_a_configuration_without_such_terms_needs_no_torch():
    code = "import sys; from affect.engine.config.load import load_config; load_config('smoke'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
