"""Models of clips: what they may depend on, the memory they are spared, their graphs."""

import contextlib
import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from affect.engine.config.network import ModelConfig
from affect.engine.models.clip_model import ClipModel, FrameEncoder, TwoNetworks, frame_backbone
from affect.engine.models.normalise import Normalise
from affect.engine.models.temporal import TEMPORALS, Block, Differences, Transformer
from affect.shards.errors import InputError

ORDERED = {"mean": False, "attention_mil": False, "lstm_attention": True, "transformer": True}
OUTPUTS = {"state": 3, "pain": 8}
SMALL = {"transformer": {"size": 32, "layers": 2, "heads": 4, "feed": 48, "hidden": 16}, "lstm_attention": {"hidden": 24}}


def head(name, width=24, num_frames=8, *, dropout=0.0, side=0, seed=0):
    torch.manual_seed(seed)
    return TEMPORALS[name](width, OUTPUTS, num_frames, dropout, side, **SMALL.get(name, {}))


def model(temporal="lstm_attention", backbone="test_resnet", chunk=0, checkpointing=False, *, dropout=0.0, seed=0):
    torch.manual_seed(seed)
    encoder = FrameEncoder(Normalise(), frame_backbone(ModelConfig(backbone=backbone)))
    return ClipModel(encoder, head(temporal, encoder.width, dropout=dropout, seed=seed), chunk, checkpointing)


def clips(batch=3, frames=5, seed=0):
    return torch.randint(0, 256, (batch, frames, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def frames(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_head_is_tested():
    assert set(TEMPORALS) == set(ORDERED)


@pytest.mark.parametrize("temporal", ORDERED)
@pytest.mark.parametrize("backbone", ["small_cnn", "test_vit"])
def test_a_clip_is_read_alone(backbone, temporal):
    """Neither the clips beside it nor the chunks change what a clip gets; one clip and one frame are enough."""
    net, images = model(temporal, backbone).eval(), clips()
    with torch.no_grad():
        features, outputs = net(images)
        assert features.shape == (3, net.head.width) and {name: said.shape[1] for name, said in outputs.items()} == OUTPUTS
        alone, _ = net(images[1:2])
        net.chunk = 4
        chunked, _ = net(images)
        by_hand, _ = net.temporal(torch.stack([net.encode(clip) for clip in images]))
        assert net(images[:1, :1])[0].isfinite().all()
    torch.testing.assert_close(alone, features[1:2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(chunked, features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_hand, features, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temporal", ORDERED)
def test_order_matters_where_it_should(temporal):
    net, seen = head(temporal).eval(), frames(2, 8, 24)
    with torch.no_grad():
        before, after = net(seen)[1]["pain"], net(seen.flip(1))[1]["pain"]
    moved = (before - after).abs().max()
    assert moved > 1e-3 if ORDERED[temporal] else moved < 1e-6


@pytest.mark.parametrize("temporal", ORDERED)
@pytest.mark.parametrize("kind", ["plain", "checkpointed", "two"])
def test_the_gradient_reaches_every_weight(kind, temporal):
    net = model(temporal, "small_cnn", *((4, True) if kind == "checkpointed" else (0, False)))
    if kind == "two":
        net = TwoNetworks(net, model(temporal, "small_cnn", seed=1))
    _, outputs = net.train()(clips())
    torch.stack([said.square().sum() for said in outputs.values()]).sum().backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("temporal", ["lstm_attention", "attention_mil"])
def test_attention_is_a_share_for_each_frame(temporal):
    net, seen = head(temporal).eval(), frames(2, 5, 24)
    with torch.no_grad():
        weights = net.attention(seen)
    assert weights.shape == (2, 5) and (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def after_a_step(net, images, *, half=False, compiler=None):
    """The loss, gradients and buffers of two training steps without an update."""
    forward = torch.compile(net.train(), backend=compiler) if compiler else net.train()
    for _ in range(2):
        torch.manual_seed(5)  # of dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = forward(images)[1]
        loss = torch.stack([said.float().square().mean() for said in outputs.values()]).sum()
        loss.backward()
    return loss.detach(), [weight.grad for weight in net.parameters()], list(net.buffers())


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [0, 4, 100])
@pytest.mark.parametrize("backbone", ["small_cnn", "test_efficientnet"])
def test_checkpointing_changes_no_number(backbone, chunk, half):
    """15 frames in chunks of 4 are 4 chunks; BatchNorm counts each once, also where it is computed again."""
    want, got = (
        after_a_step(model("lstm_attention", backbone, chunk, on, dropout=0.5), clips(), half=half) for on in (False, True)
    )
    torch.testing.assert_close(got, want, atol=0, rtol=0)
    counted = {int(buffer) for buffer in got[2] if not buffer.ndim}
    assert counted == {2 * (4 if chunk == 4 else 1)}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_chunks_change_no_number_without_batch_statistics(checkpointing):
    """test_vit has none. Frames come back to their places, also where the chunks are not equally long."""
    want, got = after_a_step(model(backbone="test_vit"), clips()), after_a_step(
        model(backbone="test_vit", chunk=4, checkpointing=checkpointing), clips()
    )  # fmt: skip
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_compiled_step_counts_a_batch_once_too():
    want, got = (
        after_a_step(model("mean", "small_cnn", 8, on), clips(), compiler="aot_eager_decomp_partition" if on else None)
        for on in (False, True)
    )
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-3)


def test_checkpointing_keeps_only_the_pictures():
    kept = []
    for checkpointing in (False, True):
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        net = model("mean", "small_cnn", 5, checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net.train()(clips())
        kept.append(sum(sizes.values()) - sum(w.nbytes for w in net.parameters()))
    assert kept[1] < kept[0] / 20


def test_a_block_is_torchs_layer():
    ours = Block(32, 4, 48, 0.0).eval()
    theirs = torch.nn.TransformerEncoderLayer(32, 4, 48, 0.0, batch_first=True, norm_first=True)
    names = {"qkv.": "self_attn.in_proj_", "out.": "self_attn.out_proj.", "feed.0.": "linear1.", "feed.3.": "linear2."}
    state = theirs.state_dict()
    ours.load_state_dict({
        name: state[next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), name)]
        for name in ours.state_dict()
    })  # fmt: skip
    seen = frames(3, 7, 32)
    torch.testing.assert_close(ours(seen), theirs(seen), atol=1e-5, rtol=1e-4)


class Graph(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, seen):
        features, outputs = self.module(seen)
        return (features, *outputs.values())


def in_onnx(module, example, path):
    """The module's graph with any number of clips, as a function of arrays."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Graph(module), (example,), dynamo=True, input_names=["seen"], verbose=False,
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
        )  # fmt: skip
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda seen: session.run(None, {"seen": seen.numpy()})


@pytest.mark.parametrize("temporal", [pytest.param(name, marks=pytest.mark.slow) for name in ORDERED])
def test_a_head_in_onnx_says_the_same(temporal, tmp_path):
    net = head(temporal).eval()
    graph = in_onnx(net, frames(2, 6, 24), tmp_path / "temporal.onnx")
    for batch in (1, 2, 5):
        seen = frames(batch, 6, 24, seed=batch)
        with torch.no_grad():
            features, outputs = net(seen)
        for got, want in zip(graph(seen), (features, *outputs.values()), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_differences_are_of_neighbours_and_nothing_of_a_still_clip():
    mean = TEMPORALS["mean"](8, {"score": 1}, 6)
    seen, frames = Differences(mean), torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    moved = seen(frames)[0][:, 4:]
    assert torch.allclose(moved, (frames[:, 1:] - frames[:, :-1]).abs().sum(1) / 6, atol=1e-6)
    assert torch.equal(seen(frames[:, :1].expand(-1, 6, -1))[0][:, 4:], torch.zeros(2, 4))
    shuffled = seen(frames[:, [3, 0, 5, 1, 4, 2]])[0]
    assert torch.allclose(shuffled[:, :4], seen(frames)[0][:, :4], atol=1e-6) and not torch.allclose(shuffled[:, 4:], moved)


@pytest.mark.slow
def test_two_networks_in_onnx_say_the_same(tmp_path):
    """Pixels in; chunks and checkpointing are for training and leave no trace in the graph."""
    net = TwoNetworks(model("mean", "small_cnn", 4, True), model("attention_mil", "small_cnn", seed=1)).eval()
    graph = in_onnx(net, clips(2), tmp_path / "model.onnx")
    for batch in (1, 3):
        with torch.no_grad():
            features, outputs = net(clips(batch))
        for got, want in zip(graph(clips(batch)), (features, *outputs.values()), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


def test_two_networks_are_each_and_the_mean():
    a, b = model(), model("mean", "small_cnn", seed=1)
    net = TwoNetworks(a, b)
    names = {name.split(".")[0] + "." + name.split(".")[1] for name in net.state_dict()}
    assert names == {"backbone.a", "backbone.b", "head.a", "head.b"}
    net.normalise.channels_last = False  # of both
    with torch.no_grad():
        training = net.train()(clips())[1]
        assert set(training) == {f"{name}{which}" for name in OUTPUTS for which in ("", ".a", ".b")}
        features, outputs = net.eval()(clips())
        (left, said_a), (right, said_b) = a.eval()(clips()), b.eval()(clips())
    assert set(outputs) == set(OUTPUTS) and features.shape[1] == net.head.width
    torch.testing.assert_close(features, torch.cat([left, right], 1))
    torch.testing.assert_close(outputs["pain"], (said_a["pain"] + said_b["pain"]) / 2)
    with pytest.raises(AssertionError, match="one network, twice"):
        TwoNetworks(a, ClipModel(a.encoder, head("mean", a.encoder.width)))


def test_a_clip_model_starts_from_a_model_of_pictures():
    from affect.engine.models.build import FrameModel

    pictures = FrameModel(frame_backbone(ModelConfig(backbone="test_resnet")), head("mean")).state_dict()
    ours = model().state_dict()
    assert {name for name in pictures if name.startswith("backbone.")} == {n for n in ours if n.startswith("backbone.")}


@pytest.mark.parametrize("temporal", ORDERED)
def test_side_signals_move_the_outputs_alone(temporal):
    net, seen = head(temporal, side=2).eval(), frames(3, 8, 24)
    with torch.no_grad():
        (features, one), (same, other) = net(seen, torch.zeros(3, 2)), net(seen, torch.ones(3, 2))
    assert features.shape == (3, net.width) and torch.equal(features, same) and not torch.allclose(one["pain"], other["pain"])
    for side, found in ((None, 0), (torch.zeros(3, 3), 3)):
        with pytest.raises(InputError, match=f"side: built for 2 signals a clip, got {found}"):
            net(seen, side)
    with pytest.raises(InputError, match="side: built for 0 signals a clip, got 2"):
        head(temporal)(seen, torch.zeros(3, 2))


def test_fewer_frames_take_the_first_positions_and_more_are_refused():
    net = head("transformer", num_frames=8).eval()
    cut = head("transformer", num_frames=8).eval()
    cut.positions = torch.nn.Parameter(cut.positions[:5].detach())
    with torch.no_grad():
        torch.testing.assert_close(net(frames(2, 5, 24))[0], cut(frames(2, 5, 24))[0])
    with pytest.raises(InputError, match="a clip of 9 frames, but it has learned positions for 8; show it 8 frames at most"):
        net(frames(2, 9, 24))


def narrow(**options):
    return frame_backbone(ModelConfig(backbone="resnet18", options=options))


def test_options_make_a_backbone_narrow():
    backbone = narrow(channels=[8, 16, 32, 48])
    assert backbone.head_hidden_size == 48 and sum(weight.numel() for weight in backbone.parameters()) < 200_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: head("transformer", num_frames=0), "num_frames: expected at least 1, found 0"),
        (lambda: Transformer(24, OUTPUTS, 8, size=30), "30 features do not divide into 8 heads"),
        (lambda: model(chunk=-1), "chunk: expected frames at a time, or 0 for all at once; found -1"),
        (lambda: frame_backbone(ModelConfig(backbone="resnet81")), "timm has no 'resnet81'; did you mean 'resnet"),
        (lambda: frame_backbone(ModelConfig(backbone="smal_cnn")), "did you mean 'small_cnn'"),
        (lambda: frame_backbone(ModelConfig(backbone="small_cnn", pretrained=True)), "there are no weights of small_cnn"),
        (lambda: narrow(channels=7), r"model.options: timm's resnet18 cannot be made with {'channels': 7} \(TypeError"),
        (lambda: narrow(width=1), "unexpected keyword argument 'width'.*or take model.options: {}"),
        (lambda: frame_backbone(ModelConfig(backbone="small_cnn", options={"a": 1})), "model.options: small_cnn has none"),
        (lambda: model()(clips()[0]), r"inputs: expected \(B, T, H, W, 3\) with T of at least 1, got \(5, 32, 32, 3\)"),
        (lambda: model(chunk=4)(clips(frames=0)), r"with T of at least 1, got \(3, 0, 32, 32, 3\)"),
        (lambda: head("mean")(frames(2, 0, 24)), r"frames: expected \(B, T, F\) with T of at least 1, got \(2, 0, 24\)"),
        (lambda: head("mean")(frames(2, 24)), r"frames: expected \(B, T, F\)"),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises(InputError, match=message):
        make()
