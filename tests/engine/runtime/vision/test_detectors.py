"""Subjects are found where they are, whatever the picture; a detector that cannot be is said at once."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from affect.engine.runtime.vision.boxes import Box, Listed, read_boxes
from affect.engine.runtime.vision.crop import FIVE_POINTS, crop, sharpness
from affect.engine.runtime.vision.detectors import Full, Haar
from affect.engine.runtime.vision.subject import Search, check_species, finder, subject_of
from affect.engine.runtime.vision.yolo import Yolo
from affect.shards.errors import InputError

ODD = [(1, 1), (3, 1000), (1000, 3), (20, 20), (31, 33)]  # height, width


def read(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_faces_of_real_pictures(videos, yunet):
    one, many = read(videos / "single_face.jpg"), read(videos / "multi_face.jpg")
    haar, net = Haar(), yunet()
    (a,), (b,) = haar.detect(one), net.detect(one)
    assert a.iou(b) > 0.3 and b.points.shape == (5, 2) and 0.9 < b.score <= 1 and 0 < a.score < 1
    assert b.points[0, 0] < b.points[1, 0] and b.points[:2, 1].max() < b.points[2, 1] < b.points[3:, 1].min()
    assert len(haar.detect(many)) >= 3
    scores = [box.score for box in net.detect(many)]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_forty_faces(videos, yunet):
    small = cv2.resize(read(videos / "single_face.jpg"), (160, 160))
    wall = np.tile(small, (5, 8, 1))
    from affect.engine.runtime.vision.detectors import YuNet

    found = YuNet(yunet().path, width=wall.shape[1]).detect(wall)
    assert len(found) == 40 == len(Search("human_face", detect_width=640).detector().detect(wall))
    assert len({(round(box.x) // 160, round(box.y) // 160) for box in found}) == 40


@pytest.mark.parametrize("shape", ODD, ids=str)
def test_odd_pictures_have_no_face(shape, yunet):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert Haar().detect(image) == [] and yunet().detect(image) == []
    assert Full().detect(image)[0].tuple == (0, 0, shape[1], shape[0])


def test_a_detector_takes_frames_of_changing_size(videos, yunet):
    detector, face = yunet(), read(videos / "single_face.jpg")
    for width, height in ((572, 562), (300, 400), (100, 100), (1920, 1080), (572, 562)):
        (box,) = detector.detect(cv2.resize(face, (width, height)))
        assert box.x + box.w / 2 == pytest.approx(0.49 * width, abs=0.05 * width)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("humanface", "did you mean 'human_face'?"),
        ("yunet", "expected yunet:FILE.onnx"),
        ("full:x", "nothing behind it"),
        ("yunet:nowhere.onnx", "no such file"),
        ("onnx:nowhere.onnx", "no such file"),
        ("boxes:nowhere.csv", "no such file"),
        ("", "expected human_face"),
    ],
)
def test_a_wrong_subject_is_named(text, message):
    with pytest.raises(InputError, match=message):
        subject_of(text)


def test_an_onnx_file_of_another_kind_is_refused(real, tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    for file in (real / "weights" / "mini_xception_fer2013.onnx", tmp_path / "text.onnx"):
        with pytest.raises(InputError, match="not a YuNet"):
            subject_of(f"yunet:{file}")
        with pytest.raises(InputError, match="expected one of|cannot load"):
            subject_of(f"onnx:{file}")


def test_human_detectors_are_for_humans():
    check_species("yunet:a.onnx", "human", "emotion")
    check_species("full", "mouse", "mouse_set")
    for asked in ("human_face", "yunet:a.onnx"):
        with pytest.raises(InputError, match="finds human faces, mouse_set reads mouse"):
            check_species(asked, "mouse", "mouse_set")


def yolo(path, rows, names=None, size=64):
    """A graph that finds the same rows (C, N) in any picture."""
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
    out = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, *rows.shape])
    constant = numpy_helper.from_array(rows[None].astype(np.float32), "rows")
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["none"]),
        helper.make_node("Add", ["rows", "none"], ["output0"]),
    ]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    graph = helper.make_graph(nodes, "g", [given], [out], [constant, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    if names:
        helper.set_model_props(model, {"names": str(names)})
    onnx.save(model, str(path))
    return path


def test_a_yolo_detector_in_the_pictures_pixels(tmp_path):
    rows = np.array([[32, 32, 20, 10, 0.9], [33, 32, 20, 10, 0.8], [10, 32, 8, 8, 0.6], [50, 32, 9, 9, 0.1]]).T
    found = Yolo(yolo(tmp_path / "a.onnx", rows)).detect(np.zeros((100, 200, 3), np.uint8))  # 64 wide: scale .32, 16 above
    assert [box.score for box in found] == pytest.approx([0.9, 0.6])  # the second is the first again, the fourth too weak
    assert found[0].tuple == pytest.approx((68.75, 34.375, 62.5, 31.25))
    assert subject_of(f"onnx:{tmp_path / 'a.onnx'}").detect(np.zeros((64, 64, 3), np.uint8))[0].tuple == (22, 27, 20, 10)


def test_yolo_classes_and_points(tmp_path):
    points = np.stack([np.arange(20, 45, 5), np.full(5, 30), np.ones(5)], 1).ravel()
    with_points = Yolo(yolo(tmp_path / "p.onnx", np.array([[32, 32, 20, 10, 0.9, *points]]).T))
    (box,) = with_points.detect(np.zeros((128, 128, 3), np.uint8))
    assert box.points.tolist() == [[x, 60] for x in (40, 50, 60, 70, 80)]
    two = Yolo(yolo(tmp_path / "c.onnx", np.array([[32, 32, 20, 10, 0.2, 0.7]]).T, names={0: "cow", 1: "calf"}))
    assert two.detect(np.zeros((64, 64, 3), np.uint8))[0].score == pytest.approx(0.7)
    with pytest.raises(InputError, match="without NMS"):
        Yolo(yolo(tmp_path / "n.onnx", np.zeros((3, 6))))


PLAIN = "frame,x,y,w,h,score\n0,1,2,30,40,.5\n0,5,5,10,10,\n3,-4,0,20,20,1\n7,,,,,\n"
HEADER = "scorer,n,n,n,n,n,n,n,n,n\nbodyparts,nose,nose,nose,eye,eye,eye,ear,ear,ear\n" + "coords" + ",x,y,likelihood" * 3 + "\n"


def test_boxes_of_a_csv(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(PLAIN)
    boxes, image = subject_of(f"boxes:{path}"), np.zeros((50, 50, 3), np.uint8)
    assert [box.tuple for box in boxes.detect(image, 0)] == [(1, 2, 30, 40), (5, 5, 10, 10)]
    assert [box.score for box in boxes.detect(image, 0)] == [0.5, 1.0]
    assert len(boxes.detect(image, 3)) == 1 and boxes.detect(image, 7) == boxes.detect(image, 99) == []


def test_boxes_of_deeplabcut(tmp_path):
    path = tmp_path / "dlc.csv"
    path.write_text(HEADER + "0,10,20,.9,50,40,.8,500,500,.3\n1,10,20,.5,50,40,.8,1,1,.2\n2,,,,50,40,.8,60,50,.9\n")
    boxes = read_boxes(path).boxes
    (box,) = boxes[0]
    assert box.tuple == pytest.approx((2, 12, 56, 36)) and box.score == pytest.approx(0.85) and boxes[1] == []
    assert boxes[2][0].tuple == pytest.approx((48, 38, 14, 14))
    two = HEADER.replace("bodyparts", "individuals,a,a,a,a,a,a,b,b,b\nbodyparts").replace("ear", "eye")
    path.write_text(two + "0,10,20,.9,50,40,.8,0,0,.9\n")
    assert [len(found) for found in read_boxes(path).boxes.values()] == [1]  # the second animal has one point only


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'frame'"),
        ("frame,x,y,w\n0,1,2,3\n", "no column 'h'"),
        ("frame,x,y,w,h\n0,1,2,3,4\n1,a,2,3,4\n", r":3: x: found 'a'"),
        ("frame,x,y,w,h\n0,1,2,3\n", r":2: h: found ''"),
        ("frame,x,y,w,h\n0,1,2,0,4\n", r":2: found a box of 0 x 4"),
        ("frame,x,y,w,h\n0,nan,2,3,4\n", r":2: x: found 'nan'"),
        ("scorer,a,a,a\n0,1,2,3\n", r":2: found '0'; expected the header rows"),
        ("scorer,a,a\nbodyparts,n,n\ncoords,x,y\n0,1,2\n", "a body part without likelihood"),
        ("scorer,a,a,a\nbodyparts,n,n,n\n", "header rows end early"),
    ],
)
def test_bad_boxes_name_their_line(text, message, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_boxes(path)


def test_a_crop_is_square_and_goes_on_over_the_border(picture):
    image = picture(60, 80)
    inside = crop(image, Box(20, 10, 20, 30), margin=0.1)
    assert inside.shape == (36, 36, 3) and np.array_equal(inside, image[7:43, 12:48])
    border = crop(image, Box(-10, -10, 40, 40), margin=0)
    assert border.shape == (40, 40, 3) and np.array_equal(border[10:, 10:], image[:30, :30])
    assert (border[:10, :10] == image[0, 0]).all() and np.array_equal(border[3, 10:], image[0, :30])
    assert crop(image, Box(500, 500, 10, 10)).shape == (12, 12, 3)
    assert crop(image, Box(0, 0, 0.1, 0.1)).shape == (1, 1, 3)
    assert max(crop(image, Box(0, 0, 1e6, 1e6)).shape) == 4096


@pytest.mark.parametrize("degrees", [0, 30, -75])
def test_an_aligned_crop_brings_the_points_to_the_template(degrees):
    turn = 1.5 * np.exp(1j * np.deg2rad(degrees))
    at = turn * ((FIVE_POINTS[:, 0] - 56) + 1j * (FIVE_POINTS[:, 1] - 56)) + 200 + 150j
    image = np.zeros((300, 400, 3), np.uint8)
    for i, point in enumerate(at):
        cv2.circle(image, (round(point.real), round(point.imag)), 5, (0, 50 * i + 50, 0), -1)
    points = np.stack([at.real, at.imag], 1).astype(np.float32)
    got = crop(image, Box(120, 70, 160, 160, points=points), margin=0.25, align=True)
    assert got.shape == (252, 252, 3)
    for i, (x, y) in enumerate(FIVE_POINTS * 1.5 + 0.25 * 168):
        assert abs(int(got[round(y), round(x), 1]) - (50 * i + 50)) < 20
    unaligned = crop(image, Box(120, 70, 160, 160), margin=0.25, align=True)
    assert np.array_equal(unaligned, crop(image, Box(120, 70, 160, 160), margin=0.25))


def test_sharpness_falls_with_blur(picture):
    image = picture(100, 100)
    values = [sharpness(image), sharpness(cv2.blur(image, (5, 5))), sharpness(cv2.blur(image, (15, 15)))]
    assert values == sorted(values, reverse=True) and values[0] > 2 * values[2]
    assert sharpness(np.zeros((1, 1, 3), np.uint8)) == 0


def test_listed_boxes_come_by_frame():
    box = Box(1, 2, 3, 4)
    assert Listed({2: [box]}).detect(np.zeros((9, 9, 3), np.uint8), 2) == [box]


def test_a_finder_gives_the_edges_of_the_best_face_in_any_thread(videos):
    from concurrent.futures import ThreadPoolExecutor

    image, find = read(videos / "single_face.jpg"), finder("human_face")
    (box,) = Haar().detect(image)
    with ThreadPoolExecutor(2) as pool:
        found = [find(image), *pool.map(find, [image] * 2)]
    assert found == [(box.y, box.x, box.y + box.h, box.x + box.w)] * 3
    assert find(np.zeros((40, 40, 3), np.uint8)) is None


@pytest.mark.parametrize("text", ["full", "boxes:a.csv", "face", "yunet:missing.onnx"])
def test_what_does_not_look_at_pictures_finds_nothing(text):
    with pytest.raises(InputError, match="subject|missing.onnx: no such file"):
        finder(text)
