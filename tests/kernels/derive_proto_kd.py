"""Where the numbers in proto_kd.json come from: `python tests/kernels/derive_proto_kd.py > tests/kernels/proto_kd.json`.

mpmath with 60 digits, from the formula and not from the code: cosines as plain quotients, softmax as plain quotients, KL term by
term over the shares above 0; the gradient by central differences of the whole loss (step 1e-20: an error of about 1e-40; for a
row of zeros, whose norm has its floor of 1e-12 there, too).
"""

from derive import write
from mpmath import exp, log, mp, mpf, sqrt

mp.dps = 60

FEATURES = [["0.5", "-1", "2"], ["3", "0.25", "-0.5"]]
PROTOTYPES = [["1", "0", "0"], ["0.2", "-0.6", "0.7"], ["-2", "1", "0.5"], ["0.1", "0.1", "-0.3"]]
TEACHER = [["0.4", "-0.7", "1"], ["-1", "2", "0.5"]]
SHARES = [["0.1", "0.2", "0.3", "0.4"], ["0.7", "0", "0.3", "0"]]

CASES = [
    dict(name="shares, some zero", target=SHARES),
    dict(name="one-hot, sharp", target=[["0", "1", "0", "0"], ["0", "0", "0", "1"]], temperature="0.05"),
    dict(name="teacher", teacher_features=TEACHER),
    dict(name="teacher, two temperatures", teacher_features=TEACHER, temperature="0.3", teacher_temperature="0.1"),
    dict(name="sample weights, a masked row, a sum", features=[*FEATURES, ["1", "1", "1"]],
         target=[*SHARES, ["0.25", "0.25", "0.25", "0.25"]], sample_weight=["0.5", "3", "0"], reduction="sum"),
    dict(name="sample weights, a mean", teacher_features=TEACHER, sample_weight=["0.5", "3"], temperature="0.9"),
    dict(name="over a count", target=SHARES, sample_weight=["2", "1"], count="7"),
    dict(name="a row of zeros, a prototype of zeros", features=[["0", "0", "0"], ["3", "0.25", "-0.5"]],
         prototypes=[["0", "0", "0"], *PROTOTYPES[1:]], target=SHARES),
]  # fmt: skip


def shares_of(row, prototypes, temperature):
    def norm(vector):
        return max(sqrt(sum(value**2 for value in vector)), mpf("1e-12"))

    cosines = [sum(a * b for a, b in zip(row, p, strict=True)) / (norm(row) * norm(p)) for p in prototypes]
    powers = [exp(cos / temperature) for cos in cosines]
    return [power / sum(powers) for power in powers]


def loss_of(case, rows):
    prototypes = [[mpf(value) for value in row] for row in case["prototypes"]]
    total = divisor = mpf(0)
    for i, row in enumerate(rows):
        if "target" in case:
            wanted = [mpf(value) for value in case["target"][i]]
        else:
            teacher = [mpf(value) for value in case["teacher_features"][i]]
            wanted = shares_of(teacher, prototypes, mpf(case.get("teacher_temperature", "0.9")))
        shares = shares_of(row, prototypes, mpf(case.get("temperature", "0.9")))
        sample = mpf(case["sample_weight"][i]) if "sample_weight" in case else 1
        total += sample * sum(t * log(t / s) for t, s in zip(wanted, shares, strict=True) if t > 0)
        divisor += sample
    return total if case.get("reduction") == "sum" else total / mpf(case.get("count", divisor))


if __name__ == "__main__":
    write([{"features": FEATURES, "prototypes": PROTOTYPES} | case for case in CASES], "features", loss_of)
