"""arcface_ce: the kernel against the float64 reference, the reference against torch and worked numbers.

Without a GPU the kernel runs in Triton's interpreter on small shapes. With one, all of it, compiled:
CUDA_VISIBLE_DEVICES=0 pytest tests/kernels
"""

import math

import pytest
import torch
import torch.nn.functional as F

from affect.kernels import arcface_ce
from affect.kernels.arcface_ce.reference import with_margin

from .common import DEVICE, DTYPES, GPU, numbers, worked
from .tolerances import assert_near

BATCHES, CLASSES = ((1, 63, 256, 4097), (2, 7, 8, 14, 33, 1000)) if GPU else ((1, 63, 130), (2, 7, 8, 14, 33))
CASES = (
    "hard", "soft", "smoothed", "class_weight", "sample_weight", "everything_hard", "everything_soft", "margin_tensor",
    "no_margin", "some_ignored", "all_ignored", "masked", "saturated", "past_pi", "transposed", "every_second", "sum", "count",
    "ties",
)  # fmt: skip


def rows(case, B, C, dtype=torch.float32, seed=0):
    """-> cos (B, C) of dtype, target, keyword arguments."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape, low=0.0, high=1.0):
        return (low + (high - low) * torch.rand(*shape, generator=random)).to(DEVICE)

    options = {"scale": 30.0, "margin": 0.35}
    cos = uniform(B, C, low=-0.98, high=0.98).to(dtype)
    target = torch.randint(C, (B,), generator=random).to(DEVICE)
    if case in ("soft", "everything_soft", "masked", "count", "ties"):
        target = (3 * uniform(B, C)).softmax(1)
    if case in ("smoothed", "everything_hard", "everything_soft"):
        options["label_smoothing"] = 0.1
    if case in ("class_weight", "everything_hard", "everything_soft", "count"):
        options["class_weight"] = uniform(C, low=0.2, high=3.0)
    if case in ("sample_weight", "everything_hard", "everything_soft", "sum", "count"):
        options["sample_weight"] = uniform(B, low=0.2, high=2.0)
    if case in ("margin_tensor", "everything_hard", "everything_soft"):
        options["margin"] = torch.tensor(0.5, device=DEVICE)
    if case == "no_margin":
        options["margin"] = 0.0
    if case in ("some_ignored", "everything_hard"):
        target[::3] = -1
    if case == "all_ignored":
        target[:] = -1
    if case == "masked":  # unlabelled samples of a batch: the weight says so, the rest may be anything
        options["sample_weight"] = (torch.arange(B, device=DEVICE) % 2).float()
        cos[::2], target[::2] = torch.nan, torch.nan
    if case == "saturated":
        cos = cos.sign()
    if case == "past_pi":
        options["margin"] = 1.2
        cos[torch.arange(B), target] = uniform(B, low=-0.97, high=-0.6).to(dtype)
    if case == "transposed":
        cos = cos.t().contiguous().t()
    if case == "every_second":
        wide = torch.full((B * 2, C * 2), torch.nan, device=DEVICE, dtype=dtype)
        wide[::2, ::2] = cos
        cos = wide[::2, ::2]
        target = torch.stack([target, torch.full_like(target, -7)], 1)[:, 0]
        options["class_weight"] = torch.linspace(0.5, 2, 2 * C, device=DEVICE)[::2]
        options["sample_weight"] = torch.tensor([1.5], device=DEVICE).expand(B)
    if case == "sum":
        options["reduction"] = "sum"
    if case == "count":
        options["count"] = torch.tensor(123.0, device=DEVICE)
    if case == "ties":
        target[:] = torch.full((C,), 1 / C, device=DEVICE)
    return cos, target, options


def value_and_grad(provider, monkeypatch, cos, target, options, upstream=0.37):
    monkeypatch.setenv("KERNELS", provider)
    cos = cos.detach().requires_grad_()
    loss = arcface_ce(cos, target, **options)
    return loss.detach(), torch.autograd.grad(upstream * loss, cos)[0]


def hold_together(monkeypatch, cos, target, options):
    want, want_grad = value_and_grad("reference", monkeypatch, cos.double(), target, options)
    got, got_grad = value_and_grad("triton", monkeypatch, cos, target, options)
    assert got.dtype == torch.float32 and got_grad.dtype == cos.dtype
    assert_near("loss", got, want, cos.dtype)
    assert_near("dcos", got_grad, want_grad, cos.dtype)


@pytest.mark.parametrize("case", CASES if GPU else ("everything_hard", "everything_soft"))
@pytest.mark.parametrize("C", CLASSES)
@pytest.mark.parametrize("B", BATCHES)
def test_fused_matches_reference_in_every_shape(B, C, case, monkeypatch):
    hold_together(monkeypatch, *rows(case, B, C))


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy, about the NaN in ignored rows
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_fused_matches_reference_in_every_case(case, dtype, monkeypatch):
    hold_together(monkeypatch, *rows(case, 63, 7, dtype, seed=1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_a_value_of_any_dtype_comes_back_in_float32(provider, dtype, monkeypatch):
    cos, target, options = rows("everything_soft", 5, 3, dtype)
    options = {name: value.to(dtype) if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    hold_together(monkeypatch, cos, target.to(dtype), options)
    assert value_and_grad(provider, monkeypatch, cos, target.to(dtype), options)[0].dtype == torch.float32


@pytest.mark.parametrize("case", ["everything_hard", "all_ignored", "sum"])
def test_every_element_is_written_and_none_beside_them(case, monkeypatch, guarded):
    for B, C in ((5, 3), (33, 33)):
        cos, target, options = rows(case, B, C)
        with guarded(at_least=5):  # partial sums, loss, share, dcos, and the backward pass's output
            loss, grad = value_and_grad("triton", monkeypatch, cos, target, options)
        assert loss.isfinite() and grad.isfinite().all()


def test_two_runs_are_bit_equal(monkeypatch):
    first, second = (value_and_grad("triton", monkeypatch, *rows("everything_soft", 130, 33)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_a_margin_as_a_tensor_is_the_same_margin(monkeypatch):
    cos, target, options = rows("hard", 63, 8)
    number = value_and_grad("triton", monkeypatch, cos, target, options)
    tensor = value_and_grad("triton", monkeypatch, cos, target, options | {"margin": torch.tensor(0.35, device=DEVICE)})
    assert torch.equal(number[0], tensor[0]) and torch.equal(number[1], tensor[1])


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_nan_in_gives_nan_out_and_ignored_rows_may_hold_it(provider, monkeypatch):
    cos, target, options = rows("hard", 9, 4)
    cos[4, 2] = torch.nan
    loss, grad = value_and_grad(provider, monkeypatch, cos, target, options)
    assert loss.isnan() and grad[4].isnan().all() and grad[:4].isfinite().all()
    target[4] = -1
    loss, grad = value_and_grad(provider, monkeypatch, cos, target, options)
    assert loss.isfinite() and grad.isfinite().all() and not grad[4].any()


@pytest.mark.parametrize("provider", ["reference", "triton"])
@pytest.mark.parametrize("label", [4, -2, 2**40])
def test_a_label_outside_the_classes_gives_nan(label, provider, monkeypatch):
    cos, target, options = rows("class_weight", 9, 4)
    target[3] = label
    assert value_and_grad(provider, monkeypatch, cos, target, options)[0].isnan()


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_nothing_to_count_is_zero_with_zero_gradient(provider, monkeypatch):
    cos, target, options = rows("all_ignored", 9, 4)
    zero = torch.zeros((), device=DEVICE)
    for more in ({}, {"count": zero}, {"reduction": "sum"}, {"class_weight": torch.zeros(4, device=DEVICE)}):
        loss, grad = value_and_grad(provider, monkeypatch, cos, target, options | more)
        assert loss == 0 and not grad.any()


@pytest.mark.parametrize("provider", ["reference", "triton"])
@pytest.mark.parametrize("hard", [True, False])
def test_parts_of_a_batch_with_the_count_of_all_add_up_to_the_whole(hard, provider, monkeypatch):
    cos, target, options = rows("everything_hard" if hard else "everything_soft", 20, 5)
    weight, labels = options["sample_weight"], target.clamp_min(0)
    counts = weight * (target >= 0) * options["class_weight"][labels] if hard else weight
    whole, whole_grad = value_and_grad(provider, monkeypatch, cos, target, options)
    parts = [
        value_and_grad(
            provider, monkeypatch, cos[part], target[part], options | {"sample_weight": weight[part], "count": counts.sum()}
        )
        for part in (slice(0, 7), slice(7, 20))
    ]
    assert torch.allclose(sum(loss for loss, _ in parts), whole, rtol=1e-5)
    assert torch.allclose(torch.cat([grad for _, grad in parts]), whole_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_without_margin_and_scale_it_is_torchs_cross_entropy(provider, hard, smoothing, weighted, monkeypatch):
    random = torch.Generator().manual_seed(3)
    logits = (3 * torch.randn(33, 8, generator=random)).to(DEVICE)
    target = torch.randint(-1, 8, (33,), generator=random).to(DEVICE) if hard else torch.rand(33, 8, generator=random).to(DEVICE)
    target = target if hard else target / target.sum(1, keepdim=True)
    weight = torch.linspace(0.2, 3, 8, device=DEVICE) if weighted else None
    options = {"scale": 1.0, "margin": 0.0, "class_weight": weight, "label_smoothing": smoothing}
    loss, grad = value_and_grad(provider, monkeypatch, logits, target, options, upstream=0.37)
    logits.requires_grad_()
    want = F.cross_entropy(logits, target, weight=weight, label_smoothing=smoothing, **({"ignore_index": -1} if hard else {}))
    assert torch.allclose(loss, want, rtol=2e-6)
    assert torch.allclose(grad, torch.autograd.grad(0.37 * want, logits)[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("margin", [0.1, 0.35, 1.5])
def test_margin_is_cos_theta_plus_m_and_keeps_falling_past_pi(margin):
    theta = torch.linspace(0.01, math.pi - 0.01, 500, dtype=torch.float64)
    psi = with_margin(theta.cos(), margin)
    inside = theta + margin < math.pi
    assert torch.allclose(psi[inside], (theta + margin).cos()[inside], atol=1e-4)  # the floor of 1 - cos^2, near 0 and pi
    assert (psi.diff() < 0).all()  # falls on both branches and from one to the other


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_no_margin_leaves_logits_that_are_no_cosines(provider, monkeypatch):
    """As the engine has it before the margin starts: the plain head's logits over the scale."""
    logits = (100 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))).to(DEVICE)
    target = torch.arange(6, device=DEVICE) % 4
    options = {"scale": 30.0, "margin": torch.zeros((), device=DEVICE)}
    loss, grad = value_and_grad(provider, monkeypatch, logits / 30, target, options, upstream=1.0)
    logits.requires_grad_()
    want = F.cross_entropy(logits, target)
    assert torch.allclose(loss, want, rtol=1e-5)
    assert torch.allclose(grad / 30, torch.autograd.grad(want, logits)[0], atol=1e-6)


@pytest.mark.parametrize("case", **worked("arcface_ce"))
def test_reference_gives_the_worked_numbers(case, monkeypatch):
    """derive_arcface_ce.py: 60 digits, by the angle itself, gradients by differences."""
    hard = isinstance(case["target"][0], int)
    target = torch.tensor(case["target"]) if hard else numbers(case["target"])
    options = {name: float(case[name]) for name in ("scale", "margin", "label_smoothing") if name in case}
    options |= {name: numbers(case[name]) for name in ("class_weight", "sample_weight") if name in case}
    options |= {"reduction": case.get("reduction", "mean")}
    loss, grad = value_and_grad("reference", monkeypatch, numbers(case["cos"]), target, options, upstream=1.0)
    assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-13)
    assert torch.allclose(grad, numbers(case["gradient"]), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("case", ["everything_hard", "everything_soft", "past_pi"])
def test_gradcheck_and_gradgradcheck_of_the_reference(case):
    cos, target, options = rows(case, 4, 3, seed=2)
    options["scale"] = 4.0

    def loss(cos):
        return arcface_ce(cos, target, **options)

    cos = cos.double().requires_grad_()
    assert torch.autograd.gradcheck(loss, cos) and torch.autograd.gradgradcheck(loss, cos)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["everything_hard", "everything_soft"])
def test_opcheck(case):
    from affect.kernels.arcface_ce.fused import loss_and_grad
    from affect.kernels.gradient import stored_gradient

    cos, target, options = rows(case, 6, 3, torch.bfloat16)
    tensors = (options["margin"], options["class_weight"], options["sample_weight"], None)
    torch.library.opcheck(loss_and_grad, (cos.requires_grad_(), target, *tensors, 0.0, 30.0, 0.1, -1, True, True))
    share = torch.tensor(0.5, device=DEVICE)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")  # it has no gradient on purpose
    torch.library.opcheck(stored_gradient, ("op", cos.detach().float(), share, share, torch.bfloat16), test_utils=tests)


@pytest.mark.slow
def test_torch_compile_keeps_it_in_one_graph(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    cos, target, options = rows("everything_hard", 20, 5)
    graphs = []

    def backend(graph, _inputs):
        graphs.append(str(graph.graph))
        return graph

    def loss(cos, margin):
        return arcface_ce(cos * 0.5, target, **(options | {"margin": margin}))

    leaf = cos.requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    watched = torch.compile(loss, fullgraph=True, backend=backend)
    for margin in (0.1, 0.4):
        margin = torch.tensor(margin, device=DEVICE)
        want = loss(leaf, margin)
        got = compiled(leaf, margin)
        assert torch.equal(got, want) and torch.equal(watched(leaf, margin), want)
        assert torch.equal(torch.autograd.grad(got, leaf)[0], torch.autograd.grad(want, leaf)[0])
    assert len(graphs) == 1 and graphs[0].count("affect.arcface_ce") == 1  # a new margin recompiles nothing


def test_a_second_derivative_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    cos, target, options = rows("hard", 6, 3)
    (grad,) = torch.autograd.grad(arcface_ce(cos.requires_grad_(), target, **options), cos, create_graph=True)
    with pytest.raises(RuntimeError, match="arcface_ce: the kernel has no second derivative; KERNELS=reference"):
        grad.sum().backward()


def test_without_a_gradient_none_is_stored(monkeypatch):
    from affect.kernels.arcface_ce import fused

    monkeypatch.setenv("KERNELS", "triton")
    cos, target, options = rows("hard", 6, 3)
    stored = []
    monkeypatch.setattr(fused, "loss_and_grad", lambda *args: stored.append(args[-1]) or (torch.zeros(()), None, None))
    arcface_ce(cos, target, **options)
    cos.requires_grad_()
    arcface_ce(cos, target, **options)
    with torch.no_grad():
        arcface_ce(cos, target, **options)
    assert stored == [False, True, False]
    monkeypatch.undo()
    want = value_and_grad("triton", monkeypatch, cos, target, options)[0]
    assert torch.equal(arcface_ce(cos.detach(), target, **options), want)


BAD = {
    "three axes": ({"cos": torch.zeros(4, 3, 2)}, r"cos: expected two axes, found \(4, 3, 2\)"),
    "integer cosines": ({"cos": torch.zeros(4, 3, dtype=torch.int64)}, "cos: expected float32, .* found torch.int64"),
    "no rows": ({"cos": torch.zeros(0, 3)}, r"cos: expected at least one row, found \(0, 3\)"),
    "one class": ({"cos": torch.zeros(4, 1)}, r"cos: expected at least two classes, found \(4, 1\)"),
    "other rows": ({"target": torch.zeros(5).long()}, r"target: expected \(4,\) labels or \(4, 3\) distributions, found \(5,\)"),
    "int32 labels": ({"target": torch.zeros(4).int()}, "target: expected int64 labels, found torch.int32"),
    "integer shares": ({"target": torch.zeros(4, 3).long()}, "target: expected distributions of a float dtype, found"),
    "target elsewhere": ({"target": torch.zeros(4, device="meta").long()}, "target: expected a tensor on .*, found meta"),
    "target with a gradient": ({"target": torch.rand(4, 3, requires_grad=True)}, "target: expected no gradient .*detach"),
    "scale 0": ({"scale": 0.0}, "scale: expected a finite number > 0, found 0.0"),
    "scale NaN": ({"scale": math.nan}, "scale: expected a finite number > 0, found nan"),
    "margin pi / 2": ({"margin": math.pi / 2}, r"margin: expected radians in \[0, pi / 2\), found 1.57"),
    "negative margin": ({"margin": -0.1}, r"margin: expected radians in \[0, pi / 2\), found -0.1"),
    "a margin per row": ({"margin": torch.zeros(4)}, r"margin: expected \(\), found \(4,\)"),
    "an integer margin tensor": ({"margin": torch.tensor(0)}, "margin: expected a float dtype, found torch.int64"),
    "class weights": ({"class_weight": torch.ones(4)}, r"class_weight: expected \(3,\), found \(4,\)"),
    "sample weights": ({"sample_weight": torch.ones(3)}, r"sample_weight: expected \(4,\), found \(3,\)"),
    "learned sample weights": ({"sample_weight": torch.ones(4, requires_grad=True)}, "sample_weight: expected no gradient"),
    "smoothing": ({"label_smoothing": 1.5}, r"label_smoothing: expected a number in \[0, 1\], found 1.5"),
    "reduction": ({"reduction": "none"}, "reduction: expected 'sum' or 'mean', found 'none'"),
    "count of a sum": ({"reduction": "sum", "count": torch.ones(())}, "count: expected none with reduction='sum'"),
    "a list of counts": ({"count": torch.ones(2)}, r"count: expected \(\), found \(2,\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_argument_expected_and_found(name):
    change, message = BAD[name]
    arguments = {"cos": torch.zeros(4, 3), "target": torch.zeros(4).long(), "scale": 30.0, "margin": 0.5} | change
    with pytest.raises(ValueError, match=f"^arcface_ce: {message}"):
        arcface_ce(**arguments)


def test_values_are_read_only_when_asked_for(monkeypatch):
    cos, target, options = rows("hard", 4, 3)
    target[2] = 3
    bad = [
        ({"target": target}, r"target: expected labels in \[0, 3\) or -1, found 3 in row 2"),
        ({"target": torch.full((4, 3), 0.5, device=DEVICE)}, "target: expected distributions: .* found .*0.5.* in row 0"),
        ({"margin": torch.tensor(1.6, device=DEVICE)}, r"margin: expected radians in \[0, pi / 2\), found 1.6"),
        ({"sample_weight": torch.tensor([1.0, -1, 1, 1], device=DEVICE)}, "sample_weight: expected no negative"),
    ]
    good = {"target": torch.tensor([0, 1, 2, -1], device=DEVICE)} | options
    for change, _ in bad:
        arcface_ce(cos, **(good | change))
    monkeypatch.setenv("KERNELS_CHECK", "1")
    arcface_ce(cos, **good)
    for change, message in bad:
        with pytest.raises(ValueError, match=f"arcface_ce: {message}"):
            arcface_ce(cos, **(good | change))
    unlabelled = torch.tensor([1.0, 1, 0, 1], device=DEVICE)
    arcface_ce(cos, **(good | {"target": target, "sample_weight": unlabelled}))
