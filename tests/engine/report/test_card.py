"""A card says what was measured, and what the notes say."""

import json

import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.images import decode


@pytest.fixture(scope="module")
def votes(synthetic, tmp_path_factory):
    """An npz of validation pictures with ten votes each, as FER+ has them."""
    dataset = Dataset(synthetic)
    rows = dataset.rows("val")
    shares = dataset.targets("emotion")[rows]
    counts = np.concatenate([np.rint(8 * shares) + np.eye(8)[(np.arange(len(rows)) % 8)], np.zeros((len(rows), 2))], 1)
    path = tmp_path_factory.mktemp("votes") / "faces.npz"
    np.savez(path, images=np.stack([decode(dataset.image(row)) for row in rows]), votes=counts.astype(np.uint8))
    return path


@pytest.mark.slow
def test_a_card_of_both_protocols(affect, package, votes, tmp_path):
    (tmp_path / "notes.md").write_text("## Terms\n\nDrawn, so nobody's.\n")
    options = ("--npz", votes, "--calib", 0.3, "--notes", tmp_path / "notes.md", "--out", tmp_path / "card")
    assert affect("card", package, *options)[0] == 0
    card, text = json.loads((tmp_path / "card/card.json").read_text()), (tmp_path / "card/CARD.md").read_text()
    assert list(card["measured"]) == ["votes", "majority-official"] and card["fingerprint"]["config"] in text
    for name, of in card["measured"].items():
        _, out, _ = affect("evaluate", package, "--npz", votes, "--label-protocol", name, "--json", "--out", tmp_path / name)
        metrics = json.loads(out.splitlines()[-1])
        assert of["acc"] == metrics["8way"]["acc"] and of["ece"] == metrics["ece"] and f"{of['nll']:.4f}" in text
        assert np.sum(of["confusion"]) == of["rows"] > of["apart"]["rows"] > 0
    assert "Drawn, so nobody's." in text and "Not a diagnosis" in text and text.count("```") % 2 == 0


@pytest.mark.slow
def test_a_card_of_a_packed_dataset(affect, trained, package, synthetic, tmp_path):
    assert affect("card", trained, "--data", synthetic, "--out", tmp_path / "card")[0] == 0
    text = (tmp_path / "card/CARD.md").read_text()
    assert "synthetic, val" in text and "backbone: test_resnet" in text and "apart" not in text


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "give one of --npz, --data"),
        (("--npz", "none.npz"), 1, "none.npz: no such file; expected an npz"),
        (("--npz", "none.npz", "--notes", "none.md"), 1, "--notes none.md: no such file; expected Markdown"),
    ],
)
def test_bad_options(options, code, message, affect, package, tmp_path):
    found, _, err = affect("card", package, *options, "--out", tmp_path / "card")
    assert found == code and message in " ".join(err.split())
