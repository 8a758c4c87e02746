"""Odd pictures: what each becomes, or the reason why it is refused; and a target that cannot be written."""

import shutil
import struct
import subprocess
import zlib

import cv2
import numpy as np
import pytest

from affect.shards.encoded import BadImage
from affect.shards.errors import InputError
from affect.shards.images import decode, encode
from affect.shards.pack import pack
from affect.shards.sources.class_folders import FolderSource


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height):
    """A PNG that says it is this large, its rows all zero."""
    zeros = zlib.compressobj(1)
    rows = b"".join(zeros.compress(bytes(1 + 3 * width)) for _ in range(min(height, 100))) + zeros.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def turned(image, orientation):
    """A JPEG with the EXIF orientation."""
    data = cv2.imencode(".jpg", image)[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def test_sixteen_bits_become_eight(picture):
    image = picture(20, 24)
    encoded = encode(cv2.imencode(".png", image.astype(np.uint16) * 257)[1].tobytes())
    assert encoded.extension == "png" and (decode(encoded.data) == image[..., ::-1]).all()


def test_alpha_is_left_out(picture):
    image = picture(20, 24)
    encoded = encode(cv2.imencode(".png", np.dstack([image, np.zeros((20, 24), np.uint8)]))[1].tobytes())
    assert encoded.data[25] == 2 and (decode(encoded.data) == image[..., ::-1]).all()


def test_a_cmyk_jpeg_becomes_rgb():
    image = pytest.importorskip("PIL.Image")
    import io

    stream = io.BytesIO()
    image.new("CMYK", (16, 8), (0, 255, 255, 0)).save(stream, "JPEG", quality=95)
    encoded = encode(stream.getvalue())
    red, green, blue = decode(encoded.data).reshape(-1, 3).mean(0)
    assert encoded.extension == "png" and (encoded.width, encoded.height) == (16, 8)
    assert red > 200 and max(green, blue) < 60


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_jpeg_keeps_its_bytes_because_every_decoder_sets_it_upright(orientation, picture):
    data = turned(picture(32, 48), orientation)
    encoded, upright = encode(data), decode(data)
    assert encoded.data == data and upright.shape[:2] == (encoded.height, encoded.width) == (
        (48, 32) if orientation > 4 else (32, 48)
    )
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def, types

    @pipeline_def(batch_size=1, num_threads=1, device_id=None, exec_dynamic=True)
    def read():
        encoded = fn.external_source(lambda: [np.frombuffer(data, np.uint8)], dtype=types.UINT8, ndim=1)
        start, extent = (types.Constant(np.float32(pair), device="cpu") for pair in ([0.25, 0.125], [0.5, 0.5]))
        part = fn.decoders.image_slice(encoded, start, extent, axis_names="HW", device="cpu")
        return fn.decoders.image(encoded, device="cpu"), part

    whole, part = (np.asarray(output.at(0)) for output in read().run())
    height, width = upright.shape[:2]
    assert (whole == upright).all()
    assert (part == upright[height // 4 :][: height // 2, width // 8 :][:, : width // 2]).all()


def test_one_pixel_is_a_picture(tmp_path):
    encoded = encode(np.full((1, 1, 3), 7, np.uint8))
    assert (encoded.width, encoded.height, decode(encoded.data).tolist()) == (1, 1, [[[7, 7, 7]]])


def test_a_picture_that_would_unpack_to_gigabytes_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadImage, match="20000x20000 is 400 megapixels, more than 100: reduce it"):
        encode(png_of(20_000, 20_000))


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".pgm", ".ppm"])
def test_the_header_says_how_large(extension, picture):
    from affect.shards.headers import size_of

    image = picture(30, 41)
    data = cv2.imencode(extension, image[..., 0] if extension == ".pgm" else image)[1].tobytes()
    assert size_of(data) == (41, 30)
    assert size_of(data[:7]) is None


def test_of_a_moving_gif_the_first_picture_is_taken():
    image = pytest.importorskip("PIL.Image")
    import io

    stream = io.BytesIO()
    frames = [image.new("RGB", (12, 10), colour) for colour in ("red", "blue")]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    if cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), 1) is None:  # OpenCV 4.10
        with pytest.raises(BadImage, match="a GIF that this OpenCV cannot read: store it as PNG"):
            encode(stream.getvalue())
        return
    encoded = encode(stream.getvalue())
    assert encoded.extension == "png" and (decode(encoded.data) == [255, 0, 0]).all()


def test_the_content_counts_and_not_the_name(tmp_path, picture):
    (tmp_path / "x.jpg").write_bytes(cv2.imencode(".png", picture())[1].tobytes())
    assert encode(tmp_path / "x.jpg").extension == "png"


def test_a_folder_named_like_a_picture(tmp_path, picture):
    (tmp_path / "raw" / "sad" / "x.jpg").mkdir(parents=True)
    with pytest.raises(BadImage, match="not readable: Is a directory"):
        encode(tmp_path / "raw" / "sad" / "x.jpg")
    for name in ("sad/x.jpg/1.png", "happy.png"):
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "raw" / name), picture())
    (tmp_path / "raw" / "happy").mkdir()
    assert [sample.path for sample in FolderSource(tmp_path / "raw").samples()] == ["sad/x.jpg/1.png"]


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts 2 MB with options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def raw(tmp_path):
    """Four megabytes."""
    for i in range(40):
        path = tmp_path / "raw" / ("sad" if i % 2 else "happy") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 256, (190, 190, 3), dtype=np.uint8))
    return tmp_path / "raw"


def test_a_full_disk_is_one_message_and_nothing_is_left(raw, small_disk):
    with pytest.raises(InputError, match=r"^[^\n]*out: cannot be written: No space left on device$"):
        pack(FolderSource(raw), small_disk / "out")
    assert list(small_disk.iterdir()) == []


def test_a_read_only_target_is_one_message(raw, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(InputError, match=r"^[^\n]*out: cannot be written: Read-only file system$"):
        pack(FolderSource(raw), small_disk / "out")


@pytest.mark.parametrize("moment", ["a tar", "the index", "the description"])
def test_a_disk_that_is_full_at_any_moment(moment, raw, tmp_path, monkeypatch):
    """The same without mounting."""
    from affect.shards import tar_writer as writer

    def full(*_):
        raise OSError(28, "No space left on device")

    places = {
        "a tar": (writer.TarWriter, "_write"),
        "the index": (writer.Writer, "_flush"),
        "the description": (writer.DatasetInfo, "write"),
    }
    owner, name = places[moment]
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(InputError, match="out: cannot be written: No space left on device"):
        pack(FolderSource(raw), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


class Half:
    """A source without fingerprint and label_protocol."""

    layout, meta, filtered = None, {}, None

    def samples(self):
        return iter(())


def test_a_source_that_lacks_a_member_is_told_so_by_name(tmp_path):
    with pytest.raises(
        InputError, match=r"^Half: no label_protocol, no fingerprint; a source has all of layout, label_protocol,"
    ):
        pack(Half(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
