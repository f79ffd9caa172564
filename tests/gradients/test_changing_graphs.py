"""A graph that changes from step to step: layers skipped, called twice, in another order. Nothing of a step is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from helpers import task_gradients
from steelyard.base.observation import Seen
from steelyard.base.state import State
from steelyard.methods.bases import GramianBalancer
from steelyard.methods.solvers.unit_rows import UnitRows

TASKS = ["a", "b", "c"]
PLANS: Sequence[Sequence[int]] = ([0, 1], [1], [1, 0], [0, 0, 1], [0], [1, 1, 0, 1])


class Keeping(GramianBalancer):
    """The plain sum, which remembers the Gramian."""

    name = "keeping"

    def combine(self, rows: UnitRows, seen: Seen, state: State) -> Tensor:
        self.gramian = seen.gramian
        return torch.ones(len(seen.losses), dtype=torch.float64)


class Flat(nn.Module):
    """A bag of a table's rows, or rows one by one, in place of each column: as a layer from numbers to numbers."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.table(torch.arange(24).view(4, 6) % 7)
        return x + (found if found.dim() == 2 else found.sum(1))


class Images(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x.view(4, 3, 2)).reshape(4, 6)
        return found


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 6),
    "linear without bias": lambda: nn.Linear(6, 6, bias=False),
    "convolution": lambda: Images(nn.Conv1d(3, 3, 3, padding=1)),
    "transposed convolution": lambda: Images(nn.ConvTranspose1d(3, 3, 3, padding=1, bias=False)),
    "embedding": lambda: Flat(nn.Embedding(7, 6, padding_idx=1)),
    "bag": lambda: Flat(nn.EmbeddingBag(7, 6, mode="mean")),
    "norm": lambda: nn.LayerNorm(6),
    "batch norm": lambda: nn.BatchNorm1d(6),
}


class Trunk(nn.Module):
    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.layers, self.last = nn.Linear(6, 6), nn.ModuleList([build(), build()]), nn.Linear(6, 5)
        self.plan: Sequence[int] = ()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for number in self.plan:
            x = self.layers[number](x.tanh())
        found: Tensor = self.last(x).tanh()
        return found


@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_each_steps_gramian_is_its_own(kind: str, disjoint: bool) -> None:
    torch.manual_seed(0)
    trunk = Trunk(LAYERS[kind]).double()
    trunk.train(not disjoint)  # batch norm mixes samples in training
    heads = nn.ModuleDict({task: nn.Linear(5, 2) for task in TASKS}).double()
    looks = {"trunk": Keeping(TASKS), "layers": Keeping(TASKS), "last": Keeping(TASKS)}
    for plan in PLANS:
        trunk.plan = plan
        x = torch.randn(4, 6, dtype=torch.float64)
        for place, balancer in looks.items():
            features = trunk(x)
            mine = {task: slice(k, k + 1) if disjoint else slice(None) for k, task in enumerate(TASKS)}
            losses = {task: 10.0**k * heads[task](features[mine[task]]).square().mean() for k, task in enumerate(TASKS)}
            read = list((trunk.layers if place == "layers" else trunk.last if place == "last" else trunk).parameters())
            rows = task_gradients(losses, read)
            J = torch.stack([torch.cat([piece.to_dense().flatten() for piece in row]) for row in rows.values()])
            if place == "last":
                balancer(losses, shared=features, look="last")
            else:
                balancer(losses, shared=trunk, look=trunk.layers if place == "layers" else None)
            scale = J.norm(dim=1)
            torch.testing.assert_close(balancer.gramian / scale / scale[:, None], J @ J.T / scale / scale[:, None])
