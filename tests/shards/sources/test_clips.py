"""Clips listed in a CSV: what columns mean, what becomes a target, what is wrong with a row."""

import numpy as np
import pytest

from affect.shards.dataset import Dataset
from affect.shards.errors import InputError
from affect.shards.pack import pack
from affect.shards.sources.clips import ClipsSource
from affect.shards.sources.frames import chosen
from affect.shards.verify import verify


@pytest.fixture
def raw(tmp_path, picture):
    """Four clips of 3 to 6 frames below raw/, two of them videos; write(lines) -> the CSV."""
    import av
    import cv2

    for i in range(4):
        pictures = [picture(40, 60, seed=10 * i + t) for t in range(3 + i)]
        if i < 2:
            (tmp_path / "raw" / f"c{i}").mkdir(parents=True)
            for t, shown in enumerate(pictures):
                cv2.imwrite(str(tmp_path / "raw" / f"c{i}" / f"f{t}.png"), shown)
            continue
        with av.open(str(tmp_path / "raw" / f"c{i}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 60, 40, "yuv420p"
            for shown in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            container.mux(stream.encode())

    def write(*lines):
        path = tmp_path / "clips.csv"
        path.write_text("\n".join(lines))
        return path

    return write


def source(csv, targets=None, clip=None, **options):
    return ClipsSource(csv.parent / "raw", csv, clip or chosen(all_frames=True), targets, **options)


def test_columns_become_targets_group_split_box_and_meta(raw, tmp_path):
    csv = raw(
        "Clip,split,subject,label,intensity,sum,sex,day,box_x,box_y,box_w,box_h",
        "c0,val,a,no,0,1.5,F,1,,,,", "c1,train,b,yes,3,,M,2,,,,", "c2.mp4,train,b,,4,2,M,,10,5,20,30",
        "c3.mp4,test,c,yes,,,F,007,,,,",
    )  # fmt: skip
    info = pack(source(csv, {"Intensity": "score", "sum": "pain.total"}, fps=10), tmp_path / "out")
    dataset = verify(tmp_path / "out")
    assert info.layout.columns == ("score.score", "pain.total", "state.no", "state.yes")
    assert info.counts == {"train": 2, "val": 1, "test": 1} and info.clip == chosen(all_frames=True)
    rows = [dataset.column("path").tolist().index(name) for name in ("c0", "c1", "c2.mp4", "c3.mp4")]
    assert np.array_equal(dataset.targets("score")[rows, 0], [0, 3, 4, np.nan], equal_nan=True)
    assert np.array_equal(dataset.targets("pain")[rows, 0], [1.5, np.nan, 2, np.nan], equal_nan=True)
    assert np.array_equal(dataset.targets("state")[rows], [[1, 0], [0, 1], [np.nan, np.nan], [0, 1]], equal_nan=True)
    assert dataset.column("group")[rows].tolist() == list("abbc")
    assert dataset.column("num_frames")[rows].tolist() == [3, 4, 5, 6]
    assert list(zip(dataset.column("width")[rows].tolist(), dataset.column("height")[rows].tolist(), strict=True)) == [
        (60, 40), (60, 40), (20, 30), (60, 40),
    ]  # fmt: skip
    assert dataset.column("meta.sex")[rows].tolist() == list("FMMF")
    assert dataset.column("meta.day")[rows].tolist() == ["1", "2", None, "007"]  # a name of digits: not a number
    assert dataset.column("meta.time_from")[rows].tolist() == ["fps", "fps", "timestamps", "timestamps"]


def test_frames_of_folders_keep_their_bytes_and_those_of_videos_are_as_the_storage_says(raw, tmp_path):
    from affect.shards.images import Storage

    csv = raw("path,y", "c0,1", "c3.mp4,2")
    pack(source(csv, {"y": "y"}), tmp_path / "out", storage=Storage(quality=95), max_rejects=0)
    dataset = Dataset(tmp_path / "out")
    by_path = dict(zip(dataset.column("path"), range(2), strict=True))
    assert bytes(dataset.frames(by_path["c0"], [2])[0]) == (tmp_path / "raw" / "c0" / "f2.png").read_bytes()
    assert bytes(dataset.image(by_path["c3.mp4"]))[:3] == b"\xff\xd8\xff"


def test_without_a_split_whole_groups_become_val(raw, tmp_path):
    csv = raw("path,animal,y", "c0,a,1", "c1,a,2", "c2.mp4,b,3", "c3.mp4,b,4")
    splits = [sample.split for sample in source(csv, {"y": "y"}, val=0.5).samples()]
    assert splits[0] == splits[1] and splits[2] == splits[3]


def test_columns_of_other_names(raw):
    csv = raw("recording,mouse,state,y", "c0,m1,calm,1", "c1,m2,pain,2")
    clips = source(csv, clip_column="Recording", group_column="mouse", label_column="state", output="mood")
    assert [(sample.path, sample.group) for sample in clips.samples()] == [("c0", "m1"), ("c1", "m2")]
    assert clips.layout.columns == ("mood.calm", "mood.pain") and clips.meta["y"] is float


def test_a_missing_or_unreadable_clip_is_rejected_with_its_reason(raw, tmp_path):
    csv = raw("path,y", "c0,1", "c1,2", "c9.mp4,3", "text.mp4,4")
    (tmp_path / "raw" / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"2 of 4 samples are unreadable"):
        pack(source(csv, {"y": "y"}), tmp_path / "out")
    pack(source(csv, {"y": "y"}), tmp_path / "out", max_rejects=0.5)
    rejected = (tmp_path / "out" / "rejected.csv").read_text()
    assert "c9.mp4,missing file" in rejected and "text.mp4,not readable as a video" in rejected


@pytest.mark.parametrize(
    ("lines", "targets", "message"),
    [
        (["path,y"], {"y": "y"}, "found a header and no rows"),
        (["a,y", "c0,1"], {"y": "y"}, "no column with the path of the clip.*--clip-column"),
        (["path,y", "c0,1"], {}, "no column 'label' and no --column"),
        (["path,intensity", "c0,1"], {"intensty": "score"}, "no such column; did you mean 'intensity'"),
        (["path,y", "c0,high"], {"y": "y"}, r"clips\.csv:2: y: found 'high', expected a number"),
        (["path,y", "c0,inf"], {"y": "y"}, "found 'inf', expected a number"),
        (["path,y,split", "c0,1,trian"], {"y": "y"}, "split: found 'trian'; did you mean 'train'"),
        (["path,y", "c0,1", "c0,1"], {"y": "y"}, r"c0: stands in .*clips\.csv:2, too"),
        (["path,y", "d0,1", "d1,1"], {"y": "y"}, "none of the first 2 clips is there"),
        (["path,y,box_x", "c0,1,4"], {"y": "y"}, "no column 'box_y'; a box has all of"),
        (["path,y,box_x,box_y,box_w,box_h", "c0,1,4,4,0,3"], {"y": "y"}, "box_w and box_h above 0"),
        (["path,y,gaps", "c0,1,4"], {"y": "y"}, "the column 'gaps' has a name that is reserved"),
        (["path,y,z", "c0,1,4"], {"y": "a.b", "z": "a.b"}, r"two columns for a\.b"),
        (["path,y,label", "c0,1,p", "c1,1,q"], {"y": "state"}, "is the output of the label column"),
        (["path,label", "c0,1", "c1,2"], {}, "found the id 1, expected a name"),
        (["path,label", "c0,pain", "c1,pain"], {}, "found 1 class"),
        (["path,y", "c0,1"], {"y": "a b.c"}, "expected COLUMN=OUTPUT or"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_message(lines, targets, message, raw):
    with pytest.raises(InputError, match=message):
        source(raw(*lines), targets)


def test_real_mice(real, tmp_path, monkeypatch):
    from affect.engine.cli import main

    mouse, out = real / "mouse", tmp_path / "mouse"
    lines = (mouse / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([lines[0], *lines[1::30]]))
    options = ["--labels", tmp_path / "labels.csv", "--column", "intensity=score", "--all-frames", "--out", out]
    monkeypatch.setattr("sys.argv", ["affect", *map(str, ["pack", "clips", mouse, *options])])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    dataset = Dataset(out)
    assert set(dataset.column("num_frames")) == {100} and len(set(dataset.column("group"))) == 4
    assert np.allclose(dataset.times_s(0), np.arange(100) / 20)


def test_a_clip_is_cut_to_one_box_around_the_subject_that_moves_in_it(tmp_path):
    """A bright square goes from left to right; once the detector is wrong, in one clip it finds nothing."""
    import cv2

    from affect.shards.images import decode
    from affect.shards.sources.parts import Cropped

    for clip, first in (("seen", 10), ("empty", None)):
        (tmp_path / "raw" / clip).mkdir(parents=True)
        for t in range(8):
            frame = np.full((60, 100, 3), t, np.uint8)
            if first is not None:
                frame[20:40, first + 2 * t : first + 2 * t + 20] = 200
            cv2.imwrite(str(tmp_path / "raw" / clip / f"f{t}.png"), frame)
    (tmp_path / "clips.csv").write_text("clip,y,box_x,box_y,box_w,box_h\nseen,1,,,,\nempty,2,,,,\n")

    def find(image):
        rows, columns = np.nonzero(image[..., 0] > 100)
        if not len(rows):
            return None
        if image[0, 0, 0] == 3:
            return 0.0, 90.0, 5.0, 99.0
        return float(rows.min()), float(columns.min()), float(rows.max() + 1), float(columns.max() + 1)

    cropped = Cropped(source(tmp_path / "clips.csv", {"y": "y"}, fps=5), find, "bright", margin=0)
    pack(cropped, tmp_path / "out", max_rejects=0.5)
    dataset = Dataset(tmp_path / "out")
    assert dataset.column("path").tolist() == ["seen"] and dataset.column("meta.found").tolist() == [8]
    assert (dataset.column("width")[0], dataset.column("height")[0]) == (34, 20)  # columns 10 to 44 in every frame
    assert [int(decode(frame)[0, 2 * t, 0]) for t, frame in enumerate(dataset.frames(0))] == [200] * 8
    assert "empty,no subject found in 8 frames" in (tmp_path / "out" / "rejected.csv").read_text().replace('"', "")
    other = Cropped(source(tmp_path / "clips.csv", {"y": "y"}, fps=5), find, "bright", margin=0.1)
    assert cropped.fingerprint() != other.fingerprint()


def test_a_clip_with_a_box_of_its_own_keeps_it(raw, tmp_path):
    from affect.shards.sources.parts import Cropped

    csv = raw("clip,y,box_x,box_y,box_w,box_h", "c0,1,10,5,20,30")
    pack(Cropped(source(csv, {"y": "y"}, fps=10), lambda image: None, "nothing"), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert (dataset.column("width")[0], dataset.column("height")[0]) == (20, 30)
