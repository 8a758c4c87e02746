"""What a run's own files say of it, what is checked of it, and that a link to a run is as good as the run."""

import json
import shutil

import pytest

from affect.engine.config.load import load_config
from affect.engine.report.run_figures import external, validation
from affect.engine.report.verify_run import verify
from affect.engine.runs.alias import check_alias, make_alias
from affect.engine.runs.provenance import ablation, write_conda
from affect.shards.errors import InputError


@pytest.fixture
def run(swept, tmp_path):
    """A copy of a swept run, whose files a test may change."""
    return shutil.copytree(swept[0] / "full", tmp_path / "full")


def states(folder):
    return {check.what: check.state for check in verify(folder)}


@pytest.mark.slow
def test_the_ablation_fingerprint_says_what_is_on(swept):
    out = swept[0]
    found = json.loads((out / "full" / "ablation_fingerprint.json").read_text())
    made_from = json.loads((out / "full" / "fingerprint.json").read_text())
    assert found["switches"] == {"kd": False, "dkd": False, "kd_mse": True, "proto_kd": True, "d_geo": True}
    assert found["weights"] == {"cross_entropy": 1.0, "kd_mse": 0.3, "proto_kd": 0.12, "d_geo": 0.012}
    assert found["settings"]["proto_kd"]["tau"] == 0.9 and found["epochs"] == 1
    assert found["prototypes"]["sha256"] == made_from["prototypes"] and found["config"] == made_from["config"]
    assert not (out / "ce_only" / "ablation_fingerprint.json").exists()


def test_report_is_of_the_files_alone(run, affect):
    code, out, _ = affect("report", run)
    own, other = validation(run), external(run)["other"]
    assert (
        code == 0 and "full: emotion_student, test_resnet at 32 px, 1 of 1 epochs, seed 1337, cross-entropy 1 + kd_mse 0.3" in out
    )
    assert "96 rows, hard labels, epoch 0: accuracy" in out and "not calibrated" in out
    assert f"{100 * (own.present['acc'] - other.present['acc']):+.2f}" in out
    assert "| other† |" in out and "| val‡" in out and "made from: config " in out
    assert set(external(run)) == {"other", "few"} and other.rows == 16


def test_verify_finds_what_was_changed_and_what_is_gone(run, swept, affect):
    found = states(run)
    assert set(found) == {
        "config", "dataset", "prototypes", "soft_labels", "switches", "package",
        "xval_other model", "xval_other calibration", "xval_few model", "xval_few calibration",
    }  # fmt: skip
    assert {what for what, state in found.items() if state != "ok"} == {"package"}  # was not exported
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("weight: 0.012", "weight: 0.024"))
    (run / "best.pt").write_bytes(b"another")
    found = states(run)
    assert {what for what, state in found.items() if state == "differs"} == {
        "config", "switches", "xval_other model", "xval_few model"
    }  # fmt: skip
    code, out, err = affect("report", run, "--verify", "--json")
    assert code == 1 and "differs" in out and "4 files are not what the runs were made from" in err and "full: config" in err
    assert {"what": "config", "state": "differs"}.items() <= json.loads(out.splitlines()[-1])[str(run)][0].items()
    moved = config.replace(str(swept[0].parent / "soft"), "elsewhere").replace("synthetic", "nowhere")
    (run / "config.yaml").write_text(moved)
    found = states(run)
    assert found["soft_labels"] == found["dataset"] == "not here"


def test_verify_reads_a_package(trained, package, tmp_path, affect):
    copy = shutil.copytree(trained, tmp_path / "copy")
    found = states(copy)
    assert found["package model.onnx"] == found["package of this run"] == found["config"] == found["dataset"] == "ok"
    assert affect("report", copy, "--verify")[0] == 0
    with (copy / "package" / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    made_from = json.loads((copy / "fingerprint.json").read_text())
    (copy / "fingerprint.json").write_text(json.dumps(made_from | {"index": "0" * 64, "git_commit": "another"}))
    assert {what for what, state in states(copy).items() if state == "differs"} == {
        "dataset", "package model.onnx", "package of this run"
    }  # fmt: skip


@pytest.mark.parametrize("break_it", ["nothing", "no folder", "broken metrics"])
def test_what_is_no_run_is_one_message(run, affect, tmp_path, break_it):
    folder = {"nothing": tmp_path, "no folder": tmp_path / "nowhere", "broken metrics": run}[break_it]
    if break_it == "broken metrics":
        (run / "xval_few" / "metrics.json").write_text("{}")
    code, _, err = affect("report", folder)
    assert code == 1 and err.startswith("error: ") and ("not a run" in err or "xval_few/metrics.json: not readable" in err)


def test_the_seeds_metrics_are_read(run):
    """It has neither rows nor dataset."""
    value = {"acc": 0.5, "macro_f1": 0.4, "bacc": 0.3}
    seed = {"8way": value, "present_only": value | {"present_idx": [0], "present_names": ["neutral"]}}
    (run / "xval_ckplus").mkdir()
    (run / "xval_ckplus" / "metrics.json").write_text(json.dumps(seed))
    assert external(run)["ckplus"].way == value


def test_an_older_run_keeps_its_digest(run):
    """Settings that came to be after a run was made are not in its file, and do not change what is computed of it."""
    lines = (run / "config.yaml").read_text().splitlines()
    kept = [line for i, line in enumerate(lines) if "chosen_on" not in line and "other: " not in line]
    assert len(kept) == len(lines) - 2
    (run / "config.yaml").write_text("\n".join(kept))
    assert states(run)["config"] == "ok"


@pytest.mark.slow
def test_a_set_that_chose_the_run_is_marked_where_it_is_evaluated(swept, affect, place, tmp_path):
    code, out, _ = affect("evaluate", swept[0] / "full", "--data", place / "other", "--out", tmp_path / "other")
    assert code == 0 and "other, val† (" in out and "†: the run's settings were chosen by this set" in out
    code, out, _ = affect(
        "evaluate", swept[0] / "full", "--npz", place / "few.npz", "--class-map", "ferplus", "--out", tmp_path / "few"
    )
    assert code == 0 and "†" not in out


@pytest.mark.slow
def test_an_alias_is_relative_replaced_only_as_a_link_and_resolves(swept, tmp_path, affect, place, monkeypatch):
    full = shutil.copytree(swept[0] / "full", tmp_path / "A3_full_100")
    bare = shutil.copytree(swept[0] / "ce_only", tmp_path / "ce_only")
    make_alias(check_alias(bare, "main"), bare)
    monkeypatch.setattr("affect.engine.pipeline.export_run", lambda folder: None)
    code, out, err = affect("train", full / "config.yaml", "--out", full, "--resume", "--alias", "main")
    link = tmp_path / "main"
    assert code == 0 and link.readlink().as_posix() == "A3_full_100" and f"{link} -> A3_full_100" in out
    (tmp_path / "real").mkdir()
    for name, message in (("real", "is there and is no link"), ("a/b", "without a path"), ("ce_only", "is there and is no link")):
        code, _, err = affect("train", full / "config.yaml", "--out", full, "--resume", "--alias", name)
        assert code == 1 and message in err
    code, out, _ = affect("report", link, "--verify")
    assert code == 0 and "main -> A3_full_100: emotion_student" in out
    assert "| A3_full_100" in affect("tables", link, "--out", tmp_path / "viz")[1]
    shutil.copy(swept[0] / "sweep.json", tmp_path)
    both = affect("tables", link, tmp_path, "--main", link, "--out", tmp_path / "viz")[1]
    assert both.count("| A3_full_100") == 1 and "A3_full_100 across datasets" in both  # a link and its run are one
    assert affect("tables", tmp_path, "--main", tmp_path / "viz", "--out", tmp_path / "viz")[0] == 1
    code, out, _ = affect("evaluate", link, "--data", place / "other", "--out", tmp_path / "e")
    assert code == 0 and "macro-F1" in out
    assert affect("calibrate", link, "--mode", "none")[0] == 0
    code, out, _ = affect("softlabels", link, "--data", place / "other", "--out", tmp_path / "soft2")
    assert code == 0 and "A3_full_100 (1)" in out
    shutil.rmtree(full)
    code, _, err = affect("train", swept[0] / "chosen.yaml", "--out", link)
    assert code == 1 and f"{link}: is a link to A3_full_100, which is not there" in err


def test_conda_is_exported_where_it_is(tmp_path, monkeypatch, capsys):
    conda = tmp_path / "bin" / "conda"
    conda.parent.mkdir()
    monkeypatch.setenv("PATH", f"{conda.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CONDA_PREFIX", "/envs/neurogaze")
    write_conda(tmp_path)
    assert not (tmp_path / "env_conda.yml").exists()  # no conda
    conda.write_text('#!/bin/sh\necho "name: neurogaze"; echo "# $@"\n')
    conda.chmod(0o755)
    write_conda(tmp_path)
    assert (tmp_path / "env_conda.yml").read_text() == "name: neurogaze\n# env export --prefix /envs/neurogaze\n"
    (tmp_path / "env_conda.yml").unlink()
    conda.write_text('#!/bin/sh\necho "no such environment" >&2; exit 3\n')
    write_conda(tmp_path)
    assert not (tmp_path / "env_conda.yml").exists() and "not written: " in (said := capsys.readouterr().err)
    assert "no such environment" in said
    monkeypatch.delenv("CONDA_PREFIX")
    write_conda(tmp_path)
    assert not capsys.readouterr().err


def test_switches_follow_the_configuration(place):
    run = load_config(str(place / "base.yaml"), ["loss.d_geo=null"])
    found = ablation(run, {"config": "c", "git_commit": "g", "prototypes": "p"})
    assert not found["switches"]["d_geo"] and "d_geo" not in found["weights"] and found["config"] == "c"


def test_an_alias_beside_a_real_folder_is_refused_before_training(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="is there and is no link"):
        check_alias(tmp_path / "run", "run")
    with pytest.raises(InputError, match="name of the run's folder"):
        check_alias(tmp_path / "new", "new")
