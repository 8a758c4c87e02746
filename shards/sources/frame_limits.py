"""Limits of what FFmpeg may decode: a video of a few kilobytes can have frames of gigabytes."""

from __future__ import annotations

import os
from typing import Any

from affect.shards.images import MOST_MEGAPIXELS, check_size

OPTIONS = {"max_pixels": str(MOST_MEGAPIXELS * 10**6)}  # of a frame; FFmpeg calls more an invalid argument
DECODER_BYTES = 256_000_000  # of the frames that its threads decode at once
PIXEL_BYTES = 1.5  # YUV 4:2:0


def limit(stream: Any) -> None:
    """Set the limits of a video stream before its first frame is decoded. Raises BadImage where its header names larger ones.

    The container is opened with OPTIONS, for opening it decodes frames too.
    """
    context = stream.codec_context
    check_size(context.width, context.height)
    context.options = OPTIONS
    stream.thread_type = "AUTO"
    threads = int(DECODER_BYTES / (PIXEL_BYTES * max(1, context.width * context.height)))
    if threads < (os.cpu_count() or 1):
        context.thread_count = max(1, threads)
