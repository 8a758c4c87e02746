"""Sweeps: what is planned, refused, trained once, chosen, and by which sets."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from affect.engine.config.load import load_config
from affect.engine.report.paper import Sweep, write_all
from affect.engine.report.render import markdown
from affect.engine.report.run_figures import chosen_on
from affect.engine.report.sweeps import sweep_plot, sweep_table
from affect.engine.runs.folder import state_of
from affect.engine.sweep import run_sweep as sweeping
from affect.engine.sweep.run_sweep import sweep
from affect.engine.sweep.sweep_plan import plan
from affect.shards.errors import InputError


def test_a_grid_is_all_combinations_and_null_switches_off(write, tmp_path):
    grid = {"optim.lr": ["1e-3", 2e-3], "loss.d_geo": [None, {"schedule": "constant"}]}
    found = plan(write("a", grid=grid, points={"base": {}}, seeds=[1, 2], set={"optim.epochs": 3}), ["optim.ema=.5"], tmp_path)
    assert [point.name for point in found.points][:3] == ["base", "optim.lr=0.001,loss.d_geo=off", found.points[2].name]
    assert len(found.points) == 5 and len(found.runs) == 10
    assert {(r.run.optim.epochs, r.run.optim.ema) for r in found.runs} == {(3, 0.5)}
    by_name = {planned.folder.name: planned.run for planned in found.runs}
    run = by_name["optim.lr=0.001,loss.d_geo=off_seed2"]
    assert (run.optim.lr, run.seed) == (1e-3, 2)
    assert "d_geo" not in run.loss.terms and "d_geo" in by_name["base_seed1"].loss.terms


BAD = [
    ({"grid": {"loss.d_geo.wieght": [1, 2]}}, [], "loss.d_geo.wieght: unknown key; did you mean 'weight'"),
    ({"points": {"a": {"optim.lr": -1}, "b": {"optim.epochs": 0}}}, [], r"a: optim.lr: .*(?s:.*)b: optim.epochs: "),
    ({"gird": {}}, [], "gird: unknown key; did you mean 'grid'"),
    ({}, [], "nothing to compare"),
    ({"base": None}, [], "base: "),
    ({"grid": {"optim.lr": []}}, [], "grid.optim.lr: no values"),
    ({"points": {"../a": {}}}, [], "names a folder"),
    ({"points": {"a": {}}, "seeds": [1], "set": {"seed": 2}}, [], "seed is set, too"),
    ({"points": {"a": {}}, "select_on": []}, [], "select_on: "),
    ({"points": {"a": {}}, "select_on": ["valid"]}, [], "expected val, the runs' own validation, or NAME: path"),
    ({"points": {"a": {}}, "select_on": ["val", "val"]}, [], "val: is named twice"),
    ({"points": {"a": {}}, "report_on": [{"other": "elsewhere"}]}, [], "other is in select_on and in report_on"),
    (
        {"points": {"a": {}}, "report_on": [{"again": "{place}/other"}]},
        [],
        "other and again, the same rows, are in select_on and",
    ),
    ({"points": {"a": {}}, "select_on": ["val"], "report_on": [{"v": "{data}"}]}, [], "val and v, the same rows"),
    ({"points": {"a": {}}, "report_on": [{"t": {"path": "{data}", "split": "train"}}]}, [], "t: .*#train is trained on"),
    ({"points": {"a": {"optim.lr": 1e-3}}}, ["optim.lr=1"], "--set optim.lr: differs between the points"),
    ({"points": {"a": {}}, "base": "nowhere"}, [], "base: nowhere: no such file or config"),
    ({"points": {"d_geo.weight=1": {}}, "grid": {"loss.d_geo.weight": [1]}}, [], "two points are called d_geo.weight=1"),
]


@pytest.mark.parametrize(("keys", "settings", "message"), BAD)
def test_what_cannot_be_meant_is_refused_before_anything_runs(write, place, synthetic, tmp_path, keys, settings, message):
    keys = json.loads(json.dumps(keys).replace("{place}", str(place)).replace("{data}", str(synthetic)))
    with pytest.raises(InputError, match=message):
        plan(write("bad", **keys), settings, tmp_path)


def test_a_problem_of_all_points_is_said_once(write, tmp_path):
    with pytest.raises(InputError) as error:
        plan(write("bad", points={"a": {}, "b": {}}, set={"optim.epochs": 0}), [], tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_missing_files_are_all_named_before_the_first_run(write, affect, tmp_path):
    settings = {"loss.proto_kd.prototypes": "no.npz", "loss.teacher.soft_labels": "no_soft"}
    path = write("missing", points={"a": settings}, select_on=[{"nowhere": "no_data"}, {"file": "no.csv"}])
    code, out, err = affect("sweep", path, "--out", tmp_path / "out")
    for text in (
        "4 problems",
        "no.npz is not there",
        "no_soft/softlabels.npz is not",
        "nowhere: no_data",
        "file: no.csv: no such",
    ):
        assert text in err
    assert code == 1 and not (tmp_path / "out").exists()
    code, out, err = affect("sweep", path, "--out", tmp_path / "out", "--dry-run")
    assert code == 1 and f"{tmp_path / 'out' / 'a'}: new; " in out and "chosen by: nowhere†, file†" in out


def test_the_best_over_the_sets_that_choose_is_chosen(swept):
    out, _, printed = swept
    found = json.loads((out / "sweep.json").read_text())
    for point in found["points"]:
        (run,) = point["runs"]
        for name in ("other", "few"):
            metrics = json.loads((out / run["folder"] / f"xval_{name}" / "metrics.json").read_text())
            assert run["figures"][name]["8way"] == metrics["8way"] and run["figures"][name]["rows"] == metrics["rows"]
        own = json.loads((out / run["folder"] / "metrics.json").read_text())
        assert run["figures"]["val"]["present_only"]["acc"] == own["present_only"]["acc"]
        assert point["score"] == run["figures"]["other"]["present_only"]["macro_f1"]
    best = max(found["points"], key=lambda point: point["score"])
    assert found["chosen"] == best["name"] and f"chosen: {best['name']}" in printed
    assert "other† macro-F1" in printed and "val‡" in printed and "few macro-F1" in printed
    assert (out / "sweep.png").stat().st_size > 5000


def test_the_sets_that_chose_stay_in_the_chosen_settings_and_in_every_run(swept, place):
    out, *_ = swept
    want = {"other": f"{place / 'other'}#val"}
    assert load_config(str(out / "chosen.yaml")).chosen_on == want
    assert chosen_on(out / "full") == chosen_on(out / "ce_only") == want
    run = load_config(str(out / "full" / "config.yaml"))
    assert run.digest == json.loads((out / "full" / "fingerprint.json").read_text())["config"]


def test_what_is_done_is_not_done_again_and_what_is_not_is_resumed(swept, tmp_path, monkeypatch, capsys):
    out, config, _ = swept
    copy = shutil.copytree(out, tmp_path / "out")
    (copy / "ce_only" / "last.onnx").unlink()
    shutil.rmtree(copy / "full" / "xval_few")
    calls = []

    def train(run, folder, *, resume):
        calls.append((folder.name, resume))
        (folder / "last.onnx").touch()

    monkeypatch.setattr(sweeping, "train", train)
    evaluated = []
    monkeypatch.setattr(sweeping, "_evaluate", lambda folder, found, out, _: evaluated.append(out) or shutil.copytree(
        swept[0] / "full" / "xval_few", out, dirs_exist_ok=True))  # fmt: skip
    again = sweep(plan(config, [], copy))
    assert calls == [("ce_only", True)] and evaluated == [copy / "full" / "xval_few"]
    assert again == json.loads((out / "sweep.json").read_text()) == json.loads((copy / "sweep.json").read_text())
    said = capsys.readouterr().err
    assert "1 of 2: full is there and finished: not trained again" in said and "2 of 2: ce_only is resumed" in said
    with pytest.raises(InputError, match="optim.lr: 0.002 in the run, 0.5 now"):
        sweep(plan(config, ["optim.lr=.5"], copy))


def test_another_file_under_the_same_name_is_refused(swept, place, tmp_path):
    out, config, _ = swept
    copy = shutil.copytree(out, tmp_path / "out")
    made_from = json.loads((copy / "full" / "fingerprint.json").read_text()) | {"prototypes": "0" * 64}
    (copy / "full" / "fingerprint.json").write_text(json.dumps(made_from))
    with pytest.raises(InputError, match=r"loss.proto_kd.prototypes: .*is another file by now"):
        sweep(plan(config, [], copy))


def test_a_point_that_fails_does_not_end_the_others(write, affect, tmp_path, monkeypatch):
    value = {"acc": 0.5, "macro_f1": 0.4, "bacc": 0.5}
    figures = {name: {"8way": value, "present_only": value, "rows": 9} for name in ("val", "other")}

    def done(planned, plan, state):
        if planned.point.name == "wild":
            raise InputError("loss: total is not finite")
        return {"seed": 1, "score": 0.4, "figures": figures, "switches": []}

    monkeypatch.setattr(sweeping, "_done", done)
    code, out, err = affect("sweep", write("w", points={"wild": {"optim.lr": 9}, "tame": {}}), "--out", tmp_path / "out")
    assert code == 1 and "1 of 2 runs failed: wild" in err and "chosen: tame" in out and "wild (failed)" in out


def test_an_interrupt_keeps_what_is_finished(write, affect, tmp_path, monkeypatch):
    value = {"acc": 0.5, "macro_f1": 0.4, "bacc": 0.5}

    def done(planned, plan, state):
        if planned.point.name == "b":
            raise KeyboardInterrupt
        figures = {name: {"8way": value, "present_only": value, "rows": 9} for name in ("val", "other")}
        return {"seed": 1, "score": 0.4, "figures": figures, "switches": []}

    monkeypatch.setattr(sweeping, "_done", done)
    code, *_ = affect("sweep", write("i", points={"a": {}, "b": {}}), "--out", tmp_path / "out")
    held = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert code == 130 and held["chosen"] is None and [len(point["runs"]) for point in held["points"]] == [1, 0]


def grid(scores, seeds=1):
    """A sweep.json over a weight, with the scores of its points."""
    points = []
    for weight, score in scores.items():
        runs = []
        for seed in range(seeds):
            value = {"acc": score + 0.1, "macro_f1": score + 0.01 * seed, "bacc": score}
            figures = {name: {"8way": value, "present_only": value, "rows": 100} for name in ("a_b", "val")}
            runs.append({"folder": "x", "seed": seed, "score": value["macro_f1"], "switches": [], "figures": figures})
        point = {"name": f"weight={weight}", "settings": {"loss.d_geo.weight": weight}, "runs": runs}
        points.append(point | {"score": float(np.mean([r["score"] for r in runs])), "deviation": 0.01 if seeds > 1 else None})
    best = max(points, key=lambda point: point["score"])["name"]
    return {
        "sweep": "s", "grid": {"loss.d_geo.weight": list(scores)}, "seeds": list(range(seeds)), "score": "mean",
        "sets": {"a_b": "d#val"}, "select_on": ["a_b"], "report_on": [], "points": points, "chosen": best,
    }  # fmt: skip


def test_seeds_are_mean_and_deviation(tmp_path):
    found = grid({0.006: 0.5, 0.012: 0.6}, seeds=3)
    text = markdown(sweep_table(found))
    assert "0.5100 ± 0.0100" in text and "**weight=0.012**" in text and "over 3 seeds" in text
    sweep_plot(found, tmp_path / "a.png")
    sweep_plot(grid({0.001: 0.5, 1: 0.6}), tmp_path / "b.png")
    assert len(list(tmp_path.glob("*.png"))) == 2
    (tmp_path / "sweep.json").write_text(json.dumps(found))
    _, paths = write_all([tmp_path], tmp_path / "viz")
    assert "± 0.0100" in (tmp_path / "viz" / "ablation_lite.md").read_text() and len(paths) == 4


def test_tables_come_from_sweep_json_alone(swept, tmp_path):
    shutil.copy(swept[0] / "sweep.json", tmp_path)
    text, paths = write_all([tmp_path], tmp_path / "viz")
    assert {path.name for path in paths} == {
        f"{name}.{kind}" for name in ("xval_main", "ablation_lite") for kind in ("md", "tex")
    }
    assert re.search(r"\| other† +\| +\d+ \|", text) and re.search(r"\| val‡", text) and "Δ to full" in text
    full, bare = json.loads((tmp_path / "sweep.json").read_text())["points"]
    ways = [point["runs"][0]["figures"]["val"]["8way"] for point in (full, bare)]
    drop = f"{100 * (ways[1]['acc'] - ways[0]['acc']):+.2f}".replace("-", "−")
    assert re.search(rf"\| ce_only .*{re.escape(drop)} ", text)
    assert Sweep.read(tmp_path).variants[0].terms == ("kd_mse", "proto_kd", "d_geo")


def test_the_papers_tables_are_whole_latex_documents(swept, tmp_path):
    write_all([swept[0]], tmp_path)
    for name in ("xval_main", "ablation_lite"):
        text = (tmp_path / f"{name}.tex").read_text()
        bare = re.sub(r"\\[&%$#_{}]", "", re.sub(r"(?m)^%.*\n", "", text))
        bare = re.sub(r"\$\\?[\w-]+\$|\\label\{\w+:\w+\}", "", re.sub(r"%\n", "\n", bare))
        assert text.isascii() and not re.search(r"[%$#_^~]", bare.replace("@nodocument", ""))
        depth = np.cumsum([{"{": 1, "}": -1}.get(character, 0) for character in bare])
        assert depth.min() >= 0 and depth[-1] == 0
        (columns, body), = re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", bare, re.S)  # fmt: skip
        lines = [line for line in body.splitlines() if line.endswith("\\\\")]
        assert {line.count("&") for line in lines[1:]} == {len(columns) - 1}
        spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", lines[0])]
        assert sum(spans) == len(columns) and text.count("\\begin{document}") == text.count("\\end{document}") == 1
        assert text.index("\\documentclass") < text.index("\\fi") < text.index("\\begin{table}")


def test_a_run_and_the_sweep_that_chose_its_settings(swept, tmp_path):
    """The long run of the seed: trained apart, evaluated on sets of which one has chosen."""
    out, *_ = swept
    long = shutil.copytree(out / "full", tmp_path / "long")
    config = yaml.safe_load((long / "config.yaml").read_text()) | {"chosen_on": {}}
    (long / "config.yaml").write_text(yaml.safe_dump(config))
    assert "other† " not in write_all([long], tmp_path / "a")[0]
    text, _ = write_all([long, out], tmp_path / "b")
    assert "other† " in text and "long across datasets" in text
    (long / "config.yaml").write_text(yaml.safe_dump(config | {"chosen_on": {"ck": str(Path(out.parent / "other")) + "#val"}}))
    assert "other† " in write_all([long], tmp_path / "c")[0]


def test_states(swept, tmp_path):
    planned = plan(swept[1], [], swept[0]).runs[0]
    assert state_of(planned.folder) == "finished" and state_of(plan(swept[1], [], tmp_path).runs[0].folder) == "new"


def test_the_shipped_sweeps_are_those_of_the_seed(tmp_path):
    weights = [planned.run.loss.terms["d_geo"].weight for planned in plan("sweep_dgeo", [], tmp_path).runs]
    assert 0.012 in weights and min(weights) == 0.006 and max(weights) == 0.024
    terms = {planned.point.name: set(planned.run.loss.terms) for planned in plan("sweep_ablation", [], tmp_path).runs}
    full = {"kd_mse", "proto_kd", "d_geo"}
    assert terms == {
        "A3_full": full, "no_dgeo": full - {"d_geo"}, "no_proto": full - {"proto_kd"}, "no_kd": full - {"kd_mse"},
        "ce_only": set(),
    }  # fmt: skip
