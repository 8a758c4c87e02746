"""dkd: the kernel against the float64 reference, the reference against torch and worked numbers.

Devices as in test_arcface_ce.py.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from affect.kernels import dkd

from .common import DEVICE, DTYPES, GPU, numbers, worked
from .tolerances import assert_near

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:invalid value"),
]  # the numpy of the interpreter: -inf - -inf where nothing is chosen
BATCHES, CLASSES = ((1, 63, 256, 4097), (2, 7, 8, 14, 33, 1000)) if GPU else ((1, 63, 130), (2, 7, 8, 14, 33))
SEED = {"temperature": 2.0, "beta": 4.0, "ce": 0.5, "weight": 0.5}
CASES = {
    "official": {}, "imagenet": {"temperature": 1.0, "beta": 0.5}, "seed": SEED,
    "plain": {"beta": None, "ce": 0.1, "weight": 0.9}, "everything_hard": SEED | {"alpha": 0.75},
    "everything_soft": SEED | {"beta": None}, "plain_table": {"beta": None}, "soft": {"temperature": 1.0}, "weight_tensor": {},
    "sample_weight": {}, "some_ignored": {}, "all_ignored": {}, "masked": {}, "peaked": {"temperature": 1.0, "beta": 0.5},
    "both_peaked": {"temperature": 1.0}, "both_peaked_plain": {"temperature": 1.0, "beta": None}, "transposed": {},
    "every_second": {}, "table": {}, "half_table": {}, "double_teacher": {}, "sum": {}, "count": {}, "ties": {},
    "masked_class": {}, "warm_up_begins": {"weight": 0.0}, "no_cross_entropy": {"ce": 0.0},
}  # fmt: skip


def rows(case, B, C, dtype=torch.float32, seed=0):
    """-> student (B, C) of dtype, the other arguments."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape, low=0.0, high=1.0):
        return (low + (high - low) * torch.rand(*shape, generator=random)).to(DEVICE)

    options = dict(CASES[case])
    student, teacher = (3 * torch.randn(B, C, generator=random).to(DEVICE) for _ in range(2))
    target = torch.randint(C, (B,), generator=random).to(DEVICE)
    each = torch.arange(B, device=DEVICE)
    if case in ("peaked", "both_peaked", "both_peaked_plain"):  # cosines at s = 30
        teacher = 30 * uniform(B, C, low=-0.3, high=0.3)
        teacher[each, target] = 29.0
    if case.startswith("both_peaked"):
        student = teacher + uniform(B, C, low=-2, high=2)
    student = student.to(dtype)
    if case in ("soft", "everything_soft", "masked", "ties"):
        target = (3 * uniform(B, C)).softmax(1)
    if case in ("sample_weight", "everything_hard", "everything_soft", "sum", "count"):
        options["sample_weight"] = uniform(B, low=0.2, high=2.0)
    if case in ("weight_tensor", "everything_hard", "everything_soft", "plain_table"):
        options["weight"] = torch.tensor(0.3, device=DEVICE)
    if case in ("some_ignored", "everything_hard"):
        target[::3] = -1
    if case == "all_ignored":
        target[:] = -1
    if case == "masked":  # unlabelled samples of a batch: the weight says so, the rest may be anything
        options["sample_weight"] = (each % 2).float()
        student[::2], teacher[::2], target[::2] = torch.nan, torch.nan, torch.nan
    if case == "masked_class":  # one that the teacher does not know
        teacher.scatter_(1, ((target + 1) % C)[:, None], -torch.inf if C > 2 else 0)
    if case == "transposed":
        student, teacher = student.t().contiguous().t(), teacher.t().contiguous().t()
    if case == "every_second":
        wide = torch.full((2, B * 2, C * 2), torch.nan, device=DEVICE)
        wide[:, ::2, ::2] = torch.stack([student.float(), teacher])
        student, teacher = wide[0].to(dtype)[::2, ::2], wide[1, ::2, ::2]
        target = torch.stack([target, torch.full_like(target, -7)], 1)[:, 0]
        options["sample_weight"] = torch.tensor([1.5], device=DEVICE).expand(B)
    if case in ("table", "half_table", "everything_hard", "plain_table"):
        samples = torch.randint(3 * B, (B,), generator=random).to(DEVICE)
        table = torch.full((3 * B, C), torch.nan, device=DEVICE)
        table[samples] = teacher
        teacher, options["rows"] = table, samples
        teacher = teacher.half() if case == "half_table" else teacher
    if case == "everything_hard":
        options["rows"] = torch.where(target < 0, 10**12, options["rows"])
    if case == "double_teacher":
        teacher = teacher.double()
    if case == "sum":
        options["reduction"] = "sum"
    if case == "count":
        options["count"] = torch.tensor(123.0, device=DEVICE)
    if case == "ties":
        target[:] = torch.full((C,), 1 / C, device=DEVICE)
    return student, options | {"teacher": teacher, "target": target}


def value_and_grad(provider, monkeypatch, student, options, upstream=0.37):
    monkeypatch.setenv("KERNELS", provider)
    student = student.detach().requires_grad_()
    loss = dkd(student, **options)
    return loss.detach(), torch.autograd.grad(upstream * loss, student)[0]


def hold_together(monkeypatch, student, options):
    want, want_grad = value_and_grad("reference", monkeypatch, student.double(), options)
    got, got_grad = value_and_grad("triton", monkeypatch, student, options)
    assert got.dtype == torch.float32 and got_grad.dtype == student.dtype
    assert_near("loss", got, want, student.dtype)
    assert_near("dstudent", got_grad, want_grad, student.dtype)


@pytest.mark.parametrize("case", CASES if GPU else ("everything_hard", "everything_soft"))
@pytest.mark.parametrize("C", CLASSES)
@pytest.mark.parametrize("B", BATCHES)
def test_fused_matches_reference_in_every_shape(B, C, case, monkeypatch):
    hold_together(monkeypatch, *rows(case, B, C))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_fused_matches_reference_in_every_case(case, dtype, monkeypatch):
    hold_together(monkeypatch, *rows(case, 63, 7, dtype, seed=1))


def test_a_program_of_several_tiles_gives_the_same(monkeypatch):
    from affect.kernels.dkd import fused

    monkeypatch.setattr(fused, "PROGRAMS", 2)
    hold_together(monkeypatch, *rows("everything_soft", 130, 33))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_a_value_of_any_dtype_comes_back_in_float32(provider, dtype, monkeypatch):
    student, options = rows("everything_soft", 5, 3, dtype)
    options = {name: value.to(dtype) if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    hold_together(monkeypatch, student, options)
    assert value_and_grad(provider, monkeypatch, student, options)[0].dtype == torch.float32


@pytest.mark.parametrize("case", ["everything_hard", "everything_soft", "all_ignored", "sum"])
def test_every_element_is_written_and_none_beside_them(case, monkeypatch, guarded):
    for B, C in ((5, 3), (33, 33)):
        student, options = rows(case, B, C)
        with guarded(at_least=4):  # partial sums, loss, share, dstudent
            loss, grad = value_and_grad("triton", monkeypatch, student, options)
        assert loss.isfinite() and grad.isfinite().all()


@pytest.mark.slow
def test_two_runs_are_bit_equal(monkeypatch):
    first, second = (value_and_grad("triton", monkeypatch, *rows("everything_soft", 130, 33)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_a_table_gathered_by_sample_number_is_the_teacher_itself(provider, monkeypatch):
    student, options = rows("table", 63, 8)
    samples = options.pop("rows")
    gathered = value_and_grad(provider, monkeypatch, student, options | {"rows": samples})
    direct = value_and_grad(provider, monkeypatch, student, options | {"teacher": options["teacher"][samples]})
    assert torch.equal(gathered[0], direct[0]) and torch.equal(gathered[1], direct[1])


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_nan_in_gives_nan_out_and_ignored_rows_may_hold_it(provider, monkeypatch):
    student, options = rows("official", 9, 4)
    for spoilt in (student, options["teacher"]):
        clean = spoilt[4].clone()
        for place in range(4):
            spoilt[4, place] = torch.nan
            loss, grad = value_and_grad(provider, monkeypatch, student, options)
            assert loss.isnan() and grad[4].isnan().all() and grad[:4].isfinite().all() and grad[5:].isfinite().all()
            spoilt[4] = clean
    student[4], options["teacher"][4], options["target"][4] = torch.nan, torch.nan, -1
    loss, grad = value_and_grad(provider, monkeypatch, student, options)
    assert loss.isfinite() and grad.isfinite().all() and not grad[4].any()


@pytest.mark.parametrize("provider", ["reference", "triton"])
@pytest.mark.parametrize("outside", [27, -1, 2**40, -(2**40)])
def test_a_label_or_sample_number_outside_gives_nan_for_its_row(outside, provider, monkeypatch):
    for name in ("rows", "target"):
        student, options = rows("table", 9, 4)
        options[name][3] = outside if name == "rows" or outside != -1 else -2
        loss, grad = value_and_grad(provider, monkeypatch, student, options)
        assert loss.isnan() and grad[3].isnan().all() and grad[:3].isfinite().all()
        options["sample_weight"] = (torch.arange(9, device=DEVICE) != 3).float()
        assert value_and_grad(provider, monkeypatch, student, options)[0].isfinite()


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_nothing_to_count_is_zero_with_zero_gradient(provider, monkeypatch):
    student, options = rows("all_ignored", 9, 4)
    for more in ({}, {"count": torch.zeros((), device=DEVICE)}, {"reduction": "sum"}):
        loss, grad = value_and_grad(provider, monkeypatch, student, options | more)
        assert loss == 0 and not grad.any()


@pytest.mark.parametrize("provider", ["reference", "triton"])
@pytest.mark.parametrize("case", ["official", "plain", "peaked"])
def test_student_and_teacher_alike_have_nothing_to_distil(case, provider, monkeypatch):
    _, options = rows(case, 63, 8)
    loss, grad = value_and_grad(provider, monkeypatch, options["teacher"], options | {"ce": 0.0})
    assert loss == 0 and grad.abs().max() <= 1e-7


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_a_peaked_teacher_still_teaches_the_other_classes(provider, monkeypatch):
    student, options = rows("peaked", 63, 8)
    teacher, target = options["teacher"], options["target"]
    rest = F.one_hot(target, 8) == 0
    log_s, log_t = (z.double()[rest].view(63, 7).log_softmax(1) for z in (student, teacher))
    want = F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")
    assert (1 - teacher.softmax(1).gather(1, target[:, None]) == 0).any()  # so their share is lost as 1 - b
    loss, grad = value_and_grad(provider, monkeypatch, student, options | {"alpha": 0.0, "beta": 1.0, "ce": 0.0})
    assert want > 0.5 and loss.item() == pytest.approx(want.item(), rel=1e-6)
    assert (grad[rest].view(63, 7).abs().amax(1) > 1e-5).all() and not grad[~rest].any()


@pytest.mark.parametrize("provider", ["reference", "triton"])
def test_without_beta_it_is_torchs_kl_div_and_without_weight_its_cross_entropy(provider, monkeypatch):
    student, options = rows("plain", 63, 8)
    leaf = student.detach().requires_grad_()
    log_s, log_t = (leaf / 4).log_softmax(1), (options["teacher"] / 4).log_softmax(1)
    kl = 16 * F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")
    for more, want in (({"ce": 0.0, "weight": 1.0}, kl), ({"ce": 1.0, "weight": 0.0}, F.cross_entropy(leaf, options["target"]))):
        loss, grad = value_and_grad(provider, monkeypatch, student, options | more)
        assert torch.allclose(loss, want, rtol=2e-6)
        assert torch.allclose(grad, torch.autograd.grad(0.37 * want, leaf)[0], rtol=1e-4, atol=1e-7)


LOGITS = st.floats(-20, 20, width=32)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["reference", "triton"])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    row=st.lists(st.tuples(LOGITS, LOGITS), min_size=2, max_size=9), y=st.integers(0, 8), temperature=st.sampled_from((0.5, 1, 4))
)
def test_distillation_is_of_the_target_plus_what_the_teacher_leaves_of_the_others(provider, row, y, temperature):
    student, teacher = torch.tensor(row, device=DEVICE).t().contiguous()[:, None]
    target = torch.tensor([y % len(row)], device=DEVICE)

    def part(**weights):
        return dkd(student, teacher, target, temperature=temperature, ce=0.0, **weights).double() / temperature**2

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNELS", provider)
        kd, tckd, nckd = part(beta=None), part(beta=0.0), part(alpha=0.0, beta=1.0)
    log_s, log_t = ((z.double() / temperature).log_softmax(1) for z in (student, teacher))
    others = -torch.expm1(log_t[0, target])
    assert torch.allclose(kd, tckd + others * nckd, rtol=1e-5, atol=1e-5)
    assert torch.allclose(kd, F.kl_div(log_s, log_t, log_target=True, reduction="sum"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", **worked("dkd"))
def test_reference_gives_the_worked_numbers(case, monkeypatch):
    """derive_dkd.py: 60 digits, probabilities as mdistiller forms them, gradients by differences."""
    hard = isinstance(case["target"][0], int)
    options = {name: float(case[name]) for name in ("temperature", "alpha", "ce", "weight") if name in case}
    options |= {"beta": None if case["beta"] is None else float(case["beta"])} if "beta" in case else {}
    options |= {"weight": min(float(case["epoch"]) / float(case["warmup"]), 1.0)} if "epoch" in case else {}
    options |= {"sample_weight": numbers(case["sample_weight"])} if "sample_weight" in case else {}
    options |= {"target": torch.tensor(case["target"]) if hard else numbers(case["target"])}
    options |= {"teacher": numbers(case["teacher"]), "reduction": case.get("reduction", "mean")}
    loss, grad = value_and_grad("reference", monkeypatch, numbers(case["student"]), options, upstream=1.0)
    assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-13, abs=1e-14)
    assert torch.allclose(grad, numbers(case["gradient"]), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("case", ["everything_hard", "everything_soft", "peaked"])
def test_gradcheck_and_gradgradcheck_of_the_reference(case):
    student, options = rows(case, 4, 3, seed=2)
    student = student.double().requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda student: dkd(student, **options), student)


@pytest.mark.parametrize("case", ["everything_hard", "everything_soft"])
def test_opcheck(case):
    from affect.kernels.dkd.fused import gradient, loss_and_share
    from affect.kernels.dkd.inputs import DKDInputs

    student, options = rows(case, 6, 3, torch.bfloat16)
    defaults = {"alpha": 1.0, "rows": None, "ignore": -1, "reduction": "mean", "count": None}
    inputs = DKDInputs.checked("dkd", student, **(defaults | options))
    torch.library.opcheck(loss_and_share, (student.requires_grad_(), *inputs))
    one = torch.ones((), device=DEVICE)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")  # it has no gradient on purpose
    torch.library.opcheck(gradient, (one, one, student, *inputs), test_utils=tests)


@pytest.mark.slow
def test_torch_compile_keeps_it_in_one_graph(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    student, options = rows("everything_hard", 20, 5)
    graphs = []

    def backend(graph, _inputs):
        graphs.append(str(graph.graph))
        return graph

    def loss(student, weight):
        return dkd(student * 0.5, **(options | {"weight": weight}))

    leaf = student.requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    watched = torch.compile(loss, fullgraph=True, backend=backend)
    for weight in (0.1, 0.4):
        weight = torch.tensor(weight, device=DEVICE)
        want, got = loss(leaf, weight), compiled(leaf, weight)
        assert torch.equal(got, want) and torch.equal(watched(leaf, weight), want)
        assert torch.equal(torch.autograd.grad(got, leaf)[0], torch.autograd.grad(want, leaf)[0])
    assert len(graphs) == 1 and graphs[0].count("affect.dkd") == 1  # a new weight recompiles nothing


def test_a_second_derivative_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    student, options = rows("official", 6, 3)
    (grad,) = torch.autograd.grad(dkd(student.requires_grad_(), **options), student, create_graph=True)
    with pytest.raises(RuntimeError, match="dkd: the kernel has no second derivative; KERNELS=reference"):
        grad.sum().backward()


def test_the_loss_stores_no_gradient(monkeypatch):
    monkeypatch.setenv("KERNELS", "triton")
    student, options = rows("official", 6, 3)
    empty, shapes = torch.empty, []
    monkeypatch.setattr(torch, "empty", lambda shape, **more: shapes.append(shape) or empty(shape, **more))
    dkd(student.requires_grad_(), **options)
    assert shapes == [(2, 1), (), ()]  # partial sums, loss, share
