"""The walk that finds the last layers in front of features, and all parameters behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from steelyard.errors import SharedError
from steelyard.gradients.parameters_behind import last_layers, parameters_behind
from steelyard.gradients.wrappers import edges_of


class Block(nn.Module):
    """A residual block of a transformer, its norm before or behind."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True, norm_first=norm_first)
        self.position = nn.Parameter(torch.randn(1, 5, 6))
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale + self.position


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


class Branches(nn.Module):
    """Two branches meet; one is longer."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far, self.before = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x).relu()
        return torch.cat([self.near(x).relu(), self.far(x) + x], -1)


class Downsampled(nn.Module):
    """A residual block whose stream goes through a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second, self.side, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return (self.norm(self.second(self.first(x).relu())) + self.side(x)).relu().mean((2, 3))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(6, 5, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x)[0]


class ByHand(nn.Module):
    """A weight without transposition, and a norm written out."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.weight, self.gain = (
            nn.Linear(6, 6),
            nn.Parameter(torch.randn(6, 6)),
            nn.Parameter(torch.ones(6)),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.before(x).tanh() @ self.weight
        return z * z.square().mean(-1, keepdim=True).rsqrt() * self.gain


def in_a_row(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


flat, image, sequence = torch.randn(9, 6), torch.randn(5, 1, 8, 8), torch.randn(4, 5, 6)
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, set[str]]] = {
    "linear": (lambda: in_a_row(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()), flat, {"2.weight", "2.bias"}),
    "one output": (lambda: in_a_row(nn.Linear(6, 4), nn.Linear(4, 1)), flat, {"1.weight", "1.bias"}),
    "frozen bias": (lambda: in_a_row(nn.Linear(6, 4), nn.Linear(4, 4, bias=False)), flat, {"1.weight"}),
    "norm behind": (lambda: in_a_row(nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU()), flat, {"0.weight", "0.bias"}),
    "batch norm behind": (
        lambda: in_a_row(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        image,
        {"0.weight", "0.bias"},
    ),
    "nothing but norms": (lambda: in_a_row(nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm(6)), flat, {"2.weight", "2.bias"}),
    "embedding": (lambda: in_a_row(nn.Embedding(7, 4)), torch.randint(7, (5,)), {"0.weight"}),
    "transformer, norm first": (
        lambda: in_a_row(Block(True), Block(True)),
        sequence,
        {"1.layer.linear2.weight", "1.layer.linear2.bias"},
    ),
    "transformer, norm last": (
        lambda: in_a_row(Block(False), Block(False)),
        sequence,
        {"1.layer.linear2.weight", "1.layer.linear2.bias"},
    ),
    "attention": (
        lambda: in_a_row(nn.Linear(6, 6), Attention()),
        sequence,
        {"1.attend.out_proj.weight", "1.attend.out_proj.bias"},
    ),
    "branches": (Branches, flat, {"near.weight", "near.bias", "far.weight", "far.bias"}),
    "residual, downsampled": (Downsampled, image, {"second.weight", "second.bias", "side.weight", "side.bias"}),
    "lstm": (Recurrent, sequence, {f"cells.{kind}_l1" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}),
    "by hand": (ByHand, flat, {"weight"}),
    "weight norm": (
        lambda: in_a_row(nn.Linear(6, 4), parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU()),
        flat,
        {"1.bias", "1.parametrizations.weight.original0", "1.parametrizations.weight.original1"},
    ),
    "spectral norm": (
        lambda: in_a_row(nn.Linear(6, 4), parametrizations.spectral_norm(nn.Linear(4, 4)), nn.ReLU()),
        flat,
        {"1.bias", "1.parametrizations.weight.original"},
    ),
}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_last_layers(name: str, checkpointed: bool) -> None:
    build, x, expected = CASES[name]
    network = build()
    z = checkpoint(network, x, use_reentrant=False) if checkpointed else network(x)
    names = {id(parameter): each for each, parameter in network.named_parameters()}
    edges = [(z.grad_fn, z.output_nr)]
    assert {names[id(parameter)] for parameter in last_layers(edges)} == expected
    assert {id(parameter) for parameter in parameters_behind(edges)} == set(names)


def test_each_feature_has_its_own() -> None:
    """What one feature is made of counts though it lies behind another's last layer."""
    stem, head = nn.Linear(6, 6), nn.Linear(6, 3)
    middle = stem(flat)
    first, second = middle.tanh(), head(middle.relu())
    found = last_layers([(first.grad_fn, 0), (second.grad_fn, 0)])
    assert {id(each) for each in found} == {id(each) for each in (*stem.parameters(), *head.parameters())}


def test_frozen_layers_are_passed() -> None:
    network = in_a_row(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4))
    network[2].requires_grad_(False)
    z = network(flat)
    found = last_layers([(z.grad_fn, z.output_nr)])
    assert {id(each) for each in found} == {id(each) for each in network[0].parameters()}


def test_only_those_that_count() -> None:
    network = in_a_row(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4))
    z = network(flat)
    found = last_layers([(z.grad_fn, z.output_nr)], among=network[0].parameters())
    assert {id(each) for each in found} == {id(each) for each in network[0].parameters()}


def test_reentrant_checkpointing_hides_them() -> None:
    network = nn.Linear(6, 4)
    z = checkpoint(network, flat.clone().requires_grad_(), use_reentrant=True)
    with pytest.raises(SharedError, match="reentrant activation checkpointing"):
        last_layers([(z.grad_fn, z.output_nr)])


@pytest.mark.parametrize("requires", [False, True])
def test_an_input_that_requires_a_gradient_is_data(requires: bool) -> None:
    """As in losses of physics: what it goes through is no weight, and the last layer is the last one."""
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
    features = network(torch.randn(5, 2, requires_grad=requires))
    found = last_layers(edges_of((features,)))
    assert {id(each) for each in found} == {id(each) for each in network[4].parameters()}
