"""Runs side by side: every figure where it belongs, the best marked only where runs compare, LaTeX that is well formed."""

import json
import re
import sys

import numpy as np
import pytest

from affect.engine.calibration.temperature import fit_temperature
from affect.engine.cli.main import main
from affect.engine.metrics.classification import reliability, reliability_bins, softmax
from affect.engine.report.plots import confusion_plot, curves_plot, reliability_plot
from affect.engine.report.reliability import (
    REFERENCE_CLASSES,
    REFERENCE_TEACHERS,
    Row,
    latex,
    markdown,
    read_runs,
    reference_rows,
    table_of,
    write_tables,
)
from affect.shards.errors import InputError

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def scored(names, seed=0, count=300, mode="global"):
    """What a run writes of a model that is right more often than not."""
    random = np.random.default_rng(seed)
    target = np.eye(len(names))[random.integers(0, len(names), count)]
    logits = 4 * target + 3 * random.normal(size=target.shape)
    found = fit_temperature(logits, target, names, mode)
    after = reliability(found.apply(logits), target, names) | {"temperature": list(found.temperature)}
    value = {"epoch": 23, "split": "val", "label_protocol": "votes", "rows": count, "sources": {}}
    return value | {"raw": reliability(logits, target, names), "temperature_scaled": after}


@pytest.fixture
def run(tmp_path):
    """run("a", value) -> a folder with such a reliabilitymetrics.json."""

    def make(name, value):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        (folder / "reliabilitymetrics.json").write_text(json.dumps(value))
        return folder

    return make


def column(table, name):
    return [line[table.header.index(name)] for line in table.cells]


def test_each_figure_is_in_its_column(run):
    value = scored(FERPLUS)
    table = table_of(read_runs([run("RN18_seed1", value)]))
    raw, after = value["raw"], value["temperature_scaled"]
    want = {"run": "RN18_seed1", "T": f"{after['temperature'][0]:.3g}"}
    numbers = {"acc.": raw["accuracy"], "macro-F1": raw["macro_f1"], **raw["per_class_f1"], "NLL": raw["nll"], "ECE": raw["ece"]}
    numbers |= {"Brier": raw["brier"], "NLL scaled": after["nll"], "ECE scaled": after["ece"], "Brier scaled": after["brier"]}
    want |= {name: f"{number:.4f}" for name, number in numbers.items()}
    assert dict(zip(table.header, table.cells[0], strict=True)) == want


def test_classes_meet_by_canonical_name(run):
    affectnet = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Angry")
    table = table_of(read_runs([run("a", scored(FERPLUS)), run("b", scored(affectnet, seed=1))]))
    assert table.header[3:11] == list(FERPLUS)
    assert "–" not in column(table, "anger") and column(table, "contempt")[1:] == ["–"] * 4
    assert column(table, "anger")[2] == "0.7357"


def test_without_scaling_its_columns_are_dashes(run):
    table = table_of(read_runs([run("a", scored(FERPLUS) | {"temperature_scaled": None})]))
    assert [column(table, name)[0] for name in ("NLL scaled", "ECE scaled", "Brier scaled", "T")] == ["–"] * 4
    assert re.match(r"[\d.]+ to [\d.]+$", column(table_of(read_runs([run("v", scored(FERPLUS, mode="vector"))])), "T")[0])


@pytest.mark.parametrize(("split", "mark"), [("val", True), ("calib", False)])
def test_a_temperature_fitted_on_the_scored_split_is_marked(run, split, mark):
    folder = run("a", scored(FERPLUS))
    (folder / "calibration.json").write_text(json.dumps({"fitted_on": {"split": split, "rows": 300}}))
    table = table_of(read_runs([folder]))
    assert column(table, "T")[0].endswith("†") == ("fitted on the split that is scored" in " ".join(table.caption)) == mark
    assert ("$\\dagger$" in latex(table)) == mark and "†" not in latex(table)


def test_the_best_is_marked_among_runs_on_the_same_rows(run):
    folders = [run("a", scored(FERPLUS)), run("b", scored(FERPLUS, seed=1)), run("c", scored(FERPLUS, seed=2, count=299))]
    table = table_of(read_runs(folders))
    for j, name in enumerate(FERPLUS, start=3):
        values = [float(text) for text in column(table, name)[:2]]
        assert {i for i, at in table.best if at == j and i < 3} == {int(np.argmax(values))}
    assert "not to be compared" in " ".join(table.caption) and "299 rows, votes labels: c." in " ".join(table.caption)
    assert not [at for at in table_of(read_runs(folders[:1])).best if at[0] == 0]


@pytest.mark.parametrize(
    ("values", "marked"),
    [
        ((0.0, 0.0, 0.0), set()),
        ((0.7, 0.7, 0.7), set()),
        ((0.00001, 0.00002, 0.0), set()),  # all printed as 0.0000
        ((0.0, 0.1, 0.1), {1, 2}),
        ((0.9, 0.1, 0.1), {0}),
    ],
)
def test_where_all_are_equal_none_is_the_best(values, marked):
    rows = [Row(f"run{i}", "val", {"contempt": value}, {"acc.": 0.5, "macro-F1": 0.5}) for i, value in enumerate(values)]
    assert table_of(rows).best == {(i, 3) for i in marked}


def test_the_seeds_teachers_are_as_reported(run):
    rows = {row.name: row for row in reference_rows()}
    assert list(rows) == ["RN18", "B3", "CNXT"]
    for name, (overall, f1, *_) in REFERENCE_TEACHERS.items():
        assert overall[1] == pytest.approx(np.mean(f1), abs=1e-4)  # a typing error in one of them would show
        assert rows[name].f1["happiness"] == f1[3] and rows[name].temperature == (5.0,)
    table = table_of(read_runs([run("a", scored(FERPLUS))]))
    best = {table.header[j]: table.cells[i][0] for i, j in table.best}
    assert best["disgust"] == best["anger"] == "CNXT" and best["fear"] == "RN18" and set(best) == set(REFERENCE_CLASSES)


def test_animals_are_not_beside_faces(run):
    table = table_of(read_runs([run("mouse", scored(("stressed", "control")))]))
    assert len(table.cells) == 1 and table.header[3:5] == ["stressed", "control"] and "seeds" not in markdown(table)


def test_markdown_is_aligned(run):
    text = markdown(table_of(read_runs([run("a|b", scored(FERPLUS)), run("x" * 40, scored(FERPLUS, seed=1))])))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 + 1 + 3 and len({len(line) for line in lines}) == 1
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(lines[1].split("|")) - 1}
    assert "18,165 validation rows" in text and "clamped at 5.0" in text and "val, 300 rows, votes labels" in text


def test_latex_is_well_formed(run):
    text = latex(table_of(read_runs([run("[50%]_#1 & {a}~^$", scored(FERPLUS)), run("b", scored(FERPLUS, seed=1))])))
    bare = re.sub(r"\\[&%$#_{}]", "", re.sub(r"^%.*\n", "", text))  # neither escaped characters nor the comment
    assert not re.search(r"[%$#_^~–]", bare.replace("\\begin", ""))
    depth = np.cumsum([{"{": 1, "}": -1}.get(character, 0) for character in bare])
    assert depth.min() >= 0 and depth[-1] == 0
    assert re.findall(r"\\begin\{(\w+)\}", text) == ["table", "tabular", "tabular"]
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", bare, re.S):
        lines = [line for line in body.splitlines() if line.endswith("\\\\")]
        cells = {line.count("&") for line in lines if "multicolumn" not in line}
        assert cells == {len(columns) - 1} and len(lines) == 1 + 2 + 1 + 3
        assert f"\\multicolumn{{{len(columns)}}}" in body and "\\toprule" in body and "\\bottomrule" in body


def test_equal_folder_names_are_told_apart(run, tmp_path):
    value = scored(FERPLUS)
    rows = read_runs([run("a/run", value), run("b/run", value), run("c", value)])
    assert [row.name for row in rows] == [str(tmp_path / "a/run"), str(tmp_path / "b/run"), "c"]


def test_the_command_prints_and_writes(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["affect", "tables", str(run("a", scored(FERPLUS))), "--out", str(tmp_path / "viz")])
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr().out
    assert ended.value.code == 0 and (tmp_path / "viz/teachers.md").read_text() in out
    assert out.splitlines()[-1] == f"{tmp_path / 'viz/teachers.md'}, {tmp_path / 'viz/teachers.tex'}"


def test_every_folder_without_the_file_is_named(run, tmp_path):
    bare = run("bare", {})
    (bare / "reliabilitymetrics.json").unlink()
    with pytest.raises(InputError) as error:
        write_tables([run("a", scored(FERPLUS)), bare, tmp_path / "nowhere"], tmp_path / "viz")
    text = str(error.value)
    assert "2 of 3 folders" in text and f"affect calibrate {bare}" in text and "nowhere: not a folder" in text
    assert not (tmp_path / "viz").exists()


@pytest.mark.parametrize("value", [{}, [], {"raw": 3, "temperature_scaled": None}, {"raw": {}, "temperature_scaled": {}}])
def test_a_broken_file_is_one_message(run, value):
    with pytest.raises(InputError, match="not readable as reliabilitymetrics.json"):
        read_runs([run("a", value)])


@pytest.mark.slow
def test_plots_are_written(tmp_path):
    random = np.random.default_rng(0)
    bins = reliability_bins(softmax(random.normal(size=(50, 8))), random.integers(0, 2, 50))
    reliability_plot(bins, None, tmp_path / "one.png")
    reliability_plot(bins, bins, tmp_path / "two.png")
    confusion_plot(np.array([[3, 0], [1, 2]]), ("a", "b"), tmp_path / "present.png", title="classes that occur")
    val = {"accuracy": 0.5, "macro_f1": 0.4, "nll": 1.2}
    for name, extra in {"bare": {}, "rate": {"lr": 1e-3}, "both": {"lr": 1e-3, "margin": 0.1}}.items():
        lines = [{"epoch": 0, "train_loss": 1.0, "val": val}, {"epoch": 1, "train_loss": 0.9, "val": val} | extra]
        curves_plot(lines, tmp_path / f"{name}.png", best=1)
    assert len(list(tmp_path.glob("*.png"))) == 6
