"""What a run learns from, as one hash: two runs with the same digest learn the same from the same rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

NOT_LEARNED = ("loader", "workers", "margin", "align")  # of `data`
WORDS = ("name", "stage", "species", "subject", "view", "chosen_on")  # what a run is called: nothing is learned from it


def digest_of(value: dict[str, Any]) -> str:
    """Of a configuration as it is written: one from before a setting came to be has the digest that it had."""
    kept = {key: part for key, part in value.items() if key not in ("train", "calibration", *WORDS)}
    kept["data"] = {key: part for key, part in kept["data"].items() if key not in NOT_LEARNED}
    if clahe := kept["data"].get("clahe"):  # under the name that digests were made with
        kept["data"]["clahe"] = {"clip" if key == "clip_limit" else key: part for key, part in clahe.items()}
    kept["data"]["augment"] = dict(kept["data"].get("augment", {}))
    kept["model"] = dict(kept["model"])
    data, augment = kept["data"], kept["data"]["augment"]
    for section, later in (
        (data, "clip"),
        (data, "folds"),
        (data, "side"),
        (augment, "stronger"),
        (kept["model"], "options"),
        (kept["model"], "mirror"),
    ):
        if not section.get(later):  # a setting that came later: off, a run is what it was before
            section.pop(later, None)
    kept["optim"] = {key: part for key, part in kept["optim"].items() if (key, part) != ("keep", "best")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
