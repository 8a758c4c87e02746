"""A video of drawn people who are in no training data, with the emotion that each shows."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from affect.shards.synthetic import faces
from affect.shards.synthetic.expressions import EMOTIONS

FPS, SECONDS, SIZE_PX = 25, 2, 96
APEX = 0.8  # of full strength, from which a frame of the video counts as showing its emotion


def write_video(path: Path) -> dict[int, str]:
    """Write people who each go from neutral to an emotion and back; return frame -> emotion of the frames at the apex."""
    shown: dict[int, str] = {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIZE_PX, SIZE_PX, "yuv420p", 2_000_000
        for person, emotion in enumerate(EMOTIONS[1:]):
            pictures, strength = faces.video(7, 1000 + person, emotion, FPS * SECONDS, size=SIZE_PX)
            first = person * FPS * SECONDS
            shown |= {first + int(i): emotion for i in np.flatnonzero(strength > APEX)}
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return shown
