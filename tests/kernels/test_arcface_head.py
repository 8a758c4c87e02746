"""arcface_head: the kernel against the float64 reference, the reference against plain torch. Devices as in test_arcface_ce.py."""

import pytest
import torch
import torch.nn.functional as F

from affect.kernels import arcface_ce, arcface_head

from .common import DEVICE, DTYPES, GPU
from .tolerances import assert_near

pytestmark = pytest.mark.slow

SHAPES = [(1, 2, 64), (63, 7, 70), (20, 8, 5), (300, 33, 64)] + ([(4097, 14, 512), (256, 64, 770)] if GPU else [])
CASES = ("hard", "soft", "everything", "masked", "all_ignored", "transposed", "sum", "count", "aligned")


def rows(case, B, C, D, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(B, D, generator=random).to(DEVICE, dtype)
    weight = torch.randn(C, D, generator=random).to(DEVICE, dtype)
    target = torch.randint(C, (B,), generator=random).to(DEVICE)
    options = {"scale": 30.0, "margin": 0.35}
    if case in ("soft", "masked", "count"):
        target = (3 * torch.rand(B, C, generator=random)).softmax(1).to(DEVICE)
    if case == "everything":
        target[::3] = -1
        options |= {"margin": torch.tensor(0.5, device=DEVICE), "label_smoothing": 0.1}
        options |= {"class_weight": torch.linspace(0.3, 2, C, device=DEVICE), "sample_weight": torch.rand(B, device=DEVICE) + 0.1}
    if case == "all_ignored":
        target[:] = -1
    if case == "masked":
        options["sample_weight"] = (torch.arange(B, device=DEVICE) % 2).float()
        x[::2], target[::2] = torch.nan, torch.nan
    if case == "transposed":
        x, weight = x.t().contiguous().t(), weight.t().contiguous().t()
    if case == "sum":
        options["reduction"] = "sum"
    if case == "count":
        options["count"] = torch.tensor(123.0, device=DEVICE)
    if case == "aligned":
        x = weight[target] + 1.5 * x
    return x, weight, target, options


def run(provider, monkeypatch, x, weight, target, options, upstream=0.37):
    monkeypatch.setenv("KERNELS", provider)
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    loss, hits = arcface_head(x, weight, target, **options)
    assert not hits.requires_grad
    return loss.detach(), hits, *torch.autograd.grad(upstream * loss, (x, weight))


def hold_together(monkeypatch, x, weight, target, options):
    want = run("reference", monkeypatch, x.double(), weight.double(), target, options)
    got = run("triton", monkeypatch, x, weight, target, options)
    assert got[2].dtype == x.dtype and got[3].dtype == weight.dtype
    assert_near("loss", got[0], want[0])
    assert got[1] == want[1]
    assert_near("dx", got[2], want[2], x.dtype)
    assert_near("dweight", got[3], want[3], weight.dtype)
    return got


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused_matches_reference_in_every_shape(shape, monkeypatch):
    hold_together(monkeypatch, *rows("everything", *shape))


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy, about the NaN in ignored rows
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_fused_matches_reference_in_every_case(case, dtype, monkeypatch):
    hold_together(monkeypatch, *rows(case, 20, 7, 70, dtype, seed=1))


def test_two_runs_are_bit_equal_and_parameters_may_differ_in_dtype(monkeypatch):
    x, weight, target, options = rows("everything", 40, 7, 70, torch.bfloat16)
    first, second = (hold_together(monkeypatch, x, weight.float(), target, options) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["everything", "all_ignored"])
def test_every_element_is_written_and_none_beside_them(case, monkeypatch, guarded):
    for shape in ((5, 3, 70), (300, 17, 5)):
        with guarded(at_least=11):  # seven outputs, partial sums, g, and the two gradients
            loss, _, *grads = run("triton", monkeypatch, *rows(case, *shape))
        assert loss.isfinite() and all(grad.isfinite().all() for grad in grads)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_nan_in_gives_nan_out_and_ignored_rows_may_hold_it(provider, monkeypatch):
    x, weight, target, options = rows("hard", 9, 4, 70)
    x[4, 2] = torch.nan
    loss, _, dx, dw = run(provider, monkeypatch, x, weight, target, options)
    assert loss.isnan() and dx[4].isnan().all() and dx[:4].isfinite().all() and dw.isnan().any()
    target[4] = -1
    loss, _, dx, dw = run(provider, monkeypatch, x, weight, target, options)
    assert loss.isfinite() and dx.isfinite().all() and dw.isfinite().all() and not dx[4].any()


@pytest.mark.slow
def test_torch_compile_keeps_it_in_one_graph(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    x, weight, target, options = rows("everything", 20, 7, 70)
    leaves = x.requires_grad_(), weight.requires_grad_()

    def loss(x, weight, margin):
        return arcface_head(x * 0.5, weight, target, **(options | {"margin": margin}))[0]

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for margin in (0.1, 0.4):
        margin = torch.tensor(margin, device=DEVICE)
        got, want = compiled(*leaves, margin), loss(*leaves, margin)
        assert torch.equal(got, want)
        grads = (torch.autograd.grad(value, leaves) for value in (got, want))
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_it_is_arcface_ce_of_the_cosines_and_counts_the_right_rows(provider, monkeypatch):
    x, weight, target, options = rows("everything", 20, 7, 70)
    cos = F.normalize(x) @ F.normalize(weight).t()
    loss, hits, *_ = run(provider, monkeypatch, x, weight, target, options)
    assert loss.item() == pytest.approx(arcface_ce(cos, target, **options).item(), rel=1e-5)
    assert hits == (cos.argmax(1) == target).sum()


def test_gradcheck_of_the_reference():
    x, weight, target, options = rows("everything", 4, 3, 5)
    options["scale"] = 4.0
    leaves = [value.double().requires_grad_() for value in (x, weight)]
    assert torch.autograd.gradcheck(lambda x, weight: arcface_head(x, weight, target, **options)[0], leaves)


@pytest.mark.slow
def test_opcheck():
    from affect.kernels.arcface_head.fused import loss_and_grads, weight_gradient

    x, weight, target, options = rows("everything", 6, 3, 5)
    tensors = (options["margin"], options["class_weight"], options["sample_weight"], None)
    leaves = x.requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(loss_and_grads, (*leaves, target, *tensors, 0.0, 30.0, 0.1, -1, True, True))
    with torch.no_grad():
        _, _, share, _, *stored = loss_and_grads(*leaves, target, *tensors, 0.0, 30.0, 0.1, -1, True, True)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")  # it has no gradient on purpose
    torch.library.opcheck(weight_gradient, (weight.detach(), *stored, share, share), test_utils=tests)


def test_a_second_derivative_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    x, weight, target, options = rows("hard", 6, 3, 5)
    loss, _ = arcface_head(x.requires_grad_(), weight.requires_grad_(), target, **options)
    for grad in torch.autograd.grad(loss, (x, weight), create_graph=True):
        with pytest.raises(RuntimeError, match="arcface_head: the kernel has no second derivative"):
            grad.sum().backward(retain_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(3, 6)}, r"weight: expected \(C, 5\), as x is \(4, 5\), found \(3, 6\)"),
        ({"weight": torch.zeros(1, 5)}, r"weight: expected at least two"),
        ({"weight": torch.zeros(3, 5, device="meta")}, "weight: expected a tensor on cpu"),
        ({"target": torch.zeros(4, 5)}, r"target: expected \(4,\) labels or \(4, 3\) distributions, found \(4, 5\)"),
    ],
)
def test_an_error_names_argument_expected_and_found(change, message):
    arguments = {"x": torch.zeros(4, 5), "weight": torch.zeros(3, 5), "target": torch.zeros(4).long()} | change
    with pytest.raises(ValueError, match=f"^arcface_head: {message}"):
        arcface_head(**arguments, scale=30.0, margin=0.5)
