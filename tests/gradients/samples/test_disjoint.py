"""Tasks that share no samples: one backward pass where the trunk keeps samples apart, one for each task elsewhere."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import steelyard
from helpers import Checkpointed
from steelyard.gradients import trunk as trunk_module
from steelyard.gradients.graph import METADATA
from steelyard.gradients.samples.look import gramian_of_disjoint
from steelyard.gradients.trunk import TrunkGradients, trunk_gradients

pytestmark = pytest.mark.skipif(not METADATA, reason="before torch 2.6 nodes do not tell what arrives")
N, TASKS = 9, ["a", "b", "c"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each look at tasks that share no samples, whether one backward pass was enough."""
    told: list[bool] = []

    def noted(*given: object) -> Tensor | None:
        gramian = gramian_of_disjoint(*given)  # type: ignore[arg-type]
        if given[1].owners is not None:  # type: ignore[attr-defined]
            told.append(gramian is not None)
        return gramian

    monkeypatch.setattr(trunk_module, "gramian_of_disjoint", noted)
    return told


class Then(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Weighted(nn.Module):
    """A layer that uses a parameter by a function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.randn(*shape)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


class Gate(nn.Module):
    """Every way in which a transformer has of adding, scaling and choosing."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.scale = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))
        self.token, self.less = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x[:, :3] * self.scale + self.place[:3]], 1)
        first, second = (x - self.less).chunk(2, 1)
        return torch.stack([first.amax(1), torch.where(second > 0, second, -second).mean(1)], 1).flatten(1)


class Norm(torch.autograd.Function):
    """A function of somebody else, by the name of one of torch's: each sample's gradient goes to all."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x - x.mean(0)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient - gradient.mean(0)


Relu = type("Relu", (torch.autograd.Function,), {"forward": Norm.forward, "backward": Norm.backward})


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.raw = nn.Linear(6, 6), nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.layer(self.layer(x).tanh()), self.raw) + x @ self.raw


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def evaluated(module: nn.Module) -> nn.Module:
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean = torch.randn_like(each.running_mean)
    return module.eval()


def encoder(batch_first: bool, **options: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.1, batch_first=batch_first, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def flat() -> Tensor:
    return torch.randn(N, 6)


def image() -> Tensor:
    return torch.randn(N, 2, 8, 8)


def sequence() -> Tensor:
    return torch.randn(N, 4, 6)


def ids() -> Tensor:
    return torch.randint(7, (N, 6))


def convolved(*after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *after, nn.Flatten())


Kind = tuple[Callable[[], nn.Module], Callable[[], Tensor]]
APART: dict[str, Kind] = {
    "linear": (lambda: nn.Linear(6, 4), flat),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), flat),
    "wide, by products": (lambda: nn.Sequential(nn.Linear(6, 40), nn.ReLU(inplace=True), nn.Linear(40, 40)), flat),
    "linear on sequences": (lambda: nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3)), sequence),
    "cancels": (lambda: nn.Sequential(Then(lambda x: x + 1e3), nn.Linear(6, 40), nn.Linear(40, 40)), flat),
    "dropout": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.SiLU()), flat),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm((4, 6))), sequence),
    "convnet": (lambda: convolved(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, groups=2), nn.LeakyReLU()), image),
    "group norm": (lambda: convolved(nn.GroupNorm(2, 4), nn.AvgPool2d(2), nn.ELU(), nn.AdaptiveAvgPool2d(2)), image),
    "batch norm, evaluated": (lambda: evaluated(convolved(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3))), image),
    "transposed": (lambda: convolved(nn.ConvTranspose2d(4, 3, 2, stride=2, output_padding=1)), image),
    "upsampled": (lambda: convolved(nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3, padding="valid")), image),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 3, 2, dilation=2), nn.Sigmoid(), nn.Flatten()), sequence),
    "padded": (lambda: convolved(Then(lambda x: F.pad(x, (1, 2, 0, 1))), nn.Conv2d(4, 2, 3, stride=2)), image),
    "embedding": (lambda: nn.Embedding(7, 4), ids),
    "embedding with padding": (lambda: nn.Sequential(nn.Embedding(7, 4, padding_idx=0), nn.Linear(4, 3)), ids),
    "embedding by frequency": (lambda: nn.Embedding(7, 4, scale_grad_by_freq=True), ids),
    "bag": (lambda: nn.Sequential(nn.EmbeddingBag(7, 4, mode="mean", padding_idx=1), nn.Linear(4, 4)), ids),
    "sparse bag": (lambda: nn.EmbeddingBag(7, 4, mode="sum", sparse=True), ids),
    "transformer": (lambda: encoder(True), sequence),
    "transformer, norm first": (lambda: encoder(True, norm_first=True), sequence),
    "gate": (Gate, sequence),
    "used twice": (Twice, flat),
    "computed weight": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), flat),
    "rms norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.RMSNorm(6)), flat),
    "time in the batch": (
        lambda: nn.Sequential(
            Then(lambda x: x.reshape(N * 4, 6)), nn.Linear(6, 6), nn.Tanh(), Then(lambda x: x.view(N, 4, 6).mean(1))
        ),
        sequence,
    ),
    "batch behind time": (
        lambda: nn.Sequential(
            Then(lambda x: x.transpose(0, 1)), nn.Linear(6, 6), nn.Tanh(), Then(lambda x: x.permute(1, 2, 0).sum(2))
        ),
        sequence,
    ),
}
MIXED: dict[str, Kind] = {
    "batch norm": (lambda: convolved(nn.BatchNorm2d(4)), image),
    "instance norm": (lambda: convolved(nn.InstanceNorm2d(4)), image),
    "attention over the batch": (lambda: nn.Sequential(nn.Linear(6, 6), encoder(False)), sequence),
    "softmax over the batch": (lambda: nn.Sequential(nn.Linear(6, 6), nn.Softmax(0)), flat),
    "shuffled": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x[torch.arange(N).flip(0)])), flat),
    "selected": (
        lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x.index_select(0, torch.arange(N).roll(1)))),
        flat,
    ),
    "flipped": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x.flip(0))), flat),
    "rolled": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x.roll(1, 0))), flat),
    "summed on": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x.cumsum(0))), flat),
    "centred": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x - x.mean(0))), flat),
    "centred, many layers": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), Then(lambda x: x - x.mean(0)), nn.Linear(6, 6)),
        flat,
    ),
    "added across": (lambda: nn.Sequential(nn.Linear(6, N), Then(lambda x: x.tanh() + x.t().sin())), flat),
    "added across, the other way": (
        lambda: nn.Sequential(nn.Linear(6, N), Then(lambda x: x.t().sin() + x.tanh())),
        flat,
    ),
    "by the batch's mean": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x * x.mean(0))), flat),
    "two halves": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: torch.cat([x[4:], x[:4]]))), flat),
    "viewed across": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x.view(6, N).tanh().t().tanh())), flat),
    "multiplied across": (lambda: nn.Sequential(nn.Linear(6, 6), Weighted(lambda x, w: w @ x, N, N)), flat),
    "a weight for each sample": (lambda: nn.Sequential(nn.Linear(6, 6), Weighted(torch.mul, N, 6)), flat),
    "all with all": (lambda: nn.Sequential(nn.Linear(6, 6), Then(lambda x: x @ x.T)), flat),
    "somebody's function": (lambda: nn.Sequential(nn.Linear(6, 6), Then(Norm.apply)), flat),
    "by a name of torch's": (lambda: nn.Sequential(nn.Linear(6, 6), Then(Relu.apply)), flat),
    "largest of a bag": (lambda: nn.EmbeddingBag(7, 4, mode="max"), ids),
    "prelu": (lambda: nn.Sequential(nn.Linear(6, 6), nn.PReLU()), flat),
    "checkpointed": (lambda: Then(Checkpointed()), flat),
}
"""Also what keeps samples apart, and is not known to."""


EITHER: dict[str, Kind] = {
    "lstm": (lambda: Recurrent(True), sequence),
    "lstm, time first": (lambda: Recurrent(False), sequence),
}
"""By one kernel in one precision, and step by step in another."""
OWNERS = {
    "blocks": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "scattered": [2, 0, 1, 0, 0, 2, 1, 2, 0],
    "some unused": [1, 3, 0, 3, 2, 0, 3, 1, 3],
    "a task without": [0, 2, 2, 0, 0, 2, 2, 0, 0],
}


def losses_of(trunk: nn.Module, x: Tensor, owners: list[int]) -> list[Tensor]:
    """A head for each task, whose labels are those of its own samples; lengths differ by 1e6."""
    torch.manual_seed(1)
    z = trunk(x)
    heads = [nn.Linear(z.shape[-1], 3).to(z) for _ in TASKS]
    losses = []
    for k, head in enumerate(heads):
        mine = torch.tensor(owners) == k
        each = 10.0 ** (3 * k - 3) * head(z).square()
        losses.append((each * mine.view(-1, *[1] * (each.dim() - 1))).sum())
    return losses


def on_blocks(z: Tensor) -> list[Tensor]:
    heads = [nn.Linear(z.shape[-1], 1).to(z) for _ in TASKS]
    return [head(z)[3 * k : 3 * k + 3].square().sum() for k, head in enumerate(heads)]


def jacobian(trunk: nn.Module, losses: list[Tensor]) -> Tensor:
    parameters = list(trunk.parameters())
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pieces = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        rows.append(torch.cat([piece.to_dense().flatten().double() for piece in pieces]))
    return torch.stack(rows)


def looked(trunk: nn.Module, losses: list[Tensor], at_boundary: bool = False) -> TrunkGradients:
    return trunk_gradients(TASKS[: len(losses)], losses, list(trunk.parameters()), at_boundary=at_boundary)


def assert_exact(trunk: nn.Module, losses: list[Tensor]) -> None:
    J = jacobian(trunk, losses)
    norms = J.norm(dim=1).clamp(min=1e-100)
    error = (looked(trunk, losses).gramian - J @ J.T).abs() / (norms[:, None] * norms)
    assert float(error.max()) < (1e-5 if losses[0].dtype == torch.float32 else 1e-10)


def built(kind: Kind, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    trunk, x = kind[0]().to(dtype), kind[1]()
    return trunk, x.to(dtype) if x.is_floating_point() else x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", APART)
def test_one_backward_pass_is_the_jacobians(name: str, dtype: torch.dtype, at_once: list[bool]) -> None:
    trunk, x = built(APART[name], dtype)
    for owners in OWNERS.values():
        assert_exact(trunk, losses_of(trunk, x, owners))
    assert at_once == [True] * len(OWNERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*MIXED, *EITHER])
def test_what_mixes_samples_has_a_pass_for_each_task(name: str, dtype: torch.dtype, at_once: list[bool]) -> None:
    trunk, x = built({**MIXED, **EITHER}[name], dtype)
    for owners in OWNERS.values():
        assert_exact(trunk, losses_of(trunk, x, owners))
    assert not any(at_once) or name in EITHER


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 6),
    "tanh": lambda: nn.Tanh(),
    "layer norm": lambda: nn.LayerNorm(6),
    "attention": lambda: nn.TransformerEncoderLayer(6, 2, 6, dropout=0.0, batch_first=True),
    "time": lambda: nn.Sequential(Then(lambda x: x.transpose(1, 2)), nn.Linear(4, 4), Then(lambda x: x.mT)),
    "folded": lambda: nn.Sequential(
        Then(lambda x: x.flatten(0, 1)), nn.Linear(6, 6), Then(lambda x: x.unflatten(0, (-1, 4)))
    ),
    "conv": lambda: nn.Conv1d(4, 4, 3, padding=1),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "time first": lambda: nn.Sequential(
        Then(lambda x: x.transpose(0, 1)), nn.Linear(6, 6), Then(lambda x: x.transpose(0, 1))
    ),
}
MIXING: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.BatchNorm1d(4),
    "attention over the batch": lambda: nn.TransformerEncoderLayer(6, 2, 6, dropout=0.0),
    "viewed across": lambda: Then(lambda x: x.reshape(6, 4, N).softmax(0).reshape(N, 4, 6)),
    "folded across": lambda: Then(lambda x: x.reshape(4, N, 6).softmax(0).reshape(N, 4, 6)),
    "shuffled": lambda: Then(lambda x: x[torch.arange(N).roll(2)]),
    "centred": lambda: Then(lambda x: x - x.mean(0)),
}


@pytest.mark.parametrize("seed", range(40))
def test_any_network(seed: int, at_once: list[bool]) -> None:
    """Layers in any order; half of the networks have one that mixes samples."""
    chance = random.Random(seed)
    names = chance.choices(list(LAYERS), k=chance.randint(1, 5))
    mixing = chance.choice(list(MIXING)) if seed % 2 else None
    layers = [LAYERS[name] for name in names]
    if mixing is not None:  # behind something that has a parameter
        layers.insert(chance.randint(0, len(layers)), MIXING[mixing])
        layers.insert(0, LAYERS["linear"])
    torch.manual_seed(seed)
    trunk, x = nn.Sequential(*(make() for make in layers)).double(), sequence().double()
    if not any(True for _ in trunk.parameters()):
        trunk.append(nn.Linear(6, 6).double())
    owners = [chance.randint(0, 3) for _ in range(N)]
    losses = losses_of(trunk, x, owners)
    assert_exact(trunk, losses)
    assert not any(at_once) if mixing is not None else all(at_once), (names, mixing)


def clipped(gradient: Tensor) -> Tensor:
    return gradient / (1 + gradient.norm())


@pytest.mark.parametrize("where", ["first", "middle", "activation", "end", "stream", "weight", "node", "module"])
def test_a_hook_sees_one_task_at_a_time(where: str, at_once: list[bool]) -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)]).double()
    if where == "module":
        layers[1].register_full_backward_hook(lambda module, arrived, sent: tuple(clipped(each) for each in arrived))
    if where == "weight":
        layers[1].weight.register_hook(clipped)
    first = layers[0](flat().double())
    middle = layers[1](first.tanh())
    activation = middle.tanh() + (first if where == "stream" else 0)
    z = layers[2](activation)
    hooked = {"first": first, "stream": first, "middle": middle, "activation": activation, "end": z}
    if where in hooked:
        hooked[where].register_hook(clipped)
    if where == "node":
        middle.grad_fn.register_hook(lambda sent, arrived: tuple(g if g is None else clipped(g) for g in sent))
    assert_exact(layers, on_blocks(z))
    assert at_once == [False]


def test_a_hook_that_changes_nothing(at_once: list[bool]) -> None:
    trunk = nn.Linear(6, 6).double()
    z = trunk(flat().double())
    z.register_hook(lambda gradient: None)
    z.retain_grad()
    assert_exact(trunk, on_blocks(z))
    assert at_once == [True]


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_any_scale(scale: float, at_once: list[bool]) -> None:
    trunk, x = built(APART["transformer"], torch.float32)
    plain = looked(trunk, losses_of(trunk, x, OWNERS["scattered"])).gramian
    scaled = looked(trunk, [scale * loss / 1e3 for loss in losses_of(trunk, x, OWNERS["scattered"])]).gramian
    assert torch.allclose(scaled / scale**2 * 1e6, plain, rtol=1e-4)
    assert at_once == [True, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sample", [0, 1], ids=["a task's", "nobody's"])
def test_what_is_not_finite_spreads_as_it_does_in_backward(bad: float, sample: int, at_once: list[bool]) -> None:
    trunk, x = built(APART["linear on sequences"], torch.float64)
    x[sample] = bad
    losses = losses_of(trunk, x, [0, 3, 0, 1, 1, 1, 2, 2, 2])
    J = jacobian(trunk, losses)
    assert torch.equal(looked(trunk, losses).gramian.isfinite(), (J @ J.T).isfinite())
    assert at_once in ([False], [])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_the_others_alone(bad: float, at_once: list[bool]) -> None:
    trunk, x = built(APART["linear"], torch.float64)
    first, *others = on_blocks(trunk(x))
    losses = [first * bad, *others]
    J = jacobian(trunk, losses)
    gramian = looked(trunk, losses).gramian
    assert torch.equal(gramian.isfinite(), (J @ J.T).isfinite())
    assert bool(gramian[1:, 1:].isfinite().all())
    assert at_once == [False]


def test_autocast_to_its_rounding(at_once: list[bool]) -> None:
    trunk, x = built(APART["transformer, norm first"], torch.float32)
    trunk.eval()
    exact = looked(trunk, losses_of(trunk, x, OWNERS["scattered"])).gramian
    with torch.autocast("cpu", torch.bfloat16):
        z = trunk(x).float()
    torch.manual_seed(1)
    heads = [nn.Linear(6, 3) for _ in TASKS]
    mine = torch.tensor(OWNERS["scattered"])
    losses = [10.0 ** (3 * k - 3) * head(z)[mine == k].square().sum() for k, head in enumerate(heads)]
    norms = exact.diagonal().sqrt()
    assert float(((looked(trunk, losses).gramian - exact).abs() / (norms[:, None] * norms)).max()) < 0.05
    assert at_once == [True, True]


@pytest.mark.parametrize("heads", ["plain", "weighted"])
@pytest.mark.parametrize("spec", ["mgda", "pcgrad", "nash-mtl", "cagrad", "imtl-g", "upgrad", "db-mtl"])
@pytest.mark.parametrize("place", ["trunk", "look", "last"])
def test_weights_and_gradients_are_those_of_a_pass_for_each(
    spec: str, heads: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()).double()
        own = nn.ModuleDict({task: nn.Linear(8, 1) for task in TASKS}).double()
        z = trunk(flat().double())
        losses = {task: own[task](z[3 * k : 3 * k + 3]).square().mean() * 5**k for k, task in enumerate(TASKS)}
        balancer = steelyard.make(spec, TASKS, heads=heads)
        if place == "trunk":
            balancer(losses, shared=trunk).backward()
        else:
            balancer(losses, shared=z, look="trunk" if place == "look" else "last").backward()
        return [balancer.last_weights, *(p.grad for p in (*trunk.parameters(), *own.parameters()))]

    told = []
    monkeypatch.setattr(
        trunk_module,
        "gramian_of_disjoint",
        lambda *given: told.append(found := gramian_of_disjoint(*given)) or found,
    )
    quick = trained()
    monkeypatch.setattr(trunk_module, "gramian_of_disjoint", lambda *given: None)
    for one, other in zip(quick, trained(), strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-12)
    if place == "trunk" and spec != "db-mtl":
        assert [each is not None for each in told] == [True]


def test_labels_that_do_not_meet(at_once: list[bool]) -> None:
    torch.manual_seed(0)
    trunk, own = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.ModuleList([nn.Linear(8, 1) for _ in TASKS])
    z = trunk(flat())
    labels = torch.randn(N, 3).where(torch.tensor(OWNERS["some unused"])[:, None] == torch.arange(3), math.nan)
    losses = [
        steelyard.masked_mean((head(z)[:, 0] - labels[:, k].nan_to_num()).square(), labels[:, k].isfinite())
        for k, head in enumerate(own)
    ]
    assert_exact(trunk, losses)
    assert at_once == [True]


class Counted(torch.autograd.Function):
    walks = 0

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        Counted.walks += 1
        return gradient


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("shared", ["all", "last two", "none"])
def test_heads_are_walked_once(tasks: int, shared: str) -> None:
    """Whether tasks share samples is seen from what the look needs anyway."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40))
    z = trunk(torch.randn(10, 6))
    rows = [slice(2 * k, 2 * k + 2) for k in range(tasks)]
    if shared != "none":
        rows = [slice(None)] * tasks if shared == "all" else [*rows[:-1], rows[-2]]
    losses = [nn.Linear(40, 1)(Counted.apply(z)[mine]).square().mean() for mine in rows]
    Counted.walks = 0
    trunk_gradients([str(k) for k in range(tasks)], losses, list(trunk.parameters()), at_boundary=False)
    assert Counted.walks == tasks
