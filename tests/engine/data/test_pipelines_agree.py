"""`dali.py` and `opencv.py` make the same picture from the same numbers."""

import cv2
import numpy as np
import pytest
import torch

from affect.engine.config.load import load_config
from affect.engine.data.build import eval_loader, train_loader
from affect.engine.system.distributed import Ranks
from affect.engine.tasks import TASKS
from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.class_folders import FolderSource

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """JPEG and PNG, gray and colour, every shape, packed."""
    root = tmp_path_factory.mktemp("mixed")
    random = np.random.default_rng(0)
    for i in range(60):
        height, width = random.integers(40, 100, 2) if i % 5 else (48, 48)
        image = cv2.resize(random.integers(0, 256, (8, 8, 3)).astype(np.uint8), (int(width), int(height)))
        path = root / "raw" / "ab"[i % 2] / f"{i}.{'jpg' if i % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image if i % 4 else image[..., 0])
    pack(FolderSource(root / "raw", val=0.4), root / "packed")
    return root / "packed"


def batches(dataset, view, loader, settings, count=3):
    settings = [f"data.dataset={dataset}", "data.batch_size=17", "model.image_size=56", f"data.loader={loader}", *settings]
    run, task, data = load_config("smoke", settings), TASKS["emotion_student"], Dataset(dataset)
    if view == "train":
        made = train_loader(run, task, data, Ranks(CPU))
    else:
        made = eval_loader(data, "val", run.preprocess, task.outputs, CPU, batch=17, kind=loader)
    stream = made.from_step(4)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("view", ["train", "val"])
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_crop_resize_and_flip_agree(mixed, view, color):
    """To one level: the interpolated value is rounded once, and where it ends in .5 the order of the sums decides."""
    pytest.importorskip("nvidia.dali")
    for fast, slow in zip(*(batches(mixed, view, loader, [f"data.color={color}"]) for loader in ("dali", "plain")), strict=True):
        assert (fast.sample == slow.sample).all()
        difference = (fast.inputs.int() - slow.inputs.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("view", ["train", "val"])
@pytest.mark.parametrize("color", ["gray", "rgb"])
@pytest.mark.parametrize("clahe", ["{p: 1.0}", "{p: 0.5, clip: 3.0, tiles: 3}"], ids=["always", "half"])
def test_clahe_agrees_to_the_bit(mixed, view, color, clahe):
    """DALI's CLAHE of DALI's picture is the plain one of the same picture."""
    pytest.importorskip("nvidia.dali")
    color = f"data.color={color}"
    preprocess = load_config("smoke", [f"data.clahe={clahe}", color]).preprocess
    before, after = (batches(mixed, view, "dali", [f"data.clahe={c}", color]) for c in ("null", clahe))
    kinds = set()
    for raw, equal in zip(before, after, strict=True):
        for image, got in zip(raw.inputs.numpy(), equal.inputs.numpy(), strict=True):
            plane = image[..., 0] if preprocess.color == "gray" else image
            as_either = [np.array_equal(got, made) for made in (preprocess.finish(plane), image)]
            assert any(as_either)
            kinds.add(as_either[0])
    assert kinds == ({True} if "1.0" in clahe or view == "val" else {True, False})


OPTIONS = {
    "affine": "affine={rotate: 15, shift: 0.1, scale: [0.9, 1.1]}",
    "jitter": "jitter={brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1}",
    "blur": "blur={p: 0.6, sigma: [0.3, 2.0]}",
    "erase": "erase={p: 0.6}",
    "mixup": "mixup=0.4",
    "cutmix": "cutmix=1.0",
}


@pytest.mark.parametrize("color", ["gray", "rgb"])
@pytest.mark.parametrize("option", OPTIONS)
def test_each_augmentation_agrees_to_a_level(mixed, color, option):
    """Without resizing before it, so that only its own rounding shows."""
    pytest.importorskip("nvidia.dali")
    settings = [f"data.color={color}", "data.augment.crop=null", "model.image_size=48", f"data.augment.{OPTIONS[option]}"]
    off, fast, slow = (
        batches(mixed, "train", loader, s) for loader, s in (("dali", settings[:3]), ("dali", settings), ("plain", settings))
    )
    for a, b in zip(fast, slow, strict=True):
        difference = (a.inputs.int() - b.inputs.int()).abs()
        assert difference.max() <= 2  # one of the resize, one of its own
        assert (difference > 0).float().mean() < 0.03
        assert all(torch.equal(a.targets[name], b.targets[name]) for name in a.targets)
    assert any((a.inputs != b.inputs).float().mean() > 0.02 for a, b in zip(off, fast, strict=True))


def test_all_together_agree(mixed):
    pytest.importorskip("nvidia.dali")
    settings = [f"data.augment.{option}" for name, option in OPTIONS.items() if "mix" not in name]
    settings.append("data.clahe={p: 0.7, clip_jitter: 0.5, tiles: 2}")
    for fast, slow in zip(*(batches(mixed, "train", loader, settings) for loader in ("dali", "plain")), strict=True):
        assert (fast.inputs.float() - slow.inputs.float()).abs().mean() < 0.5  # CLAHE spreads single levels apart


@pytest.mark.parametrize("clahe", ["null", "{clip: 2.0}", "{clip: 4.0, tiles: 1}"])
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_bit_equal_where_nothing_is_resized(synthetic, color, clahe):
    pytest.importorskip("nvidia.dali")
    settings = [f"data.color={color}", f"data.clahe={clahe}", "data.augment.crop=null", "model.image_size=48"]
    for fast, slow in zip(*(batches(synthetic, "train", loader, settings) for loader in ("dali", "plain")), strict=True):
        if color == "rgb":
            assert torch.equal(fast.inputs, slow.inputs)
        assert (fast.inputs.int() - slow.inputs.int()).abs().max() <= (0 if color == "rgb" else 1 if clahe == "null" else 40)


@pytest.mark.parametrize("loader", ["dali", "plain"])
def test_batches_start_at_any_step_and_are_not_overwritten(synthetic, loader):
    pytest.importorskip("nvidia.dali")
    held = batches(synthetic, "train", loader, [], count=8)
    copies = [batch.inputs.clone() for batch in held]
    again = batches(synthetic, "train", loader, [], count=8)
    assert all(torch.equal(a, b.inputs) for a, b in zip(copies, held, strict=True))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(again, held, strict=True))


@pytest.mark.parametrize("loader", ["dali", "plain"])
def test_streaming_makes_the_same_picture_of_a_sample(synthetic, loader):
    """In another order; the numbers of a sample are its own."""
    pytest.importorskip("nvidia.dali")
    epoch = {}
    for settings in ([], ["data.stream={buffer: 40}"]):
        found = epoch.setdefault(len(settings), {})
        for batch in batches(synthetic, "train", loader, settings, count=13):  # of the first epoch, from step 4 on
            found |= dict(zip(batch.sample.tolist(), batch.inputs, strict=True))
    shared = epoch[0].keys() & epoch[1].keys()
    assert len(shared) > 100
    assert all(torch.equal(epoch[0][s], epoch[1][s]) for s in shared)


def test_pictures_far_too_large_are_refused_with_the_remedy(mixed):
    pytest.importorskip("nvidia.dali")
    with pytest.raises(InputError, match=r"more than twice too large .* --max-side \d+, .* data\.loader=plain"):
        batches(mixed, "val", "dali", ["model.image_size=16"])


@pytest.mark.parametrize("loader", ["dali", "plain"])
def test_a_picture_damaged_since_packing_is_named(synthetic, tmp_path, loader):
    import shutil

    pytest.importorskip("nvidia.dali")
    copy = shutil.copytree(synthetic, tmp_path / "copy")
    data = Dataset(copy)
    damaged = int(data.rows("train")[3])
    path = copy / data.column("shard")[damaged]
    text = bytearray(path.read_bytes())
    offset = int(data.column("offset")[damaged])
    text[offset : offset + 8] = bytes(8)
    path.write_bytes(text)
    with pytest.raises(InputError, match=rf"{data.column('key')[damaged]}: .*(?s:.)*affect verify"):
        batches(copy, "train", loader, [], count=20)
