"""Shared by the tests of shards."""

import cv2
import pytest


@pytest.fixture
def write_csv(tmp_path, picture):
    """write_csv(lines, name) -> the CSV's path, beside pictures/0.png ... 2.png of 40 x 60 pixels."""
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "pictures" / f"{i}.png"), picture(40, 60, seed=i))

    def write(text, name="faces.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else "\n".join(text).encode())
        return path

    return write
