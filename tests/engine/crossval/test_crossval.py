"""Cross-validation: folds that are trained once, gone on with, judged on what they held out; the sweep of scalars."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from affect.engine import pipeline as complete
from affect.engine.crossval import run_folds as crossfolds
from affect.engine.crossval.crossval_report import report
from affect.engine.crossval.held_out import concat, load
from affect.engine.crossval.plan import goes_on, plan
from affect.engine.report.pain import out_of_fold
from affect.engine.runs.folder import read_history
from affect.engine.training import trainer as training
from affect.engine.training.early_stopping import best_epoch
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.frames import chosen
from affect.shards.sources.pain import PainSource
from affect.shards.synthetic.cattle import write_cattle

pytestmark = pytest.mark.slow  # what is tested is trained and exported first

FOLDS = (0, 1, 2)


@pytest.fixture(scope="session")
def cattle(tmp_path_factory):
    """40 clips of 4 animals, one of which is tested: 3 folds."""
    place = tmp_path_factory.mktemp("cattle")
    drawn = write_cattle(place / "raw", animals=4, clips=40, size=40, frames=3)
    pack(PainSource(drawn.labels, place / "raw", drawn.splits, chosen(3), fps=25), place / "cattle")
    return place / "cattle"


@pytest.fixture(scope="session")
def tiny(cattle):
    values = {
        "data.dataset": cattle, "data.batch_size": 8, "data.clip.frames": 3, "data.clahe": "null", "data.loader": "plain",
        "model.image_size": 32, "model.temporal.hidden": 8, "train.precision": "off", "train.track": "[]", "optim.epochs": 2,
    }  # fmt: skip
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")  # of a session it would hold for all other tests
def quick():
    """Without graphs and plots, which take longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complete, "export_run", lambda folder: (folder / "last.onnx").touch())
        for name in ("curves_plot", "reliability_plot", "output_plot"):
            patch.setattr(f"affect.engine.evaluation.run_reports.{name}", lambda *_: None)
        patch.setattr("affect.engine.evaluation.class_figures.confusion_plot", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def ran(tiny, quick, tmp_path_factory):
    """The folder of a cross-validation under the old settings, gone on with under the new ones, with a specialist."""
    out = tmp_path_factory.mktemp("crossval") / "out"
    assert not crossfolds.train_folds(plan("pain_v1", tiny, out))
    later = ["continue", "finetune", "specialist"]
    settings = [*tiny, "optim.epochs=3", "data.augment.blur=null"]
    assert not crossfolds.train_folds(plan("pain_v2", settings, out, strategies=later))
    return out, *report(out)


def sides(run, dataset):
    """The animals that a run trained on, and those of its out-of-fold predictions."""
    held_out = load(run / "out_of_fold.npz")[0]
    rows = json.loads((run / "alignmentreport.json").read_text())["rows"]
    return set(held_out.group.tolist()), rows, held_out


def test_each_clip_is_predicted_once_by_the_fold_that_held_its_animal_out(ran, cattle):
    out, _, _ = ran
    dataset = Dataset(cattle)
    for strategy in ("all", "continue", "specialist"):
        found = out_of_fold.load(out / strategy / "answers.npz")
        assert sorted(found.sample) == np.flatnonzero(dataset.column("split") == "train").tolist()
        assert (found.fold == dataset.column("meta.fold")[found.sample]).all()
    for fold in FOLDS:
        animals, rows, held_out = sides(out / "all" / f"fold{fold}", dataset)
        assert len(animals) == 1 and rows["train"] == 30 - len(held_out.sample) == 20 and rows["val"] == 10


def test_the_training_mean_is_of_the_other_animals(ran, cattle):
    found, dataset = out_of_fold.load(ran[0] / "all" / "answers.npz"), Dataset(cattle)
    fold, moment, total = dataset.column("meta.fold"), dataset.column("meta.moment"), dataset.targets("pain")[:, -1]
    for i in (0, 11, 29):
        others = ~np.isnan(fold) & (fold != found.fold[i])
        assert found.train_mean[i, -1] == pytest.approx(total[others].mean())
        assert found.train_moment_mean[i, -1] == pytest.approx(total[others & (moment == found.moment[i])].mean())


def best_epochs(strategy):
    """Fold -> the epoch whose model predicts."""
    return {fold: best_epoch(read_history(strategy / f"fold{fold}"), "total_mae") for fold in FOLDS}


def test_the_report_compares_all_strategies(ran):
    out, text, figures = ran
    for part in (
        "all",
        "continue",
        "specialist",
        "finetune†",
        "all + specialist",
        "uses the true moment",
        "training mean",
        "MAE of M2",
    ):
        assert part in text
    best = [best_epochs(out / name) for name in ("all", "continue")]
    better = sum(best[0][fold] != best[1][fold] for fold in FOLDS)
    assert "finetune† |" in text.split("# Criteria")[1] and "specialist: trained on a part of the clips" in text
    assert f"continue: {better} of 3 folds" in text and ("predict as before" in text) == (better < 3)
    assert "oracle" not in text.split("# Criteria")[1].split("# Test")[0]
    assert figures["strategies"]["all"]["least_epochs"] == 2 and figures["strategies"]["continue"]["least_epochs"] == 3
    assert "mean of 3 folds" in text and "Test animals" in text
    assert (out / "report" / "pain.md").is_file() and (out / "report" / "continue" / "pain.md").is_file()


def test_a_continued_fold_has_the_history_it_came_from(ran):
    out = ran[0]
    for fold in FOLDS:
        before, after = (read_history(out / name / f"fold{fold}") for name in ("all", "continue"))
        assert after[:2] == before and len(after) == 3
        came = json.loads((out / "continue" / f"fold{fold}" / "alignmentreport.json").read_text())["init_from"]
        assert came["path"] == str(out / "all" / f"fold{fold}" / "checkpoint_last.pt") and came["epochs"] == 2


def test_fine_tuning_takes_the_best_fold_gently(ran):
    out = ran[0]
    (run,) = (out / "finetune").glob("fold*")
    value = yaml.safe_load((run / "config.yaml").read_text())
    best = {fold: min(line["val"]["total_mae"] for line in read_history(out / "all" / f"fold{fold}")) for fold in FOLDS}
    assert value["data"]["fold"] == min(best, key=best.get) and value["optim"]["lr"] == 1e-5 and value["optim"]["epochs"] == 10
    assert value["loss"]["scalars"]["moments"] == {"M2": 3.5, "M3": 1.5}


def test_what_is_finished_is_not_trained_again(ran, tiny, monkeypatch, capsys):
    monkeypatch.setattr(crossfolds, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("affect.engine.crossval.held_out.predict", lambda *_: pytest.fail("asked again"))
    assert not crossfolds.train_folds(plan("pain_v1", tiny, ran[0]))
    assert report(ran[0])[0] == ran[1]
    assert capsys.readouterr().err.count("finished: not trained again") == 3


def test_killed_and_started_again_is_as_never_killed(ran, tiny, quick, tmp_path, monkeypatch):
    planned = plan("pain_v1", tiny, tmp_path / "out", folds="0,1")
    step = training.Trainer.step

    def killed(self, batch):
        if self.run.data.fold == 1 and self.state.step == 4:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            crossfolds.train_folds(planned)
    before = (tmp_path / "out/all/fold0/best.pt").stat().st_mtime_ns
    text, _ = report(tmp_path / "out")
    assert "Folds 1, 2 are not there yet" in text
    assert not crossfolds.train_folds(planned)
    assert (tmp_path / "out/all/fold0/best.pt").stat().st_mtime_ns == before
    a, b = (torch.load(out / "all/fold1/checkpoint_last.pt") for out in (ran[0], tmp_path / "out"))
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_a_fold_that_fails_does_not_end_the_others(tiny, quick, tmp_path, monkeypatch):
    fit = complete.fit

    def failing(run, *arguments, **options):
        if run.data.fold == 0:
            raise InputError("loss: total is not finite since step 1")
        return fit(run, *arguments, **options)

    monkeypatch.setattr(complete, "fit", failing)
    settings = [*tiny, "optim.epochs=1"]
    assert crossfolds.train_folds(plan("pain_v1", settings, tmp_path / "out", folds="0,2")) == ["all/fold0"]
    assert (tmp_path / "out/all/fold2/last.onnx").is_file()


def test_settings_that_suit_no_fold_leave_nothing_behind(tiny, tmp_path):
    with pytest.raises(InputError, match="nothing was trained, 2 of 2 runs failed"):
        crossfolds.train_folds(plan("pain_v1", [*tiny, "loss.scalars.moments={M9: 2}"], tmp_path / "out", folds="0,2"))
    assert not (tmp_path / "out").exists()


SHORT = ["optim.epochs=4", "optim.lr=1e-3", "optim.warmup_epochs=1"]
STOPPED = "optim.early_stopping={patience: 1, min_delta: 1e9, min_epochs: 2}"  # after two epochs


@pytest.fixture(scope="module")
def stopped(train, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    train([*settings, *SHORT, STOPPED], out)
    assert len(read_history(out)) == 2
    return out


@pytest.fixture(scope="module")
def whole(train, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    train([*settings, *SHORT], out)
    return out


def same_run(a, b):
    one, other = (torch.load(out / "checkpoint_last.pt") for out in (a, b))
    assert one["step"] == other["step"] and one["best"] == other["best"]
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    for key, state in one["optimizer"]["state"].items():
        assert all(torch.equal(state[name], other["optimizer"]["state"][key][name]) for name in state)
    assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]
    assert [line["val"] for line in read_history(a)] == [line["val"] for line in read_history(b)]


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("killed", [None, "copy_whole", "write_json", "save"])
def test_going_on_equals_never_having_stopped(train, settings, stopped, whole, tmp_path, monkeypatch, killed):
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(training, killed, interrupted)
            with pytest.raises(KeyboardInterrupt):
                train([*settings, *SHORT], tmp_path / "run", continue_from=stopped)
    resume = (tmp_path / "run" / "config.yaml").is_file()
    train([*settings, *SHORT], tmp_path / "run", continue_from=stopped, resume=resume)
    same_run(tmp_path / "run", whole)
    assert len(read_history(stopped)) == 2  # is left as it was


def test_going_on_takes_the_new_rate_and_decay(train, settings, stopped, tmp_path):
    train([*settings, *SHORT, "optim.lr=5e-4", "optim.weight_decay=0.3"], tmp_path / "run", continue_from=stopped)
    groups = torch.load(tmp_path / "run/checkpoint_last.pt")["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert max(line["lr"] for line in read_history(tmp_path / "run")[2:]) < 5e-4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.optimizer=sgd", "optim.optimizer: adamw there, sgd here"),
        ("optim.select_by=accuracy", "optim.select_by: macro_f1 there, accuracy here"),
        ("data.folds.count=2", "data.folds: None there, .*count=2"),
        ("optim.ema=0.9", "optim.ema: False there, True here"),
        ("model.backbone=small_cnn", "model: test_resnet there, small_cnn here"),
    ],
)
def test_what_cannot_be_gone_on_with_says_why(train, settings, stopped, tmp_path, setting, message):
    with pytest.raises(InputError, match=message):
        train([*settings, *SHORT, setting], tmp_path / "run", continue_from=stopped)


def test_a_run_that_stopped_within_an_epoch_is_finished_first(train, settings, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "half")
    state = torch.load(stopped / "checkpoint_last.pt")
    state["meter"]["steps"] = 3
    torch.save(state, tmp_path / "half" / "checkpoint_last.pt")
    with pytest.raises(InputError, match="stopped within an epoch; let it finish first"):
        train([*settings, *SHORT], tmp_path / "run", continue_from=tmp_path / "half")


@pytest.mark.parametrize(
    ("rule", "epochs", "why"),
    [
        ("null", 4, "after 2 of 4 epochs"),
        ("null", 2, ""),
        ("{patience: 1, min_delta: 1e9, min_epochs: 3}", 4, "before min_epochs 3"),
        ("{patience: 1, min_delta: 1e9, min_epochs: 0}", 4, ""),
        ("{patience: 2, min_delta: 1e9, min_epochs: 0}", 4, "before patience 2"),
    ],
)
def test_a_fold_goes_on_where_the_new_settings_would_not_have_ended_it(settings, stopped, rule, epochs, why):
    from affect.engine.config.load import load_config

    found = goes_on(stopped, load_config("smoke", [*settings, f"optim.epochs={epochs}", f"optim.early_stopping={rule}"]))
    assert why in found and bool(found) == bool(why)


BAD = [
    (["--folds", "0,7"], "--folds 0,7: there is no fold '7'; there are: 0, 1, 2"),
    (["--folds", "a"], "no fold 'a'"),
    (["--strategy", "continu"], "--strategy continu: unknown; did you mean 'continue'"),
    (["--set", "data.fold=1"], "choose folds by --folds 1"),
    (["--set", "data.folds.count=9"], "count: 9 makes 9 folds of 3 values of group"),
    (["--set", "data.folds={count: 2, leave: 1}"], "give one of count, leave, file; found count and leave"),
    (["--strategy", "finetune"], "fold0 is not there; train the folds first"),
    (["--strategy", "continue", "--from", "nowhere"], "nowhere/all/fold0 is not there"),
    (["--strategy", "specialist", "--specialist", "smoke"], "expected task pain_clip"),
    (["--report"], "not the folder of a cross-validation"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_meant_is_refused(affect, tiny, tmp_path, options, message):
    settings = [part for setting in tiny for part in ("--set", setting)]
    code, _, err = affect("crossval", "pain_v1", *settings, *options, "--out", tmp_path / "out")
    assert code == 1 and message in err
    assert not (tmp_path / "out" / "all").exists()


def test_other_settings_or_data_in_a_folder_are_refused(ran, tiny, synthetic):
    with pytest.raises(InputError, match=r"3 folds were begun with other settings:(?s:.*)optim.lr: 0.0001 in the run, 0.001 now"):
        crossfolds.train_folds(plan("pain_v1", [*tiny, "optim.lr=1e-3"], ran[0]))
    with pytest.raises(InputError, match="is another cross-validation:\n  folds: "):
        crossfolds.train_folds(
            plan("pain_v1", [*tiny, "data.folds.count=2"], ran[0], strategies=["specialist"], specialist="pain_v1")
        )


def test_the_decision_is_in_words_and_by_training_clips(ran, affect, cattle):
    code, out, _ = affect("evaluate", ran[0], "--fold", "1", "--json")
    assert code == 0 and "retrain" in out and "sensitivity" in out
    found = json.loads(out.splitlines()[-1])
    held_out, trained = load(ran[0] / "all/fold1/test.npz")[0], load(ran[0] / "all/fold1/trained.npz")[0]
    assert set(held_out.group) == {"cow03"} and not set(trained.group) & (set(held_out.group) | {"cow01"})
    assert len(found["cut_off"]) == 1 and found["rows"] == 10 and found["least_epochs"] == 2
    assert affect("evaluate", ran[0] / "continue", "--fold", "1")[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [(["--fold", "9"], 1, "fold 9 of all is not there"), (["--fold", "1", "--data", "x"], 2, "leave --data out")],
)
def test_a_decision_needs_a_fold_and_nothing_else(ran, affect, options, code, message):
    got, _, err = affect("evaluate", ran[0], *options)
    assert got == code and message in err
    code, _, err = affect("evaluate", ran[0].parent, "--fold", "1")
    assert code == 1 and f"{ran[0].parent}: not the folder" in err  # what was asked for, not the folder above it


def test_the_dry_run_tells_memory_and_time_and_keeps_nothing(affect, tiny, ran, tmp_path):
    settings = [part for setting in tiny for part in ("--set", setting)]
    code, out, _ = affect("crossval", "pain_v1", *settings, "--dry-run", "--out", tmp_path / "out", "--strategy", "all")
    assert code == 0 and "a step on 8 samples" in out and "GiB" in out and "all: 3 folds, 6 to 6 epochs" in out
    assert not (tmp_path / "out").exists()


def test_outputs_of_any_kind_are_pooled(settings, quick, tmp_path):
    settings = [*settings, "data.folds={count: 2, stratify: emotion}", "optim.epochs=1", "train.track=[]"]
    assert not crossfolds.train_folds(plan("smoke", settings, tmp_path / "out"))
    text, figures = report(tmp_path / "out")
    pooled, each = figures["all"]["pooled"], figures["all"]["each"]
    held_out, _ = load(tmp_path / "out/all/answers.npz")
    assert set(held_out.fold) == {0, 1} and not set(held_out.group[held_out.fold == 0]) & set(held_out.group[held_out.fold == 1])
    hits = held_out.values["emotion"].argmax(1) == held_out.targets["emotion"].argmax(1)
    assert pooled["accuracy"] == pytest.approx(hits.mean()) and each[0]["accuracy"] == pytest.approx(
        hits[held_out.fold == 0].mean()
    )
    assert "training mean" in text


def test_a_sample_held_out_twice_is_an_error(ran):
    held_out = load(ran[0] / "all/fold0/out_of_fold.npz")[0]
    with pytest.raises(InputError, match="10 samples are held out by more than one fold"):
        concat([held_out, held_out])


def test_a_sweep_of_scalars_chooses_by_their_error(affect, tiny, quick, tmp_path):
    settings = [part for setting in tiny for part in ("--set", setting)]
    points = {"slow": {"optim.lr": 1e-6}, "fast": {"optim.lr": 1e-2}}
    value = {"base": "pain_v1", "points": points, "folds": [0, 2], "select_on": ["val"]}
    value["select_by"] = "outputs.pain.scalars.total.mae"
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(value))
    code, out, _ = affect("sweep", tmp_path / "sweep.yaml", *settings, "--out", tmp_path / "out", "--json")
    found = json.loads(out.splitlines()[-1])
    scores = {point["name"]: point["score"] for point in found["points"]}
    assert code == 0 and found["chosen"] == min(scores, key=scores.get)
    assert [run["folder"] for point in found["points"] for run in point["runs"]][:2] == ["fast_fold0", "fast_fold2"]
    assert yaml.safe_load((tmp_path / "out" / "chosen.yaml").read_text())["data"]["fold"] is None
    value["select_by"] = "outputs.pain.scalars.total.mea"
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(value))
    code, _, err = affect("sweep", tmp_path / "sweep.yaml", *settings, "--out", tmp_path / "out")
    assert code == 1 and "outputs.pain.scalars.total.mae" in err


def test_the_ladder_ends_at_the_recommended_settings():
    from affect.engine.config.load import load_config
    from affect.engine.sweep.sweep_plan import plan as sweep_plan

    runs = {one.point.name: one.run for one in sweep_plan("sweep_pain_ladder", [], None).runs}
    for name, config in (("v1", "pain_v1"), ("v2", "pain_v2")):
        want, got = (run.model_dump() | {"name": ""} for run in (load_config(config), runs[name]))
        assert got["data"].pop("fold") is not None and want["data"].pop("fold") is None
        assert got == want
