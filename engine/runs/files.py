"""The files of a run and of a sweep by name; imports nothing, so that what only reads them starts at once."""

from __future__ import annotations

CONFIG, HISTORY, METRICS, FINGERPRINT = "config.yaml", "history.json", "metrics.json", "fingerprint.json"
LAST, BEST = "checkpoint_last.pt", "best.pt"
RELIABILITY = "reliabilitymetrics.json"
WRITTEN_LAST = "last.onnx"  # the last file that engine/pipeline.py writes: the run is finished
PREDICTIONS = "predictions.npz"
SOFT_LABELS = "softlabels.npz"  # in a folder of soft labels
EVALUATED = "evaluated"  # and the name of a set: the folder, in a run, of its figures by `affect evaluate`
ALIGNMENT = "alignmentreport.json"
ABLATION, CONDA = "ablation_fingerprint.json", "env_conda.yml"
CRITERIA = "criteria.md"
SWEEP, CHOSEN = "sweep.json", "chosen.yaml"
CROSSVAL = "crossval.json"
XVAL = "xval_"  # and the name of a set: the folder, in a run, of its figures there
