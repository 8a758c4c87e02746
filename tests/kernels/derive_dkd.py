"""Where the numbers in dkd.json come from: `python tests/kernels/derive_dkd.py > tests/kernels/dkd.json`.

mpmath with 60 digits, from the papers' formulas and not from the code. DKD: mdistiller's (Zhao et al., CVPR 2022, and the code
beside the paper): softmax at T, the pair (p_y, sum of the others), a second softmax of the others alone, KL of both, T^2,
alpha and beta, min(epoch / warmup, 1), a mean over the rows. Plain KD: Hinton's CE weight * CE + KD weight * T^2 KL(p^T || p^S),
with one softmax over all classes. Probabilities as plain quotients; the gradient by central differences of the whole loss
(step 1e-20: an error of about 1e-40). Logits and soft targets are the written decimals.
"""

from derive import write
from mpmath import exp, log, mp, mpf

mp.dps = 60

S3, T3 = [["1.5", "-0.5", "0.25"], ["-2", "3", "0.5"]], [["2", "1", "-1"], ["0.5", "1", "-1.5"]]
S5, T5 = [["0.3", "-1.2", "2.1", "0", "-0.7"]], [["1.1", "0.4", "3.2", "-2", "0.9"]]
S30 = [["3.1", "-2", "0.5", "1.25"], ["26", "-4", "2", "9.5"]]
T30 = [["29.4", "-6", "3.3", "11.1"], ["28.8", "-12", "7.5", "-3"]]
CASES = [
    dict(name="official, after the warm-up", student=S3, teacher=T3, target=[0, 2], epoch="40", warmup="20"),
    dict(name="official, epoch 5 of 20", student=S3, teacher=T3, target=[0, 2], epoch="5", warmup="20"),
    dict(name="official, epoch 0", student=S3, teacher=T3, target=[0, 2], epoch="0", warmup="20"),
    dict(name="official, ImageNet", student=S5, teacher=T5, target=[2], temperature="1", beta="0.5"),
    dict(name="the teacher is wrong", student=S5, teacher=T5, target=[3]),
    dict(
        name="the reference recipe's student", student=S3, teacher=T3, target=[1, 0], temperature="2", beta="4", ce="0.5",
        weight="0.5",
    ),
    dict(name="plain KD, mdistiller's .1 and .9", student=S3, teacher=T3, target=[0, 2], beta=None, ce="0.1", weight="0.9"),
    dict(name="plain KD alone, T 2", student=S5, teacher=T5, target=[1], beta=None, ce="0", temperature="2"),
    dict(name="a teacher peaked at s 30, T 1", student=S30, teacher=T30, target=[0, 0], temperature="1"),
    dict(name="student and teacher peaked, plain", student=S30[1:], teacher=T30[1:], target=[0], temperature="1", beta=None),
    dict(name="two classes", student=[["0.4", "-1"], ["2", "1"]], teacher=[["3", "-2"], ["0", "0.5"]], target=[1, 0]),
    dict(name="an ignored row, sample weights", student=[*S3, ["0", "1", "2"]], teacher=[*T3, ["-1", "0.5", "0"]],
         target=[0, -1, 1], sample_weight=["0.5", "3", "2"], alpha="0.75"),
    dict(name="soft targets", student=S3, teacher=T3, target=[["0.2", "0.7", "0.1"], ["0.5", "0", "0.5"]], beta="2"),
    dict(name="soft targets, plain, a sum", student=S3, teacher=T3, target=[["0.2", "0.7", "0.1"], ["0.1", "0.3", "0.6"]],
         beta=None, alpha="0.5", sample_weight=["2", "0.5"], reduction="sum"),
]  # fmt: skip


def softmax(row):
    return [exp(value) / sum(exp(other) for other in row) for value in row]


def kl(p, q):
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def without(row, y):
    return row[:y] + row[y + 1 :]


def loss_of(case, student):
    total = divisor = mpf(0)
    heat, alpha, ce = (mpf(case.get(name, default)) for name, default in (("temperature", "4"), ("alpha", "1"), ("ce", "1")))
    beta = mpf(case.get("beta", "8")) if case.get("beta", "") is not None else None
    weight = min(mpf(case["epoch"]) / mpf(case["warmup"]), 1) if "epoch" in case else mpf(case.get("weight", "1"))
    for i, (row, target) in enumerate(zip(student, case["target"], strict=True)):
        sample = mpf(case["sample_weight"][i]) if "sample_weight" in case else mpf(1)
        if target == -1 or sample == 0:
            continue
        shares = [mpf(int(j == target)) if isinstance(target, int) else mpf(target[j]) for j in range(len(row))]
        y = shares.index(max(shares))
        cross_entropy = sum(-q * log(p) for q, p in zip(shares, softmax(row), strict=True))
        cool_s, cool_t = [value / heat for value in row], [mpf(value) / heat for value in case["teacher"][i]]
        p_s, p_t = softmax(cool_s), softmax(cool_t)
        if beta is None:
            distil = alpha * kl(p_t, p_s)
        else:
            tckd = kl([p_t[y], sum(without(p_t, y))], [p_s[y], sum(without(p_s, y))])
            distil = alpha * tckd + beta * kl(softmax(without(cool_t, y)), softmax(without(cool_s, y)))
        total += sample * (ce * cross_entropy + weight * heat**2 * distil)
        divisor += sample
    return total if case.get("reduction") == "sum" else total / divisor


if __name__ == "__main__":
    write(CASES, "student", loss_of)
