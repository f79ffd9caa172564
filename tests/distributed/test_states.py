"""Declared reductions, shown by real processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steelyard
from distributed.launch import launch
from steelyard.balancing.distributed import synchronise
from steelyard.errors import StateError

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)


class Declared(steelyard.Balancer):
    name = "declared"

    def __init__(self, tasks: list[str]) -> None:
        super().__init__(tasks)
        for reduction in ("mean", "sum", "max", "first", "same"):
            self.declare(reduction, reduce=reduction)  # type: ignore[arg-type]
        self.declare("last", default=float("nan"), reduce="mean")
        self.declare("rows", ("T", "P"), reduce="mean")


def train_apart(rank: int, ranks: int, disagree: str) -> dict[str, Any]:
    balancer = Declared(["a", "b"])
    state = balancer.working_state()
    for name in ("mean", "sum", "max", "first"):
        setattr(state, name, torch.tensor([1.0 + rank, 10.0], dtype=torch.float64))
    if rank == 0:
        state.last = torch.tensor([float("nan"), 4.0], dtype=torch.float64)
    else:
        state.last = torch.tensor([float("nan"), float("nan")], dtype=torch.float64)
    if disagree == "same":
        state.same = torch.full((2,), float(rank), dtype=torch.float64)
    if disagree == "rows" and rank == 1:
        state.rows = torch.ones(2, 5)
    balancer.commit(state)
    try:
        synchronise(balancer)
        return {name: value for name, value in balancer.state_dict().items() if isinstance(value, torch.Tensor)}
    except StateError as error:
        return {"error": str(error), "first": balancer.first}


def run(disagree: str) -> list[dict]:
    return launch(train_apart, 2, disagree)


def test_each_value_is_reduced_as_declared() -> None:
    ranks = run(disagree="")
    for found in ranks:
        assert found["mean"].tolist() == [1.5, 10.0]
        assert found["sum"].tolist() == [3.0, 20.0]
        assert found["max"].tolist() == [2.0, 10.0]
        assert found["first"].tolist() == [1.0, 10.0]
        assert found["last"].isnan().tolist() == [True, False]
        assert found["last"][1] == 4.0  # of the rank that has seen it


def test_ranks_that_disagree_on_what_must_be_the_same_are_told_so_together() -> None:
    for rank, found in enumerate(run(disagree="same")):
        assert "disagree on declared's 'same'" in found["error"]
        assert found["first"].tolist() == [1.0 + rank, 10.0]  # nothing has changed


def test_ranks_whose_values_have_different_sizes_are_told_so_together() -> None:
    for found in run(disagree="rows"):
        assert "'rows' has the shape (2, 0) on rank 0 and (2, 5) on rank 1" in found["error"]


def test_without_a_process_group() -> None:
    with pytest.raises(StateError, match="init_process_group"):
        synchronise(steelyard.make("ema", ["a"]))
