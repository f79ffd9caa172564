"""Declared reductions, shown by real processes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import steelyard
from steelyard.distributed import synchronise
from steelyard.errors import StateError


class Declared(steelyard.Balancer):
    name = "declared"

    def __init__(self, tasks: list[str]) -> None:
        super().__init__(tasks)
        for reduction in ("mean", "sum", "max", "first", "same"):
            self.declare(reduction, reduce=reduction)  # type: ignore[arg-type]


def train_apart(rank: int, folder: str, disagree: bool) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    balancer = Declared(["a", "b"])
    state = balancer.working_state()
    for name in ("mean", "sum", "max", "first"):
        setattr(state, name, torch.tensor([1.0 + rank, 10.0], dtype=torch.float64))
    if disagree:
        state.same = torch.full((2,), float(rank), dtype=torch.float64)
    balancer.commit(state)
    try:
        synchronise(balancer)
        result = {name: value for name, value in balancer.state_dict().items() if isinstance(value, torch.Tensor)}
    except StateError as error:
        result = {"error": str(error)}
    torch.save(result, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def run(disagree: bool) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(train_apart, (folder, disagree), nprocs=2)
        return [torch.load(Path(folder) / f"rank{rank}.pt") for rank in range(2)]


def test_each_value_is_reduced_as_declared() -> None:
    ranks = run(disagree=False)
    for found in ranks:
        assert found["mean"].tolist() == [1.5, 10.0]
        assert found["sum"].tolist() == [3.0, 20.0]
        assert found["max"].tolist() == [2.0, 10.0]
        assert found["first"].tolist() == [1.0, 10.0]


def test_ranks_that_disagree_on_what_must_be_the_same_are_told_so_together() -> None:
    assert all("disagree on declared's 'same'" in found["error"] for found in run(disagree=True))


def test_without_a_process_group() -> None:
    with pytest.raises(StateError, match="init_process_group"):
        synchronise(steelyard.make("ema", ["a"]))
