"""Tables of recommenders: the Gramian of what each lookup sends, without the table's own size anywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steelyard.gradients.graph import survey
from steelyard.gradients.trunk import trunk_gradients
from steelyard.gradients.trunk_layers import trunk_layers

ROWS, WIDTH, PADDING = 9, 4, 2
IDS = torch.tensor([0, 2, 3, 3, 3, 2, 2, 8, 0, 5, 7, 3])
OFFSETS = torch.tensor([0, 0, 3, 5, 7, 7, 8])  # an empty bag in front, one of padding alone, one empty in the middle
WEIGHTS = torch.linspace(-1, 2, len(IDS), dtype=torch.float64)
Table = Callable[[nn.Parameter], Tensor]


def bag(**options: object) -> Table:
    return lambda table: F.embedding_bag(IDS, table, OFFSETS, **options)


def padded(mode: str = "sum", **options: object) -> Table:
    return bag(mode=mode, padding_idx=PADDING, **options)


TABLES: dict[str, Table] = {
    "embedding": lambda table: F.embedding(IDS, table),
    "embedding with padding": lambda table: F.embedding(IDS, table, PADDING),
    "embedding with padding counted from the end": lambda table: F.embedding(IDS, table, PADDING - ROWS),
    "embedding by frequency": lambda table: F.embedding(IDS, table, PADDING, scale_grad_by_freq=True),
    "nothing but padding": lambda table: F.embedding(torch.full((3,), PADDING), table, PADDING),
    "sparse embedding": lambda table: F.embedding(IDS.view(3, 4), table, PADDING, sparse=True),
    "one id": lambda table: F.embedding(torch.tensor(3), table, PADDING)[None],
    "sums": bag(mode="sum"),
    "sums with padding": padded(),
    "sums, sparse": padded(sparse=True),
    "weighted sums": padded(per_sample_weights=WEIGHTS),
    "weights that learn": padded(per_sample_weights=WEIGHTS.clone().requires_grad_()),
    "means": bag(mode="mean"),
    "means with padding": padded("mean"),
    "means, sparse": padded("mean", sparse=True),
    "bags of one size": lambda table: F.embedding_bag(IDS.view(3, 4), table, mode="mean", padding_idx=PADDING),
    "the end is told": lambda table: F.embedding_bag(
        IDS, table, torch.tensor([0, 0, 3, 12]), mode="mean", include_last_offset=True
    ),
    "32 bits": lambda table: F.embedding_bag(IDS.int(), table, OFFSETS.int(), mode="mean"),
    "several of one table": lambda table: torch.cat(
        [padded("mean")(table), padded()(table), F.embedding(IDS, table, scale_grad_by_freq=True)]
    ),
}
LEFT_TO_AUTOGRAD: dict[str, Table] = {
    "maxima": bag(mode="max"),
    "sums by frequency": padded(scale_grad_by_freq=True),
    "means by frequency": padded("mean", scale_grad_by_freq=True),
    "maxima and sums": lambda table: torch.cat([bag(mode="max")(table), bag(mode="sum")(table)]),
}


def looked_at(read: Table) -> tuple[nn.Parameter, list[Tensor]]:
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(ROWS, WIDTH, dtype=torch.float64))
    z = read(table).tanh()
    return table, [scale * (z * torch.randn_like(z)).sum().tanh() for scale in (1.0, 1e-6, 1e3)]


def gramian(table: nn.Parameter, losses: list[Tensor]) -> Tensor:
    return trunk_gradients(["a", "b", "c"], losses, [table], at_boundary=False).gramian


@pytest.mark.parametrize("name", [*TABLES, *LEFT_TO_AUTOGRAD])
def test_its_gramian_is_the_gradients(name: str) -> None:
    table, losses = looked_at((TABLES | LEFT_TO_AUTOGRAD)[name])
    J = torch.stack([torch.autograd.grad(loss, table, retain_graph=True)[0].to_dense().flatten() for loss in losses])
    norms = J.norm(dim=1).clamp(min=1e-100)
    error = (gramian(table, losses) - J @ J.T).abs() / (norms[:, None] * norms)
    assert float(error.max()) < 1e-12
    assert float(norms.min()) > 1e-12 or name == "nothing but padding"
    layers, raw = trunk_layers(survey(losses, [table]), 3)
    assert (len(layers), len(raw)) == ((0, 1) if name in LEFT_TO_AUTOGRAD else (1, 0))


@pytest.mark.parametrize("name", ["embedding with padding", "sums with padding", "means with padding"])
def test_no_gradient_has_the_tables_size(name: str) -> None:
    """A table of many gigabytes: one gradient of it would not fit."""
    table = nn.Parameter(torch.empty(1, 1, dtype=torch.float64).expand(2**33, WIDTH))
    z = TABLES[name](table)
    losses = [(z * scale).sum() for scale in (1.0, 2.0, 3.0)]
    found = gramian(table, losses)
    assert found[1, 2] == 6 * found[0, 0] > 0
