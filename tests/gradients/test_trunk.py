"""The trunk's Gramian against the Jacobian's, for layers and whole networks; and what arrives after the look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import steelyard
from cells import every
from helpers import Checkpointed, task_gradients, weighted_sum
from steelyard.errors import SharedError, SteelyardWarning
from steelyard.gradients import layers
from steelyard.gradients.graph import METADATA, Survey, survey
from steelyard.gradients.layers import convolution, formula
from steelyard.gradients.layers.products import AT_A_TIME
from steelyard.gradients.segments import Segment, pieces
from steelyard.gradients.task_blocks import block_size, gramian_in_blocks
from steelyard.gradients.trunk import trunk_gradients
from steelyard.gradients.trunk_layers import trunk_layers

SCALES = (1e-3, 1.0, 1e3)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x + self.second(self.norm(self.first(x)).relu()))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x).relu()
        return self.out(torch.cat([skip, self.up(self.middle(skip).relu())], 1)).flatten(1)


class Twice(nn.Module):
    """One layer called twice, one tied to another, one used functionally."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.other, self.raw = (
            nn.Linear(6, 6),
            nn.Linear(6, 6, bias=False),
            nn.Parameter(torch.randn(6, 6)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(x).tanh()).tanh()
        return F.linear(self.other(x), self.other.weight.T) + x @ self.raw + F.linear(x, self.raw)


class TwiceConvolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(24, 24, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh()[:, :, :2]).flatten(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


flat, image, sequence = (lambda: torch.randn(9, 6)), (lambda: torch.randn(5, 1, 8, 8)), (lambda: torch.randn(4, 5, 6))
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "linear": (lambda: nn.Linear(6, 4), flat),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), flat),
    "linear on sequences": (lambda: nn.Linear(6, 4), sequence),
    "wide linear, few rows": (lambda: nn.Linear(64, 64), lambda: torch.randn(3, 64)),
    "narrow linear, many rows": (lambda: nn.Linear(3, 2), lambda: torch.randn(200, 3)),
    "embedding": (lambda: nn.Embedding(7, 4), lambda: torch.randint(7, (5, 6))),
    "embedding with padding": (lambda: nn.Embedding(7, 4, padding_idx=0), lambda: torch.randint(7, (5, 6))),
    "sparse embeddings": (
        lambda: nn.Sequential(nn.EmbeddingBag(7, 4, mode="sum", sparse=True), nn.Linear(4, 4)),
        lambda: torch.randint(7, (5, 6)),
    ),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), flat),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten()), image),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(5, 3, 2), nn.Flatten()), sequence),
    "conv1d, few positions": (
        lambda: nn.Sequential(nn.Conv1d(9, 8, 3, stride=2, padding=1, bias=False), nn.Flatten()),
        lambda: torch.randn(3, 9, 4),
    ),
    "conv2d, few positions": (
        lambda: nn.Sequential(nn.Conv2d(40, 8, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2)), nn.Flatten()),
        lambda: torch.randn(2, 40, 3, 4),
    ),
    "conv3d, few positions": (
        lambda: nn.Sequential(nn.Conv3d(40, 8, 2, stride=(1, 2, 3), padding=1), nn.Flatten()),
        lambda: torch.randn(2, 40, 2, 3, 4),
    ),
    "conv2d, same padding, reflected": (
        lambda: nn.Sequential(nn.Conv2d(20, 8, 4, padding="same", padding_mode="reflect"), nn.Flatten()),
        lambda: torch.randn(2, 20, 4, 3),
    ),
    "conv2d, nothing padded": (
        lambda: nn.Sequential(nn.Conv2d(60, 8, 3, padding="valid"), nn.Flatten()),
        lambda: torch.randn(1, 60, 4, 4),
    ),
    "conv2d in groups": (
        lambda: nn.Sequential(nn.Conv2d(9, 9, 2, groups=3), nn.Flatten()),
        lambda: torch.randn(2, 9, 3, 3),
    ),
    "transposed conv2d, few positions": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(20, 4, 3, stride=2, padding=1, output_padding=1, dilation=1), nn.Flatten()
        ),
        lambda: torch.randn(2, 20, 2, 3),
    ),
    "transposed conv2d, few positions, padded beyond its stride": (
        lambda: nn.Sequential(nn.ConvTranspose2d(60, 8, 3, padding=1, output_padding=1, dilation=2), nn.Flatten()),
        lambda: torch.randn(1, 60, 2, 2),
    ),
    "transposed conv1d, few positions": (
        lambda: nn.Sequential(nn.ConvTranspose1d(20, 4, 2, stride=3, bias=False), nn.Flatten()),
        lambda: torch.randn(2, 20, 3),
    ),
    "conv2d used twice": (TwiceConvolved, lambda: torch.randn(2, 24, 3, 3)),
    "mlp, in place": (
        lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(inplace=True), nn.Linear(20, 8), nn.Tanh()),
        flat,
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), nn.Linear(20, 8)), flat),
    "convnet with batch norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8)
        ),
        image,
    ),
    "resnet": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), Residual(4), Residual(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        image,
    ),
    "u-net": (UNet, image),
    "transformer": (encoder, sequence),
    "lstm": (Recurrent, sequence),
    "used twice, tied, functional": (Twice, flat),
    "checkpointed": (Checkpointed, flat),
}


def setting(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.ModuleList, Tensor, Callable[[], list[Tensor]]]:
    torch.manual_seed(0)
    build, inputs = NETWORKS[name]
    trunk, x = build().to(dtype), inputs()
    x = x.to(dtype) if x.is_floating_point() else x
    heads = nn.ModuleList([nn.Linear(trunk(x).shape[-1], 3) for _ in SCALES]).to(dtype)

    def losses() -> list[Tensor]:
        torch.manual_seed(1)  # the same dropout
        features = trunk(x)
        return [scale * head(features).square().mean() for scale, head in zip(SCALES, heads, strict=True)]

    return trunk, heads, x, losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every("name", NETWORKS)
def test_gramian_is_the_jacobians(name: str, dtype: torch.dtype) -> None:
    trunk, _, _, losses = setting(name, dtype)
    parameters = list(trunk.parameters())
    found = losses()
    rows = task_gradients({str(k): loss for k, loss in enumerate(found)}, parameters)
    J = torch.stack([torch.cat([piece.to_dense().flatten().double() for piece in row]) for row in rows.values()])
    expected = J @ J.T
    gramian = trunk_gradients([str(k) for k in range(len(found))], found, parameters, at_boundary=False).gramian
    norms = expected.diagonal().sqrt()
    error = ((gramian - expected).abs() / (norms[:, None] * norms)).max()
    assert float(error) < (1e-5 if dtype == torch.float32 else 1e-10)


def parts_of(trunk: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Every module's own parameters, every parameter alone, and every other one."""
    found = {name: own for name, module in trunk.named_modules() if (own := list(module.parameters(recurse=False)))}
    found.update({name: [parameter] for name, parameter in trunk.named_parameters()})
    found["every other"] = list(trunk.parameters())[::2]
    return found


@every("name", NETWORKS)
def test_any_part_of_a_trunk_is_the_jacobians(name: str) -> None:
    trunk, _, _, losses = setting(name, torch.float64)
    found, tasks = losses(), [str(k) for k in range(len(SCALES))]
    for part, parameters in parts_of(trunk).items():
        rows = task_gradients(dict(zip(tasks, found, strict=True)), parameters)
        J = torch.stack([torch.cat([piece.to_dense().flatten() for piece in row]) for row in rows.values()])
        gramian = trunk_gradients(tasks, found, parameters, at_boundary=False).gramian
        norms = (J * J).sum(1).sqrt()
        error = ((gramian - J @ J.T).abs() / (norms[:, None] * norms)).max()
        # A bias before a batch norm has a gradient of rounding alone.
        assert float(error) < 1e-10 or float(norms.max()) < 1e-12, part


@pytest.mark.parametrize("part", ["module", "weight", "with another"])
def test_a_layer_in_the_middle_forms_no_weight_gradient(part: str) -> None:
    """Its node leads on to parameters that nobody asked for."""
    torch.manual_seed(0)
    trunk = nn.Sequential(*(each for _ in range(4) for each in (nn.Linear(64, 64), nn.Tanh())))
    heads = [nn.Linear(64, 2) for _ in range(3)]
    z = trunk(torch.randn(4, 64))
    losses = [head(z).square().mean() for head in heads]
    asked = {"module": [trunk[4]], "weight": [], "with another": [trunk[2], trunk[6]]}[part]
    parameters = [parameter for module in asked for parameter in module.parameters()] or [trunk[4].weight]
    layers, raw = trunk_layers(survey(losses, parameters), 3)
    assert len(layers) == max(1, len(asked))
    assert not raw
    assert all(len(layer.uses[0][1].leaves) == (1 if part == "weight" else 2) for layer in layers)


@pytest.mark.parametrize("kind", ["linear", "without bias", "called twice", "convolution"])
def test_layers_under_autocast_keep_their_formulas(kind: str) -> None:
    """Their parameters enter through a cast, once for all uses."""
    torch.manual_seed(0)
    build = {"convolution": lambda: nn.Conv2d(40, 40, 3), "without bias": lambda: nn.Linear(64, 64, bias=False)}
    trunk = nn.Sequential(*(build.get(kind, lambda: nn.Linear(64, 64))() for _ in range(3)))
    heads = [nn.LazyLinear(2) for _ in range(3)]
    x = torch.randn(2, 40, 8, 8) if kind == "convolution" else torch.randn(4, 64)

    def losses(autocast: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            z = trunk[0](x).tanh()
            z = trunk[2](trunk[1](trunk[1](z).tanh() if kind == "called twice" else z).tanh()).flatten(1)
            return [head(z).float().square().mean() for head in heads]

    parameters = list(trunk[1].parameters())
    exact = trunk_gradients(["0", "1", "2"], losses(False), parameters, at_boundary=False).gramian
    found = losses(True)
    layers, raw = trunk_layers(survey(found, parameters), 3)
    assert len(layers) == 1
    assert len(layers[0].uses) == (2 if kind == "called twice" else 1)
    assert not raw
    gramian = trunk_gradients(["0", "1", "2"], found, parameters, at_boundary=False).gramian
    norms = exact.diagonal().sqrt()
    assert float(((gramian - exact).abs() / (norms[:, None] * norms)).max()) < 0.03


def conv(inside: int, outside: int) -> nn.Module:
    return nn.Conv2d(inside, outside, 3, padding=1)


@pytest.mark.skipif(not METADATA, reason="before torch 2.6 nodes do not tell what arrives")
@pytest.mark.parametrize("kind", ["linear", "two layers", "convolution", "scattered scales", "cancels"])
def test_many_tasks_are_held_in_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where their gradients at the layer are more than the backward pass will allocate."""
    torch.manual_seed(0)
    x = torch.randn(2, 40, 3, 3) if kind == "convolution" else torch.randn(32, 64) + (30 if kind == "cancels" else 0)
    make = conv if kind == "convolution" else nn.Linear
    width = 40 if kind == "convolution" else 64
    layers = [make(width, width), make(width, width)]
    # Where samples' gradients cancel, squares are held in float64, and not in blocks.
    after = nn.BatchNorm1d(64) if kind == "cancels" else nn.Tanh()
    z = layers[0](x)
    z = (after(z) if kind == "cancels" else after(layers[1](z.tanh()))).flatten(1)
    scales = torch.logspace(-6, 6, 21) if kind == "scattered scales" else torch.ones(21)
    losses = [float(s) * nn.Linear(z.shape[1], 1)(z).square().mean() for s in scales]
    asked = [layers[0]] if kind == "cancels" else layers if kind == "two layers" else [layers[1]]
    parameters = [parameter for layer in asked for parameter in layer.parameters()]
    tasks = [str(k) for k in range(len(losses))]
    rows = task_gradients(dict(zip(tasks, losses, strict=True)), parameters)
    J = torch.stack([torch.cat([piece.flatten().double() for piece in row]) for row in rows.values()])
    blocks: list[bool] = []

    def noted(*given: object) -> Tensor | None:
        found = gramian_in_blocks(*given)
        blocks.append(found is not None)
        return found

    monkeypatch.setattr("steelyard.gradients.trunk.gramian_in_blocks", noted)
    for block in (8, 9, 16):
        monkeypatch.setattr("steelyard.gradients.trunk.block_size", lambda *given, block=block: block)
        gramian = trunk_gradients(tasks, losses, parameters, at_boundary=False).gramian
        norms = J.norm(dim=1)
        assert float(((gramian - J @ J.T).abs() / (norms[:, None] * norms)).max()) < 1e-5
    assert blocks == [kind != "cancels"] * 3


def test_as_many_tasks_are_held_as_the_backward_pass_makes_room_for() -> None:
    assert block_size(4, 1000, 10) == 4
    assert block_size(40, 1000, 100_000) == 40
    assert block_size(20, 1000, 24_000) == 20  # all of them: no others pass by
    assert block_size(40, 1000, 30_000) == 21
    assert block_size(40, 1000, 10) == AT_A_TIME


def test_the_upper_half_of_a_trunk_is_cut_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where parameters below were not asked for, and so no stretch is the trunk's alone."""
    trunk, _, _, losses = setting("transformer", torch.float64)
    parameters, tasks = list(trunk.layers[1].parameters()), [str(k) for k in range(len(SCALES))]
    found = losses()
    whole = trunk_gradients(tasks, found, parameters, at_boundary=False).gramian
    cuts: list[list[Segment]] = []

    def everywhere(found: Survey, held: object) -> list[Segment]:
        cuts.append(pieces(found))
        return cuts[-1]

    monkeypatch.setattr("steelyard.gradients.trunk.segments", everywhere)
    cut = trunk_gradients(tasks, found, parameters, at_boundary=False).gramian
    assert torch.allclose(cut, whole, rtol=1e-10)
    assert len(cuts[0]) > 3 or not METADATA


@pytest.mark.parametrize("name", [name for name in NETWORKS if "few positions" in name or "conv2d" in name])
def test_small_convolutions_use_their_formula(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, _, _, losses = setting(name, torch.float64)
    used = []
    products = convolution.products
    monkeypatch.setattr(
        convolution, "products", lambda *given, **options: used.append(1) or products(*given, **options)
    )
    trunk_gradients(["0", "1", "2"], losses(), list(trunk.parameters()), at_boundary=False)
    assert bool(used) is (name != "conv2d in groups")


@pytest.mark.skipif(not METADATA, reason="before torch 2.6 no backward pass starts at an edge, and nothing is cut")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_gramian_is_the_same_wherever_the_trunk_is_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, _, _, losses = setting(name, torch.float64)
    cuts = []

    def everywhere(found: Survey, held: object) -> list[Segment]:
        cuts.append(pieces(found))
        return cuts[-1]

    def gramian() -> Tensor:
        found = losses()
        return trunk_gradients([str(k) for k in range(len(found))], found, list(trunk.parameters()), True).gramian

    whole = gramian()
    monkeypatch.setattr("steelyard.gradients.trunk.segments", everywhere)
    assert torch.allclose(gramian(), whole, rtol=1e-10)
    assert len(cuts[0]) > (6 if name == "transformer" else 1)


@pytest.mark.parametrize(
    "name", ["mlp, in place", "convnet with batch norm", "transformer", "lstm", "u-net", "checkpointed"]
)
@pytest.mark.parametrize("heads", ["plain", "weighted"])
def test_what_arrives_after_a_look_at_the_trunk(name: str, heads: str) -> None:
    trunk, own, _, losses = setting(name, torch.float64)
    tasks = [str(k) for k in range(len(SCALES))]
    balancer = steelyard.make("mgda(normalise=l2)", tasks, heads=heads)
    found = dict(zip(tasks, losses(), strict=True))
    at_trunk = task_gradients(found, list(trunk.parameters()))
    at_heads = task_gradients(found, list(own.parameters()))
    balancer(found, shared=trunk).backward()
    weights = dict(zip(tasks, balancer.last_weights.tolist(), strict=True))
    on_heads = weights if heads == "weighted" else dict.fromkeys(tasks, 1.0)
    for parameters, expected in (
        (trunk.parameters(), weighted_sum(weights, at_trunk)),
        (own.parameters(), weighted_sum(on_heads, at_heads)),
    ):
        arrived = torch.cat([parameter.grad.flatten() for parameter in parameters])
        wanted = torch.cat([gradient.flatten() for gradient in expected])
        assert float((arrived - wanted).norm()) < 1e-9 * float(wanted.norm())


def test_inputs_far_from_zero_before_a_batch_norm_keep_their_precision() -> None:
    """The samples' gradients share a part 900 times larger in square than their sum, in which it cancels."""
    torch.manual_seed(0)
    layer, norm = nn.Linear(256, 128), nn.BatchNorm1d(128)
    z = norm(layer(torch.randn(32, 256) + 30)).relu()
    losses = [nn.Linear(128, 5)(z).square().mean() for _ in range(3)]
    rows = task_gradients({str(k): loss for k, loss in enumerate(losses)}, list(layer.parameters()))
    J = torch.stack([torch.cat([piece.flatten().double() for piece in row]) for row in rows.values()])
    expected = J @ J.T
    gramian = trunk_gradients(["0", "1", "2"], losses, list(layer.parameters()), at_boundary=False).gramian
    norms = expected.diagonal().sqrt()
    assert float(((gramian - expected).abs() / (norms[:, None] * norms)).max()) < 1e-6


@pytest.mark.skipif(not hasattr(torch._C._autograd.SavedTensor, "unpack_hook"), reason="this torch shows no hooks")
@pytest.mark.parametrize("rows", [4, 512])
def test_a_checkpointed_block_runs_once_for_each_task(rows: int) -> None:
    """Few rows, where formulas would read its inputs, and many, where the trunk is cut."""
    calls: list[int] = []

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(64, 64) for _ in range(6)]).double()

        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            for layer in self.layers:
                x = layer(x).tanh()
            return x

    torch.manual_seed(0)
    blocks = nn.ModuleList([Block() for _ in range(4)])
    z = torch.randn(rows, 64).double()
    for block in blocks:
        z = checkpoint(block, z, use_reentrant=False)
    losses = [nn.Linear(64, 2).double()(z).square().mean() for _ in range(3)]
    parameters = list(blocks.parameters())
    gradients = task_gradients({str(k): loss for k, loss in enumerate(losses)}, parameters)
    J = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in gradients.values()])
    calls.clear()
    gramian = trunk_gradients(["0", "1", "2"], losses, parameters, at_boundary=False).gramian
    assert torch.allclose(gramian, J @ J.T, rtol=1e-10)
    assert len(calls) == len(blocks) * len(losses)


def test_frozen_and_unused_parameters_do_not_matter() -> None:
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6)).double()
    trunk.unused = nn.Linear(3, 3).double()
    trunk[0].bias.requires_grad_(False)
    z = trunk[2](trunk[1](trunk[0](torch.randn(5, 4).double())))
    losses = [z.square().mean(), z.abs().mean()]
    trainable = [trunk[0].weight, trunk[2].weight, trunk[2].bias]
    rows = task_gradients({"a": losses[0], "b": losses[1]}, trainable)
    J = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows.values()])
    gramian = trunk_gradients(["a", "b"], losses, list(trunk.parameters()), at_boundary=False).gramian
    assert torch.allclose(gramian, J @ J.T, rtol=1e-10)


class Stop(torch.autograd.Function):
    """Sends nothing back, like the straight-through parts of discrete networks."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> None:
        return None


@pytest.mark.parametrize("heads", ["plain", "weighted"])
@pytest.mark.parametrize("blocked", [1, 2])
def test_layers_that_nothing_comes_back_to(heads: str, blocked: int) -> None:
    torch.manual_seed(0)
    trunk = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)]).double()
    own = nn.ModuleList([nn.Linear(64, 1), nn.Linear(64, 1)]).double()
    x = torch.randn(3, 64).double()
    z = (Stop.apply(trunk[0](x)) if blocked == 1 else trunk[0](x)) + x
    z = trunk[1](z) if blocked == 1 else Stop.apply(trunk[1](z))
    losses = {"a": own[0](z).square().mean(), "b": own[1](z).abs().mean()}
    parameters = list(trunk.parameters())
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses.values()]
    J = torch.stack(
        [
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, row, strict=True)]
            )
            for row in rows
        ]
    )
    found = trunk_gradients(["a", "b"], list(losses.values()), parameters, at_boundary=heads == "plain")
    assert torch.allclose(found.gramian, J @ J.T, rtol=1e-10)
    steelyard.make("mgda", ["a", "b"], heads=heads)(losses, shared=trunk).backward()
    assert all(parameter.grad is not None for parameter in own.parameters())


def test_heads_given_as_the_trunk_are_warned_of() -> None:
    trunk, own = nn.Linear(4, 6), nn.ModuleList([nn.Linear(6, 1), nn.Linear(6, 1)])
    z = trunk(torch.randn(5, 4)).tanh()
    losses = {"a": own[0](z).square().mean(), "b": own[1](z).abs().mean()}
    for heads in (own, own[0]):
        with pytest.warns(SteelyardWarning, match="no parameter given as shared= is reached by two of the losses"):
            steelyard.make("mgda", ["a", "b"])(losses, shared=heads)
    steelyard.make("mgda", ["a", "b"])(losses, shared=trunk)
    steelyard.make("inverse-norm", ["a", "b"])({"a": losses["a"]}, shared=own)  # alone in its batch: nothing to tell


def test_disjoint_samples_conflict_visibly_at_the_trunk() -> None:
    """What features cannot see: two tasks with their own inputs, pulling one weight in opposite directions."""
    trunk = nn.Linear(3, 3).double()
    x = torch.randn(4, 3).double()
    losses = {"a": trunk(x).sum(), "b": -trunk(x.clone()).sum()}
    balancer = steelyard.make("mgda", ["a", "b"])
    balancer(losses, shared=trunk)
    assert balancer.metrics()["cosine/a,b"] == pytest.approx(-1)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_any_scale(scale: float) -> None:
    trunk, _, _, losses = setting("mlp, in place", torch.float32)
    parameters = list(trunk.parameters())
    names = [str(k) for k in range(len(SCALES))]
    plain = trunk_gradients(names, losses(), parameters, at_boundary=False).gramian
    scaled = trunk_gradients(names, [loss * scale for loss in losses()], parameters, at_boundary=False).gramian
    assert torch.allclose(scaled / scale**2, plain, rtol=1e-4)


class TestRefusals:
    def test_weights_tied_between_trunk_and_head(self) -> None:
        trunk = nn.Linear(4, 4).double()
        z = trunk(torch.randn(5, 4).double())
        head = nn.Linear(4, 4).double()
        losses = {"a": F.linear(head(z), trunk.weight).square().mean(), "b": head(z).abs().mean()}
        with pytest.raises(SharedError, match=r"used by the heads too \(tied weights, or"):
            steelyard.make("mgda", ["a", "b"], heads="plain")(losses, shared=trunk)
        steelyard.make("mgda", ["a", "b"])(losses, shared=trunk)

    def test_methods_defined_on_features_only(self) -> None:
        trunk = nn.Linear(2, 2)
        losses = {"a": trunk(torch.ones(1, 2)).square().sum()}

        class OnFeatures(steelyard.Balancer):
            name = "on-features"
            reads = "norms"
            where = frozenset({"features"})

        with pytest.raises(SharedError, match="on-features is defined on features"):
            OnFeatures(["a"])(losses, shared=trunk)


def test_tasks_without_heads_of_their_own() -> None:
    trunk = nn.Linear(3, 3).double()
    z = trunk(torch.randn(4, 3).double())
    losses = {"a": z.square().mean(), "b": z.abs().mean()}
    expected = task_gradients(losses, list(trunk.parameters()))
    balancer = steelyard.make("mgda(normalise=l2)", ["a", "b"], heads="plain")
    balancer(losses, shared=trunk).backward()
    weights = dict(zip(("a", "b"), balancer.last_weights.tolist(), strict=True))
    for parameter, gradient in zip(trunk.parameters(), weighted_sum(weights, expected), strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-10)


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum(0)


def test_a_formula_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example that CONTRIBUTING.md shows."""
    monkeypatch.setattr(formula, "_FORMULAS", dict(formula._FORMULAS))
    calls: list[int] = []

    def gramian(uses: list[layers.Match], gradients: list[Tensor]) -> Tensor:
        calls.append(len(uses))
        rows = sum((use.inputs[0] * D).flatten(1, -2).sum(1) for use, D in zip(uses, gradients, strict=True))
        return (rows @ rows.T).double()

    @layers.gramian_of("ScaleBackward", layers.Formula(gramian, worth=lambda uses, tasks: True))
    def scale(node: object) -> layers.Match:
        _, (weight, _) = node.next_functions
        return layers.Match(leaves=(weight,), through=(), inputs=(node.saved_tensors[0],))

    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6).double())
    z = Scale.apply(Scale.apply(torch.randn(9, 6).double(), weight).tanh(), weight)
    losses = [z.square().mean(), z.abs().mean()]
    J = torch.stack([torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses])
    found = trunk_gradients(["a", "b"], losses, [weight], at_boundary=False).gramian
    assert torch.allclose(found, J @ J.T, rtol=1e-10)
    assert calls == [2]
