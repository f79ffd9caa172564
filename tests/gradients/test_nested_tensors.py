"""Pieces of many lengths inside the trunk, as jagged nested tensors: the gradients of all rows in one tensor."""

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.gradients.graph import METADATA
from steelyard.method_registry import method_class, method_names, options_of

FURTHER_BATCHES = {"auto-lambda", "hydalearn", "modo", "sdmgrad"}  # take more than the losses at hand
WHERE = [name for name in method_names() if "trunk" in method_class(name).where and name not in FURTHER_BATCHES]
pytestmark = pytest.mark.skipif(not METADATA, reason="jagged tensors have few operations before torch 2.6")


def losses(heads: nn.ModuleList, z: Tensor, apart: bool) -> dict[str, Tensor]:
    """Of each row both, or of each its own."""
    parts = z.split((6, 4)) if apart else (z, z)
    return {task: (heads[k](part) - k).square().mean() for k, (task, part) in enumerate(zip("ab", parts, strict=True))}


@pytest.mark.parametrize("apart", [False, True], ids=["every row of both tasks", "rows of their own"])
@pytest.mark.parametrize("deep", [False, True], ids=["one layer", "deep"])
@pytest.mark.parametrize("spec", WHERE)
def test_the_trunk_may_hold_them(spec: str, deep: bool, apart: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 5), nn.ReLU(), nn.LayerNorm(5), nn.Linear(5, 5)] if deep else [nn.Linear(4, 5)]
    trunk, heads = nn.Sequential(*layers).double(), nn.ModuleList([nn.Linear(5, 1) for _ in "ab"]).double()
    pieces = [torch.randn(length, 4, dtype=torch.float64) for length in (3, 1, 2, 4)]
    nested = torch.nested.nested_tensor(pieces, layout=torch.jagged)
    found = []
    for features in (lambda: trunk(nested).values(), lambda: trunk(torch.cat(pieces))):
        torch.manual_seed(1)
        options = {"main": "a"} if "main" in options_of(method_class(spec)) else {}
        loss = steelyard.make(spec, ["a", "b"], **options)(losses(heads, features(), apart), shared=trunk)
        found.append(torch.autograd.grad(loss, list(trunk.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
