"""Trunks of any kind and depth: a derivative by the inputs goes past their features, and ordinary heads do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cells import every
from steelyard.gradients.balanced_backward import goes_past


class Scale(nn.Module):
    """A layer that reads its parameter as it is, without a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Channels(nn.Module):
    """Convolutions over what is one channel of a row."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x[:, None]).flatten(1)


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 4), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x[:, :2]) + self.right(x[:, 2:]).tanh()


class Steps(nn.Module):
    """Rows as sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(-1, 2, 2)).flatten(1)


def normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))


TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "no bias": lambda: nn.Linear(4, 4, bias=False),
    "tanh": lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
    "relu": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
    "silu": lambda: nn.Sequential(nn.Linear(4, 4), nn.SiLU()),
    "deep": lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)),
    "deep, of linear layers": lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
    "a frozen layer first": lambda: nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 4)),
    "product": Product,
    "scale": Scale,
    "branches": Branches,
    "steps": Steps,
    "convolution": lambda: Channels(nn.Conv1d(1, 4, 4)),
    "convolutions": lambda: Channels(nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Conv1d(2, 4, 2)),
    "layer norm": lambda: nn.LayerNorm(4),
    "batch norm": lambda: nn.BatchNorm1d(4),
    "bilinear": Squared,
    "leaky": nn.PReLU,
    "weight norm": normed,
}


def derivative(x: Tensor, features: Tensor, output: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    return slope.square().mean()


def curvature(x: Tensor, features: Tensor, output: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    return (second + output.sum(1, keepdim=True)).square().mean()


def value(x: Tensor, features: Tensor, output: Tensor) -> Tensor:
    return output.square().mean()


def with_the_inputs(x: Tensor, features: Tensor, output: Tensor) -> Tensor:
    return (output.sum(1) - x.sum(1)).square().mean()


def slope_at_the_features(x: Tensor, features: Tensor, output: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(output.sum(), features, create_graph=True)
    return slope.square().mean()


def told(name: str, loss_of: Callable[..., Tensor], inputs_require_grad: bool = True) -> tuple[bool, float]:
    """What is said, and the share of the trunk's gradient that does not come through the features."""
    torch.manual_seed(0)
    trunk, head = TRUNKS[name]().double(), nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=inputs_require_grad)
    features = trunk(x)
    loss = loss_of(x, features, head(features))
    parameters = [each for each in trunk.parameters() if each.requires_grad]
    whole = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    (arriving,) = torch.autograd.grad(loss, features, retain_graph=True)
    through = torch.autograd.grad(features, parameters, arriving, retain_graph=True)
    missed = max(float((b if a is None else a - b).norm() / b.norm()) for a, b in zip(whole, through, strict=True))
    return goes_past(loss, [features]), missed


@pytest.mark.parametrize("loss_of", [derivative, curvature])
@every("name", TRUNKS)
def test_a_derivative_by_the_inputs_is_told(name: str, loss_of: Callable[..., Tensor]) -> None:
    said, missed = told(name, loss_of)
    assert said
    assert missed > 1e-3


@pytest.mark.parametrize("inputs_require_grad", [False, True])
@pytest.mark.parametrize("loss_of", [value, slope_at_the_features, with_the_inputs])
@every("name", TRUNKS)
def test_ordinary_losses_are_not(name: str, loss_of: Callable[..., Tensor], inputs_require_grad: bool) -> None:
    said, missed = told(name, loss_of, inputs_require_grad)
    assert not said
    assert missed < 1e-9


class Sine(nn.Module):
    """Its second derivative is a sum of ordinary operations, without a name of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


@pytest.mark.parametrize("name", ["scale", "product", "linear", "tanh", "deep"])
def test_whatever_the_heads_are_made_of(name: str) -> None:
    torch.manual_seed(0)
    x, trunk, linear = torch.randn(7, 4, requires_grad=True), TRUNKS[name](), nn.Linear(4, 1)
    features = trunk(x)
    assert goes_past(derivative(x, features, linear(features)), [features])
    output = nn.Sequential(nn.Linear(4, 3), Sine(), nn.Linear(3, 1))(features)
    assert all(goes_past(loss_of(x, features, output), [features]) for loss_of in (derivative, curvature))
    ordinary = (value, slope_at_the_features, with_the_inputs)
    assert not any(goes_past(loss_of(x, features, output), [features]) for loss_of in ordinary)


# What reads a raw parameter of the trunk and is no derivative by the inputs.
SHARING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "as a factor": lambda features, weight: features * weight,
    "behind a layer": lambda features, weight: features.tanh() * weight,
    "as a matrix": lambda features, weight: features @ torch.diag(weight) if weight.dim() == 1 else features @ weight,
    "as a layer": lambda features, weight: nn.functional.linear(features, weight.expand(4, 4)),
    "as an offset": lambda features, weight: features + weight,
    "as a bias": lambda features, weight: nn.functional.linear(features, torch.ones(4, 4), weight.reshape(-1)[:4]),
    "as a gate": lambda features, weight: features.tanh() * weight.sigmoid(),
    "a penalty": lambda features, weight: features.sum() + weight.square().sum(),
}


@every("inputs_require_grad", [False, True])
@every("behind", [nn.Identity(), nn.Tanh()], ids=str)
@every("way", SHARING)
@pytest.mark.parametrize("name", ["scale", "product"])
def test_heads_that_share_a_raw_parameter(name: str, way: str, behind: nn.Module, inputs_require_grad: bool) -> None:
    torch.manual_seed(0)
    trunk = TRUNKS[name]()
    features = behind(trunk(torch.randn(4, 4, requires_grad=inputs_require_grad)))
    assert not goes_past((SHARING[way](features, trunk.weight) - 1).square().mean(), [features])


def test_a_derivative_by_an_activation_in_front_of_the_last_layer() -> None:
    torch.manual_seed(0)
    first, last, head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
    hidden = first(torch.randn(7, 4)).tanh()
    features = last(hidden)
    assert goes_past(derivative(hidden, features, head(features)), [features])
    assert not goes_past(head(features).mean(), [features])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("inputs_require_grad", [False, True])
def test_heads_that_share_weights_with_the_trunk(inputs_require_grad: bool, autocast: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 4, requires_grad=inputs_require_grad)
    linear, convolution, head = nn.Linear(4, 4), nn.Conv1d(1, 4, 4, bias=False), nn.Linear(4, 4)
    head.weight, head.bias = linear.weight, linear.bias
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        features = linear(x)
        assert not goes_past(head(features).square().mean(), [features])
        assert not goes_past((features @ linear.weight + linear.bias).square().mean(), [features])
        features = convolution(x[:, None])
        output = nn.functional.conv_transpose1d(features, convolution.weight)
        assert not goes_past(output.square().mean(), [features])
