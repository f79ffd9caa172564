"""Tables with sparse gradients under DistributedDataParallel, one rank without labels of a task."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import steelyard
from distributed.launch import launch

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)

SPECS = [
    "mgda",
    "inverse-norm",
    "db-mtl",
    "max-norm",
    "moco",
    "excess-mtl",
    "lr-annealing(main=a)",
    "mgda(memory=rows)",
]
"""Of the methods: those that weigh, and each that reads rows at the trunk."""


class Network(nn.Module):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Embedding(9, 4, sparse=sparse), nn.Linear(4, 4)).double()
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in "ab"}).double()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.trunk(x)
        return {task: head(z) for task, head in self.heads.items()}


def trained(rank: int, spec: str, heads: str, sparse: bool) -> list[Tensor]:
    """Two steps, each rank on its half of four samples; task b has labels on rank 0 alone."""
    net = Network(sparse)
    model = DistributedDataParallel(net)
    balancer = steelyard.make(spec, ["a", "b"], heads=heads)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(2):
        out = model(torch.tensor([[rank, 2 + step], [5, 6 + rank]]))
        losses = {"a": out["a"].square().mean(), "b": out["b"].abs().mean()}
        optimizer.zero_grad()
        balancer(losses, shared=net.trunk, counts={"a": 2, "b": 2 if rank == 0 else 0}).backward()
        optimizer.step()
    assert net.trunk[0].weight.grad.is_sparse == sparse
    return [parameter.detach() for parameter in net.parameters()]


def everything(rank: int, ranks: int) -> dict[tuple[str, str, bool], list[Tensor]]:
    return {
        (spec, heads, sparse): trained(rank, spec, heads, sparse)
        for spec in SPECS
        for heads in ("plain", "weighted")
        for sparse in (True, False)
    }


def test_sparse_gradients_stay_sparse_and_exact() -> None:
    first, second = launch(everything, 2)
    for (spec, heads, sparse), parameters in first.items():
        for one, other in zip(parameters, second[spec, heads, sparse], strict=True):
            assert torch.equal(one, other), spec
        for one, other in zip(parameters, first[spec, heads, False], strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-12), spec
