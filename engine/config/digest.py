"""The hash of a configuration: two runs with the same digest learn the same from the same rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

NOT_LEARNED = ("loader", "workers", "margin", "align")  # of `data`
NAMES = ("name", "stage", "species", "subject", "view", "chosen_on")  # nothing is learned from them


def digest_of(value: dict[str, Any]) -> str:
    """Hash a configuration as it is written in a file. Settings added later are left out where they are off: digests stay."""
    learned = {key: part for key, part in value.items() if key not in ("train", "calibration", *NAMES)}
    learned["data"] = {key: part for key, part in learned["data"].items() if key not in NOT_LEARNED}
    if clahe := learned["data"].get("clahe"):  # under the name that digests were made with
        learned["data"]["clahe"] = {"clip" if key == "clip_limit" else key: part for key, part in clahe.items()}
    learned["data"]["augment"] = dict(learned["data"].get("augment", {}))
    learned["model"] = dict(learned["model"])
    data, augment = learned["data"], learned["data"]["augment"]
    for section, later in (
        (data, "clip"),
        (data, "folds"),
        (data, "side"),
        (augment, "stronger"),
        (learned["model"], "options"),
        (learned["model"], "mirror"),
    ):
        if not section.get(later):  # added later: where it is off, a run is what it was before
            section.pop(later, None)
    learned["optim"] = {key: part for key, part in learned["optim"].items() if (key, part) != ("keep", "best")}
    return hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()
