"""Soft labels are the teachers' logits, by row and by name, weighted as asked; what cannot be computed leaves nothing behind."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from affect.engine.calibration.calibration import CALIBRATION, fixed
from affect.engine.distill import softlabels as module
from affect.engine.distill.ensemble_softlabels import Options, soft_labels
from affect.engine.distill.members import open_members
from affect.engine.distill.mixture import combine, fit_weights
from affect.engine.metrics.classification import nll
from affect.engine.runs.checkpoint import load, save
from affect.engine.runs.files import BEST, CONFIG
from affect.engine.runs.folder import write_json
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.images import decode
from affect.shards.pack import pack
from affect.shards.sample import Sample
from affect.shards.schema import Output, TargetLayout
from affect.shards.sources.synthetic_faces import EMOTION

from .test_softlabels import HALF_ULP, logits_of, read
from .test_softlabels import data as data
from .test_softlabels import one as one

RAW = Options(scale="raw")


@pytest.fixture(scope="module")
def member(trained, data, tmp_path_factory):
    """member(name, temperature=None, order=None, noise=0, fold=None, bias=0): a changed copy of the trained run."""
    folder = tmp_path_factory.mktemp("members")

    def make(name, *, temperature=None, order=None, noise=0.0, fold=None, bias=0.0, names=None, index=None):
        out = folder / name
        if out.exists():
            return out
        out.mkdir()
        config, state = yaml.safe_load((trained / CONFIG).read_text()), load(trained / BEST)
        if fold is not None:
            config["data"] |= {"dataset": str(data), "fold": fold}
            state["fingerprint"]["index"] = Dataset(data).index_sha256
        random = torch.Generator().manual_seed(len(name))
        head = [key for key, value in state["model"].items() if key.startswith("head.") and len(value) == 8]
        for key in head:
            value = state["model"][key] + noise * torch.randn(state["model"][key].shape, generator=random)
            value = value + bias if value.ndim == 1 else value
            state["model"][key] = value if order is None else value[order]
        (output,) = state["outputs"]
        output["names"] = names or [output["names"][i] for i in (order or range(8))]
        (out / CONFIG).write_text(yaml.safe_dump(config))
        save(out / BEST, state)
        if temperature:
            write_json(out / CALIBRATION, fixed(temperature).to_json())
        return out

    return make


@pytest.mark.slow
def test_the_order_of_the_teachers_classes_changes_nothing(one, member, data, tmp_path):
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    spelled = {"happiness": "Happy", "sadness": "sad", "anger": "Angry"}
    names = [spelled.get(EMOTION.names[i], EMOTION.names[i]) for i in order]
    permuted = member("permuted", order=order, names=names)
    soft_labels([permuted], [data], tmp_path / "soft")
    result = read(tmp_path / "soft", data)
    assert np.allclose(result.logits, read(one, data).logits, atol=1e-2, rtol=2 * HALF_ULP)
    assert result.names == EMOTION.names
    (report,) = json.loads((tmp_path / "soft" / "alignmentreport.json").read_text())["members"]
    assert report["classes"]["happiness"] == "Happy" and list(report["classes"]) == list(EMOTION.names)


def test_float32_loses_nothing(trained, data, tmp_path):
    soft_labels([trained], [data], tmp_path / "soft", Options(float32=True))
    want = logits_of(trained, data)
    assert np.abs(read(tmp_path / "soft", data).logits - want).max() < 1e-5


@pytest.mark.slow
def test_mirror_images_are_seen_too(trained, data, tmp_path):
    soft_labels([trained], [data], tmp_path / "once", RAW)
    result = soft_labels([trained], [data], tmp_path / "twice", replace(RAW, flip=True))
    (member,) = open_members([trained], Dataset(data))
    images = torch.from_numpy(np.stack([member.run.preprocess(decode(Dataset(data).image(row))) for row in range(8)]))
    with torch.inference_mode():
        want = sum(member.model(view)[1]["emotion"] for view in (images, images.flip(2))) / 2
    got = read(tmp_path / "twice", data).logits[:8]
    assert got == pytest.approx(want.numpy(), abs=1e-2) and (got != read(tmp_path / "once", data).logits[:8]).any()
    assert result["view"] == "evaluation and its mirror image"


def test_a_mean_of_logits_and_a_mean_of_probabilities():
    a, b, weights = np.log([[0.5, 0.25, 0.25]]), np.log([[0.1, 0.1, 0.8]]), np.array([0.75, 0.25])
    assert combine([a, b], weights, "logit") == pytest.approx(0.75 * a + 0.25 * b)
    assert np.exp(combine([a, b], weights, "probability")) == pytest.approx(np.array([[0.4, 0.2125, 0.3875]]))
    assert combine([a + 3, b], weights, "probability") == pytest.approx(combine([a, b], weights, "probability"))
    sharp = combine([np.array([[900.0, 0, -900]]), np.array([[-900.0, 0, 900]])], np.array([1.0, 0.0]), "probability")
    assert np.isfinite(sharp).all()
    by_row = combine([np.repeat(a, 2, 0), np.repeat(b, 2, 0)], np.array([[1.0, 0.75], [0.0, 0.25]]), "logit")
    assert by_row == pytest.approx(np.concatenate([a, 0.75 * a + 0.25 * b]))


@pytest.mark.parametrize("mode", ["logit", "probability"])
def test_fitted_weights_are_the_best_of_a_grid(mode):
    random = np.random.default_rng(0)
    label = random.integers(0, 4, 300)
    good, fair, noise = (skill * np.eye(4)[label] + random.normal(size=(300, 4)) for skill in (2.0, 1.0, 0.0))
    target = np.eye(4)[label]
    result = fit_weights([good, fair, noise], target, mode)
    least = nll(combine([good, fair, noise], result, mode), target)
    grid = [np.array([a, b, 10 - a - b]) / 10 for a in range(11) for b in range(11 - a)]
    assert result.sum() == pytest.approx(1) and result[0] > result[1] > result[2] and result.min() >= 0
    assert least <= min(nll(combine([good, fair, noise], weights, mode), target) for weights in grid) + 1e-9
    assert (result == fit_weights([good, fair, noise], target, mode)).all()


def test_one_perfect_model_and_equal_models_end_finite():
    target = np.eye(4)[np.arange(40) % 4]
    assert fit_weights([5 * target, -5 * target], target, "logit") == pytest.approx([1, 0], abs=1e-3)
    assert fit_weights([target, target], target, "probability") == pytest.approx([0.5, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["logit", "probability"])
def test_an_ensemble_is_what_its_members_say(trained, member, data, tmp_path, mode):
    a, b = member("warm", temperature=2.0), member("noisy", noise=1.0, temperature=0.5)
    result = soft_labels([a, b], [data], tmp_path / "soft", Options(mode, (3, 1), float32=True))
    assert (result["scale"], result["weights"], result["weights_from"]) == ("calibrated", [0.75, 0.25], "given")
    want = combine([logits_of(a, data) / 2, logits_of(b, data) / 0.5], np.array([0.75, 0.25]), mode)
    assert np.abs(read(tmp_path / "soft", data).logits - want).max() < 1e-4
    first, rows = result["members"][0], Dataset(data).rows("val")
    assert first["weight"] == 0.75 and first["calibration"]["global_temperature"] == 2.0
    assert first["val"]["nll"] == pytest.approx(
        nll(logits_of(a, data)[rows] / 2, Dataset(data).targets("emotion")[rows]), rel=1e-4
    )


@pytest.mark.slow
def test_weights_fitted_on_calib_are_better_there_than_equal_ones(member, data, tmp_path, capsys):
    runs = [member("warm", temperature=2.0), member("noisy", noise=1.0, temperature=0.5)]
    equal = soft_labels(runs, [data], tmp_path / "a")
    fitted = soft_labels(runs, [data], tmp_path / "b", Options(fit_weights=True))
    assert fitted["combined"]["calib"]["nll"] < equal["combined"]["calib"]["nll"]
    report = capsys.readouterr().err
    assert "weights 0.5, 0.5, equal" in report and "calib rows, fewer than 100" in report and "scale calibrated" in report
    assert sum(fitted["weights"]) == pytest.approx(1) and fitted["weights_from"].startswith("fitted on ")


@pytest.mark.slow
def test_out_of_fold_a_row_is_said_by_who_did_not_learn_it(member, data, tmp_path):
    a, b = member("fold0", fold=0), member("fold1", fold=1, bias=1.0)
    result = soft_labels([a, b], [data], tmp_path / "soft", Options(scale="raw", out_of_fold=True, float32=True))
    fold, of = Dataset(data).column("meta.fold"), [logits_of(run, data) for run in (a, b)]
    logits = read(tmp_path / "soft", data).logits
    for rows, want in ((fold == 0, of[0]), (fold == 1, of[1]), (np.isnan(fold), (of[0] + of[1]) / 2)):
        assert rows.any() and np.abs(logits - want)[rows].max() < 1e-5
    assert result["out_of_fold"]
    report = json.loads((tmp_path / "soft" / "alignmentreport.json").read_text())["members"]
    assert report[0]["trained_on"] == {**dict.fromkeys(Dataset(data).info.counts, 0), "train": int((fold == 1).sum())}


def test_out_of_fold_needs_all_folds_of_this_dataset(member, trained, data, tmp_path):
    fold, weighed = int((Dataset(data).column("meta.fold") == 1).sum()), Options(scale="raw", out_of_fold=True)
    with pytest.raises(InputError, match=f"{fold} of 160 rows of .* are not covered"):
        soft_labels([member("fold0", fold=0)], [data], tmp_path / "soft", weighed)
    with pytest.raises(InputError, match="was trained on another dataset"):
        soft_labels([trained], [data], tmp_path / "soft", weighed)
    runs = [member("fold0", fold=0), member("fold1", fold=1, bias=1.0)]
    with pytest.raises(InputError, match="rows are covered by runs of weight 0 only"):
        soft_labels(runs, [data], tmp_path / "soft", replace(weighed, weights=(1, 0)))
    assert not list(tmp_path.iterdir())


def test_without_calib_rows_there_is_no_temperature_and_no_fit(trained, member, synthetic, tmp_path, capsys):
    result = soft_labels([trained], [synthetic], tmp_path / "soft")
    assert result["temperature"] is None and result["combined_scaled"] is None and result["combined"]["calib"] is None
    assert "no labelled calib rows" in capsys.readouterr().err
    assert read(tmp_path / "soft", synthetic).temperature is None
    with pytest.raises(InputError, match=r"--fit-weights.*--calib 0.3"):
        soft_labels(
            [trained, member("noisy", noise=1.0, temperature=0.5)], [synthetic], tmp_path / "b", Options(fit_weights=True)
        )


class Other:
    """Two pictures of another task."""

    label_protocol, filtered, meta = "hard", {}, {}
    layout = TargetLayout((Output("state", "classes", ("calm", "tense")),))

    def samples(self):
        images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
        for i, split in enumerate(("train", "val")):
            yield Sample(images[i], f"{i}.png", split, {"state.calm": 1.0, "state.tense": 0.0}, source="x")

    def fingerprint(self):
        return {"other": "0"}


@pytest.mark.slow
def test_what_cannot_be_made_is_one_message_and_leaves_nothing(trained, member, data, tmp_path, monkeypatch):
    out, noisy = tmp_path / "out", member("noisy", noise=1.0, temperature=0.5)

    def refused(message, runs, options=RAW, data=data):
        with pytest.raises(InputError, match=message):
            soft_labels(runs, [data], out, options)
        assert not list(tmp_path.glob("*out*"))

    pack(Other(), tmp_path / "other")
    refused("nowhere: not a run", [tmp_path / "nowhere"])
    refused("is named twice", [trained, trained])
    refused(r"a run of emotion_student, trained for 'emotion'.* classes of state", [trained], data=tmp_path / "other")
    refused("knows the classes .*bored.*not the same", [member("bored", names=[*EMOTION.names[:7], "bored"])])
    refused(r"has no temperature \(not calibrated\).* --scale raw", [trained, noisy], Options())
    refused("--weights: found 1, expected one for each of 2 runs", [trained, noisy], Options(weights=(1,)))
    refused("--weights: found -1, 1; expected numbers of 0 or more", [trained, noisy], Options(weights=(-1, 1)))
    refused("--fit-weights: finds the weights of several runs", [trained], Options(fit_weights=True))
    refused("160 of 160 rows have logits that are not finite", [member("broken", bias=float("nan"))])
    refused("logit of 1e.05 does not fit into float16; add --float32", [member("large", bias=1e5)])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "savez", full)
        refused("out: cannot be written: No space left on device", [trained])
    out.mkdir()
    with pytest.raises(InputError, match="is there already; name another"):
        soft_labels([trained], [data], out)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder that can be written to"):
        soft_labels([trained], [data], tmp_path / "file" / "out")


def test_rows_that_a_run_learned_are_warned_of(member, data, tmp_path, capsys):
    run = member("learned", fold=0)
    config = yaml.safe_load((run / CONFIG).read_text())
    (run / CONFIG).write_text(
        yaml.safe_dump(config | {"data": config["data"] | {"fold": None, "train_split": "val", "val_split": "train"}})
    )
    soft_labels([run], [data], tmp_path / "soft")
    assert "rows of val: what is fitted or measured there is too good" in capsys.readouterr().err


def test_the_command(affect, member, data, tmp_path):
    runs = [member("warm", temperature=2.0), member("noisy", noise=1.0, temperature=0.5)]
    code, out, err = affect(
        "softlabels", *runs, "--data", data, "--out", tmp_path / "soft", "--mode", "probability", "--weights", ".4,.6",
        "--precision", "auto", "--json",
    )  # fmt: skip
    assert code == 0 and "warm (0.4)" in out and "probability mode" in out and "computed in" in err
    assert json.loads(out.splitlines()[-1])["weights"] == [0.4, 0.6]
    code, _, err = affect("softlabels", *runs, "--data", data, "--out", tmp_path / "b", "--weights", "a,b")
    assert code == 1 and "--weights: found 'a,b', expected a number for each run" in err
