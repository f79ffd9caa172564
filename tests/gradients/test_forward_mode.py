"""Forward mode through layers: torch's own derivative, without its products by zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from steelyard.gradients.forward_mode import along_a_direction, dual, tangent_of

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 4), (3, 5)),
    "linear on sequences, without bias": (lambda: nn.Linear(5, 4, bias=False), (2, 3, 5)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1), (3, 2, 7)),
    "conv2d in groups": (lambda: nn.Conv2d(4, 4, 3, groups=2, padding="same", dilation=2, bias=False), (2, 4, 6, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 3, 3)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(2, 3, 2, stride=2), (2, 2, 4)),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (2, 2, 4, 3)),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (1, 2, 2, 3, 2)),
}
CHANGING = ["x", "weight", "bias", "x weight", "x bias", "weight bias", "x weight bias"]
CASES = [
    (name, changing)
    for name, (build, _) in LAYERS.items()
    for changing in CHANGING
    if "bias" not in changing or "bias" in dict(build().named_parameters())
]


@pytest.mark.parametrize(("name", "changing"), CASES)
def test_a_layers_tangent_is_torchs(name: str, changing: str) -> None:
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer = build().double()
    values = {"x": torch.randn(shape, dtype=torch.float64), **{n: p.detach() for n, p in layer.named_parameters()}}
    tangents = {part: torch.randn_like(values[part]) for part in changing.split()}

    def run() -> Tensor:
        lent = {part: dual(each, tangents[part]) if part in tangents else each for part, each in values.items()}
        x = lent.pop("x")
        found: Tensor = torch.func.functional_call(layer, lent, (x,))
        return found

    with torch.no_grad():
        with forward_ad.dual_level():
            expected = forward_ad.unpack_dual(run())  # type: ignore[no-untyped-call]
            primal, tangent = expected.primal.clone(), expected.tangent.clone()
        with along_a_direction():
            found = run()
            torch.testing.assert_close(tangent_of(found), tangent)
            torch.testing.assert_close(forward_ad.unpack_dual(found).primal, primal)  # type: ignore[no-untyped-call]


def test_arguments_by_name_and_what_does_not_change() -> None:
    torch.manual_seed(0)
    x, W, b = torch.randn(3, 5), torch.randn(4, 5), torch.randn(4)
    with torch.no_grad(), along_a_direction():
        for call in (
            lambda x: F.linear(x, W, bias=b),
            lambda x: F.linear(x, weight=W, bias=b),
            lambda x: F.linear(input=x, weight=W),
        ):
            assert tangent_of(call(x)) is None
            torch.testing.assert_close(tangent_of(call(dual(x, 2 * x))), 2 * x @ W.T)


def test_nothing_is_multiplied_by_zero() -> None:
    """A product for each thing that changes, and one for the value: torch takes three of any layer."""
    torch.manual_seed(0)
    x, first, second, head = torch.randn(3, 4), *(nn.Linear(4, 4) for _ in range(3))
    counts = []
    with torch.no_grad(), along_a_direction(), FlopCounterMode(display=False) as counter:
        for layer, both in ((first, True), (second, True), (head, False)):
            lent = {n: dual(p.detach(), p.detach()) if both else p for n, p in layer.named_parameters()}
            x = torch.func.functional_call(layer, lent, (x,))
            counts.append(counter.get_total_flops() / (2 * 3 * 4 * 4))
    assert counts == [2, 5, 7]


@pytest.mark.parametrize("name", LAYERS)
def test_a_loss_that_differentiates_the_network_changes_as_its_difference_says(name: str) -> None:
    """As a physics-informed one: what its inner pass goes back through changes along the direction too."""
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer, inputs = build().double(), torch.randn(shape, dtype=torch.float64)
    start = {n: p.detach() for n, p in layer.named_parameters()}
    direction = {n: torch.randn_like(p) for n, p in start.items()}

    def loss(lent: dict[str, Tensor]) -> Tensor:
        with torch.enable_grad():
            x = inputs.clone().requires_grad_()
            out = torch.func.functional_call(layer, lent, (x,)).tanh().sum()
            (slope,) = torch.autograd.grad(out, x, create_graph=True)
        return (slope - 1).square().mean()

    with torch.no_grad():
        ahead, behind = (loss({n: p + h * direction[n] for n, p in start.items()}) for h in (1e-5, -1e-5))
        with along_a_direction():
            found = tangent_of(loss({n: dual(p, direction[n]) for n, p in start.items()}))
    torch.testing.assert_close(found, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8)
