"""Tables with sparse gradients in the trunk: every method leaves them sparse, and exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.base.specs import parse_spec
from steelyard.method_registry import method_class, method_names, options_of

SPECS = [
    name
    for name in (*method_names(), "mgda(memory=rows)", "db-mtl(memory=rows)")
    if "trunk" in method_class(parse_spec(name).name).where
    and method_class(parse_spec(name).name).reads not in ("cross_gramian", "lookahead")
]
"""Methods that bring further batches are carried by the same code."""
TABLES = {
    "embedding": lambda sparse: nn.Embedding(9, 4, sparse=sparse),
    "embedding with padding": lambda sparse: nn.Embedding(9, 4, padding_idx=1, sparse=sparse),
    "bag": lambda sparse: nn.EmbeddingBag(9, 4, mode="sum", sparse=sparse),
    "mean of a bag with padding": lambda sparse: nn.EmbeddingBag(9, 4, mode="mean", padding_idx=1, sparse=sparse),
}
EVERY_TABLE = ("mgda", "pcgrad", "inverse-norm", "db-mtl", "moco", "equal", "mgda(memory=rows)")
"""One of each that is read at a table: the kinds of tables are read by one code for all methods, whose others get the
last of them."""


def trained(spec: str, heads: str, table: str, sparse: bool) -> tuple[nn.Module, list[Tensor], list[Tensor]]:
    """Two steps: the trunk, its table's gradients, and the weights."""
    torch.manual_seed(0)
    options = {"main": "a"} if "main" in options_of(method_class(parse_spec(spec).name)) else {}
    balancer = steelyard.make(spec, ["a", "b"], heads=heads, on_nonfinite="raise", **options)
    trunk = nn.Sequential(TABLES[table](sparse), nn.Linear(4, 4)).double()
    own = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)]).double()
    dense = [*trunk[1].parameters(), *own.parameters()]
    optimizers = [torch.optim.SGD(dense, lr=0.1)]
    optimizers += [torch.optim.SGD(trunk[0].parameters(), lr=0.1)]
    gradients, weights = [], []
    for step in range(2):

        def losses(step: int = step) -> dict[str, Tensor]:
            z = trunk(torch.tensor([[step, 1], [4, step + 2]]))  # the others of the table's rows are not in the batch
            return {"a": own[0](z).square().mean(), "b": own[1](z).abs().mean()}

        for optimizer in optimizers:
            optimizer.zero_grad()
        balancer(losses(), shared=trunk).backward()
        gradients.append(trunk[0].weight.grad)
        weights.append(balancer.last_weights)
        for optimizer in optimizers:
            optimizer.step()
        if balancer.needs_after:
            balancer.observe(after=losses())
    return trunk, gradients, weights


@pytest.mark.parametrize("heads", ["plain", "weighted"])
@every("spec", SPECS)
def test_every_method_sends_what_it_sends_to_a_dense_table(spec: str, heads: str) -> None:
    for table in TABLES if spec in EVERY_TABLE else [*TABLES][-1:]:
        trunk, sparse, weights = trained(spec, heads, table, sparse=True)
        twin, dense, expected = trained(spec, heads, table, sparse=False)
        assert all(gradient.is_sparse for gradient in sparse)
        for one, other in zip(
            (*sparse, *weights, *trunk.parameters()), (*dense, *expected, *twin.parameters()), strict=True
        ):
            assert torch.allclose(one.to_dense(), other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", ["db-mtl", "moco", "max-norm", "excess-mtl"])
def test_an_optimizer_that_takes_nothing_else(spec: str) -> None:
    torch.manual_seed(0)
    table, own = nn.Embedding(9, 4, sparse=True), nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.1)
    balancer = steelyard.make(spec, ["a", "b"], heads="plain").attach(optimizer)
    before = table.weight.detach().clone()
    for _ in range(2):
        z = table(torch.tensor([1, 5]))
        optimizer.zero_grad()
        balancer({"a": own[0](z).square().mean(), "b": own[1](z).abs().mean()}, shared=table).backward()
        optimizer.step()
    moved = (table.weight != before).any(1).nonzero().flatten()
    assert moved.tolist() == [1, 5]
