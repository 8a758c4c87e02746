"""proto_kd: the kernel against the float64 reference, the reference against worked numbers. Devices as in test_arcface_ce.py."""

import math

import pytest
import torch
import torch.nn.functional as F

from affect.kernels import one_hot_floor, proto_kd

from .common import DEVICE, DTYPES, GPU, numbers, worked
from .tolerances import assert_near

pytestmark = pytest.mark.slow

SHAPES = [(1, 2, 64), (20, 25, 70), (63, 7, 5), (130, 33, 64)] + ([(4097, 25, 512), (256, 64, 770)] if GPU else [])
CASES = (
    "soft", "one_hot", "zeros", "teacher", "everything", "everything_teacher", "masked", "masked_teacher", "all_masked",
    "transposed", "every_second", "sum", "count", "unscaled", "sharp",
)  # fmt: skip


def rows(case, B, K, D, dtype=torch.float32, seed=0):
    """-> features (B, D) of dtype, prototypes (K, D), keyword arguments."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random).to(DEVICE)

    features, prototypes, teacher = normal(B, D).to(dtype), normal(K, D).to(dtype), normal(B, D).to(dtype)
    # Not the default .9: at random cosines that leaves a KL of .01, the difference of two numbers of log K in float32.
    options = {"temperature": 0.2, "teacher_temperature": 0.1}
    if "teacher" in case or case == "every_second":
        options["teacher_features"] = teacher
    else:
        options["target"] = (2 * normal(B, K)).softmax(1)
    if case == "one_hot":
        options["target"] = F.one_hot(options["target"].argmax(1), K).to(dtype)
    if case == "zeros":
        options["target"] *= normal(B, K) > 0  # rows no longer sum to 1
        options["target"][::3] = 0
    if case.startswith("everything"):
        options["sample_weight"] = (torch.arange(B, device=DEVICE) % 4).float() + (B == 1)
        prototypes = prototypes.float()
    if case.startswith("masked"):
        options["sample_weight"] = (torch.arange(B, device=DEVICE) % 2).float()
        features[::2], options["teacher_features" if "teacher" in case else "target"][::2] = torch.nan, torch.nan
    if case == "all_masked":
        options["sample_weight"] = torch.zeros(B, device=DEVICE)
    if case == "transposed":
        features, prototypes = features.t().contiguous().t(), prototypes.t().contiguous().t()
        options["target"] = options["target"].t().contiguous().t()
    if case == "every_second":
        features, prototypes, teacher = (stretched(value) for value in (features, prototypes, teacher))
        options |= {"teacher_features": teacher, "sample_weight": torch.tensor([1.5], device=DEVICE).expand(B)}
    if case == "sum":
        options["reduction"] = "sum"
    if case == "count":
        options["count"] = torch.tensor(123.0, device=DEVICE)
    if case == "unscaled":
        features, prototypes = features * 300, prototypes / 1000
    if case == "sharp":
        options["temperature"] = 0.01
    return features, prototypes, options


def stretched(value):
    """The same values, each with a NaN after it and below it."""
    wide = torch.full((2 * len(value), 2 * value.shape[1]), torch.nan, device=value.device, dtype=value.dtype)
    wide[::2, ::2] = value
    return wide[::2, ::2]


def value_and_grad(provider, monkeypatch, features, prototypes, options, upstream=0.37):
    monkeypatch.setenv("KERNELS", provider)
    features = features.detach().requires_grad_()
    loss = proto_kd(features, prototypes, **options)
    return loss.detach(), torch.autograd.grad(upstream * loss, features)[0]


def hold_together(monkeypatch, features, prototypes, options):
    want, want_grad = value_and_grad("reference", monkeypatch, features.double(), prototypes, options)
    got, got_grad = value_and_grad("triton", monkeypatch, features, prototypes, options)
    assert got.dtype == torch.float32 and got_grad.dtype == features.dtype
    assert_near("loss", got, want)
    assert_near("dfeatures", got_grad, want_grad, features.dtype)
    return got, got_grad


@pytest.mark.parametrize("case", ["everything", "everything_teacher"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused_matches_reference_in_every_shape(shape, case, monkeypatch):
    hold_together(monkeypatch, *rows(case, *shape))


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy, about NaN beside the rows
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_fused_matches_reference_in_every_case(case, dtype, monkeypatch):
    hold_together(monkeypatch, *rows(case, 20, 7, 70, dtype, seed=1))


@pytest.mark.parametrize("case", ["everything", "teacher", "all_masked", "sum"])
def test_every_element_is_written_and_none_beside_them(case, monkeypatch, guarded):
    features, prototypes, options = rows(case, 20, 3, 70)
    with guarded(at_least=5):  # partial sums, loss, share, dfeatures, and the backward pass's output
        value_and_grad("triton", monkeypatch, features, prototypes, options)


@pytest.mark.slow
def test_two_runs_are_bit_equal(monkeypatch):
    first, second = (value_and_grad("triton", monkeypatch, *rows("everything_teacher", 130, 25, 70)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_teacher_features_are_the_distribution_they_give(provider, monkeypatch):
    features, prototypes, options = rows("everything_teacher", 20, 7, 70)
    loss, grad = value_and_grad(provider, monkeypatch, features, prototypes, options)
    cos = F.normalize(options.pop("teacher_features")) @ F.normalize(prototypes).t()
    options["target"] = (cos / options["teacher_temperature"]).softmax(1)
    by_target, by_target_grad = value_and_grad(provider, monkeypatch, features, prototypes, options)
    assert torch.allclose(loss, by_target, rtol=1e-5) and torch.allclose(grad, by_target_grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_a_student_that_points_as_the_teacher_has_no_loss_and_no_gradient(provider, monkeypatch):
    features, prototypes, _ = rows("teacher", 20, 25, 70)
    options = {"teacher_features": 2.5 * features}  # the defaults: equal temperatures
    loss, grad = value_and_grad(provider, monkeypatch, features, prototypes, options)
    assert loss.abs() < 1e-6 and grad.abs().max() < 1e-8


@pytest.mark.parametrize("provider", ["reference", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_of_zeros_has_the_gradient_of_normalize(dtype, provider, monkeypatch):
    features, prototypes, options = rows("soft", 9, 4, 70, dtype)
    features[3] = 0
    loss, grad = value_and_grad(provider, monkeypatch, features, prototypes, options)
    want, want_grad = value_and_grad("reference", monkeypatch, features.double(), prototypes, options)
    assert_near("loss", loss, want)
    for row in range(9):  # one by one: a row's 1e12 would be the measure of all
        assert_near(f"row {row}", grad[row], want_grad[row], dtype)
    assert grad.isfinite().all() and grad[3].abs().max() > 1e8


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_nan_in_gives_nan_out_in_that_row_alone(provider, monkeypatch):
    for name in ("features", "target", "teacher_features"):
        features, prototypes, options = rows("teacher" if name == "teacher_features" else "soft", 9, 4, 70)
        (features if name == "features" else options[name])[4, 2] = torch.nan
        loss, grad = value_and_grad(provider, monkeypatch, features, prototypes, options)
        assert loss.isnan() and grad[4].isnan().all() and grad[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()
        options["sample_weight"] = (torch.arange(9, device=DEVICE) != 4).float()
        loss, grad = value_and_grad(provider, monkeypatch, features, prototypes, options)
        assert loss.isfinite() and grad.isfinite().all() and not grad[4].any()


@pytest.mark.parametrize("case", **worked("proto_kd"))
def test_reference_gives_the_worked_numbers(case, monkeypatch):
    """derive_proto_kd.py: 60 digits, gradients by differences."""
    options = {name: float(case[name]) for name in ("temperature", "teacher_temperature") if name in case}
    options |= {name: numbers(case[name]) for name in ("target", "teacher_features", "sample_weight") if name in case}
    options |= {"count": torch.tensor(float(case["count"]))} if "count" in case else {}
    options |= {"reduction": case.get("reduction", "mean")}
    features, prototypes = numbers(case["features"]), numbers(case["prototypes"])
    loss, grad = value_and_grad("reference", monkeypatch, features, prototypes, options, upstream=1.0)
    assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-13)
    assert torch.allclose(grad, numbers(case["gradient"]), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("case", ["everything", "everything_teacher", "zeros"])
def test_gradcheck_and_gradgradcheck_of_the_reference(case):
    features, prototypes, options = rows(case, 4, 3, 5)
    features = features.double().requires_grad_()

    def loss(features):
        return proto_kd(features, prototypes, **options)

    assert torch.autograd.gradcheck(loss, features) and torch.autograd.gradgradcheck(loss, features)


@pytest.mark.parametrize("case", ["everything", "everything_teacher"])
def test_opcheck(case):
    from affect.kernels.proto_kd.fused import loss_and_grad

    features, prototypes, options = rows(case, 6, 3, 5, torch.bfloat16)
    tensors = (options.get("target"), options.get("teacher_features"), options["sample_weight"], None)
    torch.library.opcheck(loss_and_grad, (features.requires_grad_(), prototypes, *tensors, 0.9, 0.9, True, True))


def test_torch_compile_keeps_it_in_one_graph(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    features, prototypes, options = rows("everything_teacher", 20, 5, 70)
    leaf = features.requires_grad_()

    def loss(features):
        return proto_kd(features * 0.5, prototypes, **options)

    want, got = loss(leaf), torch.compile(loss, fullgraph=True, backend="aot_eager")(leaf)
    assert torch.equal(got, want)
    assert torch.equal(torch.autograd.grad(got, leaf)[0], torch.autograd.grad(want, leaf)[0])


def test_a_second_derivative_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    features, prototypes, options = rows("soft", 6, 3, 5)
    (grad,) = torch.autograd.grad(proto_kd(features.requires_grad_(), prototypes, **options), features, create_graph=True)
    with pytest.raises(RuntimeError, match="proto_kd: the kernel has no second derivative; KERNELS=reference"):
        grad.sum().backward()


def test_more_prototypes_than_fit_run_the_reference(monkeypatch):
    features, prototypes, options = rows("soft", 3, 65, 5)
    assert torch.equal(*(value_and_grad(p, monkeypatch, features, prototypes, options)[1] for p in ("triton", "reference")))


@pytest.mark.parametrize("temperature", [0.05, 0.9, 4.0])
def test_the_floor_of_a_one_hot_target_is_reached_by_opposite_prototypes(temperature):
    pole = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    prototypes, target = torch.cat([pole, *[-pole] * 24]), F.one_hot(torch.tensor([0]), 25).double()
    loss = proto_kd(3 * pole, prototypes, target, temperature=temperature)
    assert loss.item() == pytest.approx(one_hot_floor(25, temperature), rel=1e-9)
    assert math.exp(-one_hot_floor(25, 0.9)) == pytest.approx(0.28, abs=0.005)  # formulas.md


BAD = {
    "no rows": ({"features": torch.zeros(0, 5)}, r"features: expected at least one row, found \(0, 5\)"),
    "other width": ({"prototypes": torch.zeros(3, 6)}, r"prototypes: expected \(K, 5\) .* is \(4, 5\), found \(3, 6\)"),
    "one prototype": ({"prototypes": torch.zeros(1, 5)}, r"prototypes: expected \(K, 5\) with K >= 2, .* found \(1, 5\)"),
    "one axis": ({"prototypes": torch.zeros(5)}, r"prototypes: expected \(K, 5\) .* found \(5,\)"),
    "integer prototypes": ({"prototypes": torch.zeros(3, 5).int()}, "prototypes: expected a float dtype, found torch.int32"),
    "prototypes elsewhere": ({"prototypes": torch.zeros(3, 5, device="meta")}, "prototypes: expected a tensor on cpu"),
    "learned prototypes": ({"prototypes": torch.zeros(3, 5, requires_grad=True)}, "prototypes: expected no gradient .*detach"),
    "no target": ({"target": None}, "target: expected either it or teacher_features, found neither"),
    "two targets": ({"teacher_features": torch.zeros(4, 5)}, "target: expected either it or teacher_features, found both"),
    "learned target": ({"target": torch.zeros(4, 3, requires_grad=True)}, "target: expected no gradient"),
    "labels": ({"target": torch.zeros(4).long()}, r"target: expected \(4, 3\), found \(4,\)"),
    "other teacher": ({"target": None, "teacher_features": torch.zeros(4, 3)}, r"teacher_features: expected \(4, 5\), found"),
    "temperature 0": ({"temperature": 0.0}, "temperature: expected a finite number > 0, found 0.0"),
    "teacher's temperature": ({"teacher_temperature": math.nan}, "teacher_temperature: expected a finite number > 0, found nan"),
    "reduction": ({"reduction": "none"}, "reduction: expected 'sum' or 'mean', found 'none'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_argument_expected_and_found(name):
    change, message = BAD[name]
    arguments = {"features": torch.zeros(4, 5), "prototypes": torch.zeros(3, 5), "target": torch.zeros(4, 3)} | change
    with pytest.raises(ValueError, match=f"^proto_kd: {message}"):
        proto_kd(**arguments)


def test_values_are_read_only_when_asked_for(monkeypatch):
    features, prototypes, options = rows("soft", 4, 3, 5)
    good = options | {"sample_weight": torch.tensor([1.0, 1, 0, 1], device=DEVICE)}
    good["target"][2] = torch.nan  # in a row without weight
    bad = [
        ({"target": torch.full((4, 3), 0.5, device=DEVICE)}, "target: expected distributions: .* found .*0.5.* in row 0"),
        ({"sample_weight": torch.tensor([1.0, -1, 0, 1], device=DEVICE)}, "sample_weight: expected no negative"),
    ]
    for change, _ in bad:
        proto_kd(features, prototypes, **(good | change))
    monkeypatch.setenv("KERNELS_CHECK", "1")
    proto_kd(features, prototypes, **good)
    for change, message in bad:
        with pytest.raises(ValueError, match=f"proto_kd: {message}"):
            proto_kd(features, prototypes, **(good | change))
