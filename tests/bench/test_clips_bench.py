"""The bench of clips times providers that make the same clips, and says what each is held against."""

import json

import numpy as np
import pytest

pytest.importorskip("nvidia.dali")

from affect.bench import clips, record
from affect.bench.loader import Timing
from affect.shards.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Four clips of six frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "FRAMES", 6)
        yield clips.Work.of(clips.packed(4, tmp_path_factory.mktemp("bench")), 2, workers=1)


@pytest.mark.parametrize("name", [*clips.providers()])
def test_a_provider_makes_the_plain_clips(work, name):
    assert clips.compare(work, name, clips.providers()[name](work)) <= (8 if name == clips.MP4 else 1)


def test_a_video_has_more_frames_than_are_packed(work):
    import av

    with av.open(str(clips.video_file(work.files, 0))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5 * (clips.BETWEEN + 1) + 1
    assert work.dataset.column("num_frames").tolist() == [6] * 4
    assert np.allclose(work.dataset.times_s(0), np.array(clips.seen()) / clips.RATE_HZ)


@pytest.mark.parametrize("name", ["plain", clips.MP4])
def test_nothing_is_timed_where_the_clips_differ(work, name):
    turned = ((samples, images.flip(1)) for samples, images in clips.ours("plain", work))  # backwards
    inverted = ((samples, 255 - images) for samples, images in turned)
    with pytest.raises(InputError, match="makes other clips: .* levels off"):
        clips.compare(work, name, inverted)


def test_a_line_says_what_each_is_held_against(work, tmp_path):
    lines = clips.bench_clips(work.dataset, 2, 1, Timing(seconds=0.05, rounds=1), lambda count: None)
    read = [json.loads(text) for text in record.append(lines, tmp_path).read_text().splitlines()]
    assert [line["provider"] for line in read] == [*clips.providers()]
    for line in read:
        assert line["op"] == "loader.clips" and line["clips_per_s"]["p50"] > 0 and [*line["ratio_to"]] == [*clips.PEERS]
        assert line["ratio_to_best_peer"] == min(line["ratio_to"].values())
        assert line["versions"].keys() == {"torch", "dali", "opencv", "av"} and str(work.files) not in json.dumps(line)
