"""Where the numbers in arcface_ce.json come from: `python tests/kernels/derive_arcface_ce.py > tests/kernels/arcface_ce.json`.

mpmath with 60 digits, from the papers' formulas and not from the code: the angle itself, theta = acos(c), and cos(theta + m);
past theta = pi - m insightface's cos_y - m sin m; softmax as plain quotients; the gradient by central differences
of the whole loss (step 1e-20: an error of about 1e-40). Shares of soft targets and cosines are the written decimals.
"""

from derive import write
from mpmath import acos, cos, exp, log, mp, mpf, pi, sin

mp.dps = 60

CASES = [
    dict(name="hard", cos=[["0.6", "-0.2", "0.1"], ["-0.3", "0.75", "0.5"]], target=[0, 2], scale="30", margin="0.5"),
    dict(name="no margin", cos=[["0.6", "-0.2", "0.1"], ["-0.3", "0.75", "0.5"]], target=[1, 1], scale="30", margin="0"),
    dict(name="past pi - m", cos=[["-0.95", "0.3", "0.2", "0"]], target=[0], scale="16", margin="0.5"),
    dict(name="just before pi - m", cos=[["-0.87", "0.3", "0.2", "0"]], target=[0], scale="16", margin="0.5"),
    dict(name="near zero angle", cos=[["0.9999", "-0.5"], ["0.2", "0.999"]], target=[0, 1], scale="4", margin="0.35"),
    dict(name="class weights", cos=[["0.1", "0.2", "0.3"], ["0.5", "-0.4", "-0.1"], ["0.7", "0.6", "0.9"]], target=[2, 0, 1],
         scale="8", margin="0.35", class_weight=["0.25", "1.5", "2"]),
    dict(name="smoothing", cos=[["0.1", "0.2", "0.3"], ["0.5", "-0.4", "-0.1"]], target=[2, 0], scale="8", margin="0.35",
         label_smoothing="0.1"),
    dict(name="class weights, smoothing, sample weights, an ignored row",
         cos=[["0.1", "0.2", "0.3"], ["0.5", "-0.4", "-0.1"], ["0.7", "0.6", "0.9"]], target=[2, -1, 1], scale="12",
         margin="0.2", class_weight=["0.25", "1.5", "2"], label_smoothing="0.055", sample_weight=["0.5", "3", "2"]),
    dict(name="soft", cos=[["0.1", "0.2", "0.3"], ["0.5", "-0.4", "-0.1"]], target=[["0.2", "0.7", "0.1"], ["0.5", "0", "0.5"]],
         scale="8", margin="0.35"),
    dict(name="soft, everything", cos=[["0.1", "0.2", "0.3"], ["0.5", "-0.4", "-0.9"], ["0.8", "0", "-0.8"]],
         target=[["0.2", "0.7", "0.1"], ["0.1", "0.3", "0.6"], ["1", "0", "0"]], scale="10", margin="0.5",
         class_weight=["0.25", "1.5", "2"], label_smoothing="0.1", sample_weight=["0.5", "3", "0"]),
    dict(name="a sum", cos=[["0.6", "-0.2", "0.1"], ["-0.3", "0.75", "0.5"]], target=[0, 2], scale="30", margin="0.5",
         sample_weight=["2", "0.5"], reduction="sum"),
    dict(name="steep", cos=[["-0.6", "0.97"]], target=[0], scale="64", margin="1.5"),
]  # fmt: skip


def loss_of(case, rows):
    total = divisor = mpf(0)
    eps, scale, margin = mpf(case.get("label_smoothing", "0")), mpf(case["scale"]), mpf(case["margin"])
    for i, (row, target) in enumerate(zip(rows, case["target"], strict=True)):
        classes, hard, sample = len(row), isinstance(target, int), mpf(case["sample_weight"][i]) if "sample_weight" in case else 1
        if target == -1 or sample == 0:
            continue
        shares = [mpf(int(j == target)) if hard else mpf(target[j]) for j in range(classes)]
        top = shares.index(max(shares))
        theta = acos(row[top])
        turned = cos(theta + margin) if theta < pi - margin else row[top] - margin * sin(margin)
        z = [scale * (turned if j == top else row[j]) for j in range(classes)]
        whole = sum(exp(value) for value in z)
        weights = [mpf(value) for value in case.get("class_weight", ["1"] * classes)]
        smooth = [(1 - eps) * share + eps / classes for share in shares]
        total += sample * sum(-w * q * log(exp(value) / whole) for w, q, value in zip(weights, smooth, z, strict=True))
        divisor += sample * (weights[top] if hard else 1)
    return total if case.get("reduction") == "sum" else total / divisor


if __name__ == "__main__":
    write(CASES, "cos", loss_of)
