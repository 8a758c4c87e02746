"""Figures from predictions, in numpy float64. Rows without a label are left out before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) rows that sum to 1."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def confusion(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts: rows are the true class, columns the predicted one."""
    return np.bincount(label * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def f1_per_class(matrix: np.ndarray) -> np.ndarray:
    """(C,) F1; 0 for a class that neither occurs nor is predicted."""
    hits = np.diag(matrix).astype(np.float64)
    return 2 * hits / np.maximum(matrix.sum(0) + matrix.sum(1), 1)


def minority(matrix: np.ndarray) -> np.ndarray:
    """The classes that occur, but in fewer than half as many rows as an equal share would be; of (C, C) counts."""
    support = matrix.sum(1)
    return np.flatnonzero((support > 0) & (2 * len(support) * support < support.sum()))


def nll(logits: np.ndarray, target: np.ndarray) -> float:
    """Mean cross-entropy against the target distributions, in nats."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float(-(target * log_p).sum(1).mean())


def brier(probs: np.ndarray, target: np.ndarray) -> float:
    """Mean over rows of sum_j (p_j - t_j)^2, from 0 to 2."""
    return float(((probs.astype(np.float64) - target) ** 2).sum(1).mean())


def reliability_bins(probs: np.ndarray, agreement: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """count, mean confidence and mean agreement in each of `bins` equal bins (lo, hi] of the confidence, the largest prob.

    agreement: (N,) 1 where the largest prob is the majority label, else 0; or the share of votes that its class got.
    Returns: {"count", "confidence", "agreement"}, each (bins,); the means are 0 where the count is.
    """
    confidence = probs.max(1).astype(np.float64)
    edges = np.arange(1, bins) / bins
    place = np.searchsorted(edges, confidence)  # on an edge: the bin below it
    count = np.bincount(place, minlength=bins)
    sums = {"confidence": confidence, "agreement": np.asarray(agreement, np.float64)}
    means = {name: np.bincount(place, values, bins) / np.maximum(count, 1) for name, values in sums.items()}
    return {"count": count, **means}


def ece_of(bins: dict[str, np.ndarray]) -> float:
    """Expected calibration error: mean |agreement - confidence| of the bins, each as often as it has rows."""
    return float(np.average(np.abs(bins["agreement"] - bins["confidence"]), weights=bins["count"]))


def ece(probs: np.ndarray, agreement: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error of the majority label or of the votes, by `agreement`: see `reliability_bins`.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    return ece_of(reliability_bins(probs, agreement, bins))


def reliability(logits: np.ndarray, target: np.ndarray, names: Sequence[str], *, present_only: bool = False) -> dict[str, Any]:
    """How right and how honest the probabilities are; a part of reliabilitymetrics.json.

    logits: (N, C). target: (N, C) distributions. `ece` and `brier` are of the majority label, `*_votes` of the distributions;
    `nll` is of the distributions, `nll_majority` of the label. With one-hot targets they are equal.
    `macro_f1` is the mean of `per_class_f1`, over all classes, or with `present_only` over those that occur as a label:
    `macro_f1_classes` of them. Predictions stay among all classes, so that one of an absent class is a miss of the true one.
    """
    probs, label, predicted = softmax(logits), target.argmax(1), logits.argmax(1)
    majority = np.eye(len(names))[label]
    matrix = confusion(label, predicted, len(names))
    way, f1 = summary(matrix), f1_per_class(matrix)
    averaged = np.flatnonzero(matrix.sum(1)) if present_only else np.arange(len(names))
    return {
        "rows": len(label),
        "accuracy": way["acc"],
        "macro_f1": float(f1[averaged].mean()),
        "macro_f1_classes": len(averaged),
        "per_class_f1": {names[i]: float(f1[i]) for i in averaged.tolist()},
        "bacc": way["bacc"],
        "nll": nll(logits, target),
        "nll_majority": nll(logits, majority),
        "ece": ece(probs, predicted == label),
        "ece_votes": ece(probs, target[np.arange(len(label)), predicted]),
        "brier": brier(probs, majority),
        "brier_votes": brier(probs, target),
    }


def macro_f1_interval(matrix: np.ndarray, resamples: int = 2000, seed: int = 0) -> list[float]:
    """[low, high], the 95 % percentile interval of macro-F1 over all classes, by a bootstrap over rows.

    matrix: (C, C) counts. Source: Efron, Annals of Statistics 1979; resampled rows are a multinomial draw of the cells.
    """
    rows = int(matrix.sum())
    random = np.random.default_rng(seed)
    drawn = random.multinomial(rows, (matrix / rows).ravel(), size=resamples).reshape(-1, *matrix.shape)
    hits = np.diagonal(drawn, axis1=1, axis2=2)
    f1 = (2 * hits / np.maximum(drawn.sum(1) + drawn.sum(2), 1)).mean(1)
    return np.percentile(f1, (2.5, 97.5)).tolist()


def summary(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy, macro-F1 over all classes of the matrix, balanced accuracy: the mean recall over the classes that occur."""
    support = matrix.sum(1)
    present = support > 0
    recall = np.diag(matrix)[present] / support[present]
    return {
        "acc": float(np.trace(matrix) / matrix.sum()),
        "macro_f1": float(f1_per_class(matrix).mean()),
        "bacc": float(recall.mean()),
    }


def classification(logits: np.ndarray, target: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """All figures of an output of classes.

    logits: (N, C). target: (N, C) distributions; the label is the largest share, the first of equals.
    Returns: {"<C>way": {acc, macro_f1, bacc}, "present_only": {..., present_idx, present_names, confusion}, nll, rows,
        per_class, minority, confusion}. minority: the names of the classes with few rows.
    `present_only` takes the largest logit among the classes that occur: a set without contempt has no contempt to predict.
    """
    classes = len(names)
    label = target.argmax(1)
    matrix = confusion(label, logits.argmax(1), classes)
    present = np.flatnonzero(matrix.sum(1))
    among = confusion(np.searchsorted(present, label), logits[:, present].argmax(1), len(present))
    f1 = f1_per_class(matrix)
    return {
        f"{classes}way": summary(matrix),
        "present_only": {
            **summary(among),
            "present_idx": present.tolist(),
            "present_names": [names[i] for i in present.tolist()],
            "masked": True,
            "confusion": among.tolist(),
        },
        "nll": nll(logits, target),
        "rows": len(label),
        "per_class": {name: {"f1": float(f1[i]), "support": int(matrix[i].sum())} for i, name in enumerate(names)},
        "minority": [names[i] for i in minority(matrix).tolist()],
        "confusion": matrix.tolist(),
    }
